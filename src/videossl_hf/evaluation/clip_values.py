"""What every single clip came to, beside results.json: for paired tests, confusion matrices and pictures.

Of results.json they lie in `results.clips`, one safetensors file a result, named by what the result is of.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import DataError, OutputError
from .fingerprint import short_hash
from .results import Result

__all__ = ["MOST_FEATURES", "ClipValues", "read_clip_values", "write_clip_values"]


MOST_FEATURES = 2000
"""Clips; of larger sets a map says nothing that a sample would not."""


@dataclass(frozen=True)
class ClipValues:
    """The test clips of one result.

    Attributes:
        keys: their names, in the order of the rows; in the tests of several folds one after the other.
        values: by figure, one number a clip, see `Outcome.values`.
        labels: (clips,) int64, -1 without one.
        predictions: (clips,) int64, the most probable class; None for retrieval.
        label_names: of the classes.
        features: (clips, width), for a map of them; kept of kNN on at most `MOST_FEATURES` clips.
    """

    keys: list[str]
    values: dict[str, Tensor]
    labels: Tensor
    predictions: Tensor | None = None
    label_names: list[str] | None = None
    features: Tensor | None = None


def write_clip_values(results: str | Path, result: Result, clips: ClipValues) -> Path:
    """Write those of a result of a results file, and return where.

    Raises:
        OutputError: the file cannot be written.
    """
    path = _path(Path(results), result)
    tensors = {f"value.{name}": values.contiguous() for name, values in clips.values.items()}
    tensors["labels"] = clips.labels.contiguous()
    if clips.predictions is not None:
        tensors["predictions"] = clips.predictions.contiguous()
    if clips.features is not None:
        tensors["features"] = clips.features.half().contiguous()
    about = json.dumps({"keys": clips.keys, "label_names": clips.label_names})
    part = path.with_suffix(f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"clips": about})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    return path


def read_clip_values(results: str | Path, result: Result) -> ClipValues | None:
    """Those of a result; None where nobody kept them.

    Raises:
        DataError: the file cannot be read.
    """
    path = _path(Path(results), result)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(file.metadata()["clips"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read {path} ({error}); evaluate again to write it anew") from error
    values = {name.removeprefix("value."): own for name, own in tensors.items() if name.startswith("value.")}
    return ClipValues(
        about["keys"],
        values,
        tensors["labels"],
        tensors.get("predictions"),
        about["label_names"],
        tensors.get("features"),
    )


def _path(results: Path, result: Result) -> Path:
    return results.with_suffix(".clips") / f"{short_hash(result.identity)}.safetensors"
