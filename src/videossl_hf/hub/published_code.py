"""What a published model carries beside its own code: pipelines, a handler for Inference Endpoints, a clip.

The pipelines' files lie flat in the repository, named by `custom_pipelines` in its config.json, so that
`pipeline(task, model=id, trust_remote_code=True)` finds them where this package is not installed.
"""

from __future__ import annotations

import importlib
import inspect
import re
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from ..data.sounding_shapes.clips import ClipSettings, draw_clip, render_frames, render_sound
from ..data.writer import encode_video
from ..models.vimpac.tokenizer_file_vimpac import TOKENIZER_FILE
from ..registry import METHODS, find_class, has_class
from ..remote_code import flatten_closure
from .description import method_of, takes_codes

__all__ = [
    "EXAMPLE_CLIP",
    "HANDLER",
    "custom_pipelines",
    "example_clip",
    "lacks_tokenizer",
    "pipeline_code",
    "requirements",
]

PACKAGE = __package__.split(".")[0]
HANDLER = Path(__file__).parent / "templates" / "handler.py"
EXAMPLE_CLIP = "example.mp4"
IMPORTED = ("av", "pillow", "transformers")
"""Packages that published code needs and a container for torch may lack."""

_FEATURES = ("video-feature-extraction", "pipeline_features.VideoFeatureExtractionPipeline")
_ZERO_SHOT = ("zero-shot-video-classification", "pipeline_zero_shot.ZeroShotVideoClassificationPipeline")
_CLASSES = (
    "windowed-video-classification",
    "pipeline_classification.WindowedVideoClassificationPipeline",
)


def custom_pipelines(config: Any) -> dict[str, dict[str, Any]]:
    """The `custom_pipelines` of a model's config.json: of a classifier, or of a model that gives features.

    Empty for a tokeniser.
    """
    method = method_of(config)
    if method not in METHODS:
        return {}
    tasks = [(*_FEATURES, "AutoModel")]
    has_text = getattr(config, "use_text", getattr(config, "has_text", True))
    if has_text and hasattr(find_class(method, "Model"), "get_text_features"):
        tasks.append((*_ZERO_SHOT, "AutoModel"))
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("ForVideoClassification") and has_class(method, "ForVideoClassification"):
        tasks.append((*_CLASSES, "AutoModelForVideoClassification"))
    return {task: {"impl": impl, "pt": [auto], "type": "multimodal"} for task, impl, auto in tasks}


def lacks_tokenizer(config: Any, folder: Path) -> bool:
    """Whether a saved model takes codes of frames and its folder does not hold what makes them of a video."""
    method = method_of(config)
    return takes_codes(method) and not (folder / TOKENIZER_FILE).exists()


def pipeline_code(pipelines: dict[str, dict[str, Any]]) -> dict[str, str]:
    """File name -> source of the pipelines that a `custom_pipelines` names, and of all that they import."""
    modules = [entry["impl"].split(".")[0] for entry in pipelines.values()]
    paths = [
        Path(inspect.getfile(importlib.import_module(f".{name}", __package__)))
        for name in sorted(set(modules))
    ]
    return flatten_closure(paths, PACKAGE)


def requirements() -> str:
    """requirements.txt of a repository: what an endpoint installs before it runs the handler."""
    wanted = [line for line in requires("videossl-hf") or () if re.split(r"[<>=;\[ ]", line)[0] in IMPORTED]
    return "".join(f"{line}\n" for line in sorted(wanted))


def example_clip() -> bytes:
    """The example of a model card: four seconds of a generated shape with its sound, always the same."""
    settings = ClipSettings(size=160, fps=16.0, seconds=2.0, nuisance="mid", motions=2, seed=8)
    draws = draw_clip(settings, "test", 0)
    return encode_video(
        render_frames(draws, settings),
        settings.fps,
        sound=render_sound(draws, settings),
        sample_rate=settings.sample_rate,
        crf=24,
    )
