"""Video representation learning on the Hugging Face Hub: pre-train, evaluate, publish, load.

Importing this package registers every method with transformers' Auto classes, so that
`AutoModel.from_pretrained(...)` loads its checkpoints without `trust_remote_code`, and our tasks with its
`pipeline`. Every public class of the package can be imported from here; a module is read when its first class
is asked for.
"""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import Any

from .dependencies import check_torchvision
from .registry import COMPANIONS, METHODS, find_class, has_class
from .remote_code import AUTO_CLASSES

__version__ = "0.1.0"

_PIPELINES = {
    "video-feature-extraction": ("hub.pipeline_features.VideoFeatureExtractionPipeline", "AutoModel"),
    "zero-shot-video-classification": (
        "hub.pipeline_zero_shot.ZeroShotVideoClassificationPipeline",
        "AutoModel",
    ),
    "windowed-video-classification": (
        "hub.pipeline_classification.WindowedVideoClassificationPipeline",
        "AutoModelForVideoClassification",
    ),
}
"""Task -> our pipeline's class, and the Auto class that loads its model."""

_CLASS = re.compile(r"^class ([A-Z]\w*)", flags=re.MULTILINE)
_ALL = re.compile(r"^__all__ = \[(.*?)\]", flags=re.MULTILINE | re.DOTALL)


@functools.cache
def _module_of_class() -> dict[str, str]:
    """Public class -> module that defines it, from the source text alone: a class that its file's `__all__`
    names."""
    root = Path(__file__).parent
    modules: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        listed = _ALL.search(source)
        public = set(re.findall(r"\w+", listed[1])) if listed else set()
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        modules.update(dict.fromkeys(public & set(_CLASS.findall(source)), module))
    return modules


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted({*_module_of_class(), "METHODS", "find_class"})
    module = _module_of_class().get(name) if name[:1].isupper() else None
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


def _register_methods() -> None:
    """Tell transformers' Auto classes about every method; safe to run twice."""
    check_torchvision()
    from transformers.models import auto

    from .data.torchvision_free import AutoVideoProcessor

    for method in (*METHODS, *COMPANIONS):
        config_class = find_class(method, "Config")
        auto.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        for name, (_, suffix) in AUTO_CLASSES.items():
            if name != "AutoConfig" and has_class(method, suffix):
                auto_class = AutoVideoProcessor if name == "AutoVideoProcessor" else getattr(auto, name)
                auto_class.register(config_class, find_class(method, suffix), exist_ok=True)


def _register_pipelines() -> None:
    """Tell transformers' `pipeline` about our tasks; a pipeline's file is read when it is asked for."""
    from transformers.models import auto
    from transformers.pipelines import PIPELINE_REGISTRY

    for task, (path, auto_class) in _PIPELINES.items():
        entry = {"impl": f"{__name__}.{path}", "pt": (getattr(auto, auto_class),), "type": "multimodal"}
        PIPELINE_REGISTRY.supported_tasks[task] = entry


_register_methods()
_register_pipelines()
