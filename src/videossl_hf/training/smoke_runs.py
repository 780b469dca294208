"""Small trainings on generated clips: what each method's run sees, what comes before it, what is scored.

training/smoke.py and benchmarks/ablation.py share this. The settings of every method stand in
training/recipes/smoke_runs.yaml.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.datasets import load_videos
from ..data.sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from ..errors import RecipeError
from ..evaluation.baselines import BASELINES
from ..evaluation.clips import PreparedClips
from ..evaluation.features import extract_features
from ..evaluation.loading import load_processor, quiet_libraries
from ..evaluation.protocols import knn_protocol, linear_protocol
from .typed import convert_fields, from_mapping, load_yaml, setting, unknown_key

__all__ = ["FeatureScores", "SmokeRun", "read_smoke_run"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SmokeRun:
    """One method's entry of smoke_runs.yaml. `{data}` and `{work}` in its texts are folders: the clips, and
    the place of what the commands before the training write.

    Attributes:
        clips: for training; validation and test hold a quarter of that each.
        data: settings of `ClipSettings` that differ from its defaults.
        before: Python command lines, run once, from the repository's root, before the first training.
        script: that trains, beside smoke.py.
        overrides: recipe keys of every run.
        scores: further arguments of `videossl evaluate`, one text a call, for figures beside kNN and probe.
        metrics: names in metrics.jsonl whose last value is a figure of the run.
    """

    clips: int = setting(1200, "training clips", minimum=4)
    data: dict[str, Any] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    script: str = "pretrain.py"
    overrides: str = ""
    scores: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    def shapes(self, clips: int | None = None) -> SoundingShapes:
        """The set of clips, with another number of training clips if one is given."""
        clips = clips or self.clips
        settings = ClipSettings(**convert_fields(ClipSettings, self.data, "data"))
        return SoundingShapes(clips, clips // 4, clips // 4, settings)

    def prepare(
        self, root: Path, data: Path, work: Path, *, clips: int | None = None, show_progress: bool = True
    ) -> None:
        """Write the clips and run the commands that come before; what is done already is not done again.

        Raises:
            OutputError: `data` holds something else.
            subprocess.CalledProcessError: a command failed.
        """
        shapes = self.shapes(clips)
        write_sounding_shapes(data, shapes, show_progress=show_progress)
        done = work / "before.json"
        state = {"data": shapes.settings(), "before": self.before}
        if not self.before or (done.is_file() and json.loads(done.read_text(encoding="utf-8")) == state):
            return
        work.mkdir(parents=True, exist_ok=True)
        for command in self.before:
            subprocess.run([sys.executable, *fill(command, data, work)], check=True, cwd=root)
        done.write_text(json.dumps(state) + "\n", encoding="utf-8")

    def recipe_overrides(self, data: Path, work: Path) -> list[str]:
        """The recipe keys of every run."""
        return ["--data.train", str(data), *fill(self.overrides, data, work)]

    def further_scores(
        self,
        folder: Path,
        data: Path,
        work: Path,
        *,
        split: str = "test",
        random_weights: bool = False,
        seed: int = 0,
    ) -> dict[str, float]:
        """The figures of `scores` for the model in `folder`, named SPLIT_DIRECTION (or protocol) FIGURE."""
        figures = {}
        output = folder / "further-scores.json"
        for arguments in self.scores:
            output.unlink(missing_ok=True)
            command = [sys.executable, "-m", "videossl_hf.cli", "evaluate", str(folder), "--data", str(data)]
            command += ["--test-split", split, "--seed", str(seed), "--output", str(output)]
            command += ["--random-weights"] if random_weights else []
            subprocess.run([*command, *fill(arguments, data, work)], check=True, stdout=subprocess.DEVNULL)
            for result in json.loads(output.read_text(encoding="utf-8"))["results"]:
                name = result["protocol"].get("direction", result["protocol"]["name"])
                for figure, value in result["figures"].items():
                    figures[f"{split}_{name} {figure}"] = round(value["value"], 2)
        output.unlink(missing_ok=True)
        return figures

    def last_metrics(self, folder: Path, *, strict: bool = True) -> dict[str, float]:
        """The last value of every name in `metrics`, from the folder's metrics.jsonl; accuracies in percent.

        Args:
            folder: of a run.
            strict: False leaves out what the training did not log, such as a part of the loss that a variant
                lacks.

        Raises:
            RecipeError: the training logged none of that name.
        """
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        figures = {}
        for name in self.metrics:
            values = [entry[name] for entry in log if name in entry]
            if not values and not strict:
                continue
            if not values:
                raise RecipeError(
                    f"{folder / 'metrics.jsonl'} has no {name!r}, which smoke_runs.yaml asks for"
                )
            figures[name] = round(100 * values[-1], 2) if name.startswith("accuracy") else values[-1]
        return figures


class FeatureScores:
    """kNN and linear probe of any number of models on the clips of one set, each decoded once."""

    def __init__(self, processor_folder: Path, data: Path) -> None:
        self.processor = load_processor(str(processor_folder))
        self.data = data
        self.clips = self._clips(as_pixels=False)

    def _clips(self, as_pixels: bool) -> dict[str, PreparedClips]:
        return {
            split: PreparedClips(
                self.processor,
                load_videos(str(self.data), split),
                views="1x1",
                keep=True,
                as_pixels=as_pixels,
            )
            for split in SPLITS
        }

    def of(self, model: Any, splits: Iterable[str] = ("test",)) -> dict[str, float]:
        """Top-1 in percent by `SPLIT_knn` and `SPLIT_linear`.

        The probe's penalty is chosen on validation for test, and on a fifth of train for validation.
        """
        with quiet_libraries():
            clips = self.clips
            if isinstance(model, tuple(BASELINES.values())) and "input_codes" in self.processor(
                videos=[load_videos(str(self.data), "train")[0]["video"]]
            ):
                clips = self._clips(as_pixels=True)
            features = {
                split: extract_features(model, self.processor, own, batch_size=50)
                for split, own in clips.items()
            }
        figures = {}
        for split in splits:
            held = features["validation"] if split == "test" else None
            knn = knn_protocol(features["train"], features[split], k=10)
            linear = linear_protocol(features["train"], features[split], held)
            figures[f"{split}_knn"] = round(knn.figures["top1"].value, 2)
            figures[f"{split}_linear"] = round(linear.figures["top1"].value, 2)
        return figures


def fill(text: str, data: Path, work: Path) -> list[str]:
    """The words of a command line, with the two folders in their places."""
    return [word.replace("{data}", str(data)).replace("{work}", str(work)) for word in shlex.split(text)]


def read_smoke_run(path: Path, method: str) -> SmokeRun:
    """A method's entry of smoke_runs.yaml.

    Raises:
        RecipeError: there is none, or a key or value in it is wrong.
    """
    runs = load_yaml(path.read_text(encoding="utf-8"))
    if method not in runs:
        raise unknown_key(method, runs)
    return from_mapping(SmokeRun, runs[method] or {}, method)
