"""After an upload: what arrived at the commit is what was sent, and computes what the folder computes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from torch import Tensor
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor

from ..errors import OutputError
from ..evaluation.loading import quiet_libraries
from .published_code import example_clip

__all__ = ["check_arrived", "check_outputs", "compute"]


def check_arrived(
    api: HfApi, files: Mapping[str, Path | bytes], repository: str, commit: str, repo_type: str = "model"
) -> None:
    """Download every file again into an empty folder and compare.

    Args:
        api: client of the Hub.
        files: path in the repository -> the file that was sent, or its content.
        repository: id on the Hub.
        commit: hash of the commit.
        repo_type: "model" or "space".

    Raises:
        OutputError: a file differs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        for name, source in files.items():
            found = api.hf_hub_download(
                repository, name, revision=commit, repo_type=repo_type, cache_dir=temporary
            )
            arrived = Path(found)
            expected = iter([source]) if isinstance(source, bytes) else _chunks(source)
            if _sha256(_chunks(arrived)) != _sha256(expected):
                raise OutputError(f"{name} at {repository}@{commit} differs from what was sent: push again")


def check_outputs(folder: str | Path, repository: str, commit: str) -> None:
    """Compute the example clip with the folder's model and with the published one.

    Raises:
        OutputError: the outputs differ.
    """
    expected = compute(folder)
    with tempfile.TemporaryDirectory() as temporary:
        found = compute(snapshot_download(repository, revision=commit, local_dir=temporary))
    if not torch.equal(found, expected):
        raise OutputError(
            f"the model at {repository}@{commit} does not compute what the one in {folder} computes"
        )


@torch.no_grad()
def compute(folder: str | Path) -> Tensor:
    """What a saved model makes of the example clip: a classifier's logits, codes, or features."""
    folder = Path(folder)
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    classifies = architecture.endswith("ForVideoClassification")
    auto_class: Any = AutoModelForVideoClassification if classifies else AutoModel
    with quiet_libraries():
        model = auto_class.from_pretrained(folder).eval()
        processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(videos=[example_clip()], return_tensors="pt", num_clips=1, num_crops=1)
    if model.main_input_name not in inputs:  # codes, of a processor without a tokeniser
        inputs = {model.main_input_name: torch.zeros(1, *model.config.grid, dtype=torch.int64)}
    output = model(**inputs)
    return next(output[name] for name in ("logits", "codes", "pooler_output") if name in output)


def _sha256(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
