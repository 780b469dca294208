"""Features on disk: safetensors shards beside a manifest that says what they were made from.

    FOLDER/manifest.json               identity of model, processor, views, data; sizes; names of the classes
    FOLDER/shard-00000.safetensors     features, labels and names of the first `shard_size` samples
    FOLDER/batch-00001024.safetensors  the same of one batch (its first sample), until the shard is whole
    ...

A file appears under its name only when it is complete, so an interrupted extraction goes on with the first
missing batch. Where batches begin follows from the manifest alone, whoever computes them. A manifest of
another model, data or setting is an error, never silently reused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import DataError, OutputError
from .table import FeatureTable

__all__ = ["FeatureCache", "load_features"]

FORMAT = 2


class FeatureCache:
    """One folder of features.

    Args:
        folder: made if absent.
        manifest: what the features are made from: "identity" (compared), "label_names", "num_samples",
            "batch_size" and "shard_size" (taken from the folder if it holds a manifest already).

    Raises:
        DataError: the folder holds features of another identity.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        if path.is_file():
            self.manifest = _read_manifest(self.folder)
            _check_identity(self.folder, self.manifest["identity"], manifest["identity"])
        else:
            self.manifest = {"format": FORMAT} | manifest
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _write_whole(path, json.dumps(self.manifest, indent=1).encode())
            except OSError as error:
                raise OutputError(f"cannot write features to {self.folder}: {error}") from error

    @property
    def num_shards(self) -> int:
        """Shards of the complete table."""
        return -(-self.manifest["num_samples"] // self.manifest["shard_size"])

    def batches(self, shard: int) -> list[range]:
        """Sample numbers of a shard, batch by batch."""
        size, step = self.manifest["shard_size"], self.manifest["batch_samples"]
        end = min((shard + 1) * size, self.manifest["num_samples"])
        return [range(first, min(first + step, end)) for first in range(shard * size, end, step)]

    def missing(self) -> list[int]:
        """Shards that are not there, or cannot be read."""
        return [shard for shard in range(self.num_shards) if not _is_complete(self._shard(shard))]

    def missing_batches(self, shard: int) -> list[range]:
        """Batches of a missing shard that are not there either."""
        return [rows for rows in self.batches(shard) if not _is_complete(self._batch(rows))]

    def write_batch(self, rows: range, table: FeatureTable) -> None:
        """Store the features of a batch; a reader sees all of it or nothing."""
        self._write(self._batch(rows), table)

    def join(self, shard: int) -> None:
        """Make a shard of its batches, all of which are there, and delete these."""
        files = [self._batch(rows) for rows in self.batches(shard)]
        self._write(self._shard(shard), self._join([_read(file) for file in files]))
        for file in files:
            file.unlink(missing_ok=True)

    def table(self) -> FeatureTable:
        """All shards as one table.

        Raises:
            DataError: shards are missing.
        """
        missing = self.missing()
        if missing:
            raise DataError(
                f"{self.folder} holds {self.num_shards - len(missing)} of {self.num_shards} shards: "
                "the extraction was interrupted; run it again to go on"
            )
        table = self._join([_read(self._shard(shard)) for shard in range(self.num_shards)])
        if len(table) == 0:
            raise DataError(
                f"none of the samples of {self.folder} could be decoded: {table.info['skipped'][0]}"
            )
        table.info = self.manifest | table.info
        return table

    def _join(self, parts: list[tuple[Tensor, Tensor, dict[str, Any]]]) -> FeatureTable:
        filled = [part for part in parts if len(part[1])] or parts[:1]
        return FeatureTable(
            torch.cat([features for features, _, _ in filled]),
            torch.cat([labels for _, labels, _ in filled]),
            [key for _, _, about in parts for key in about["keys"]],
            self.manifest["label_names"],
            {"skipped": [sample for _, _, about in parts for sample in about["skipped"]]},
        )

    def _write(self, path: Path, table: FeatureTable) -> None:
        about = {"keys": table.keys, "skipped": table.info.get("skipped", [])}
        part = path.with_suffix(f".part{os.getpid()}")
        try:
            save_file(
                {"features": table.features.contiguous(), "labels": table.labels.contiguous()},
                part,
                metadata={"samples": json.dumps(about)},  # one entry: of several the order is left to chance
            )
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error}") from error

    def _shard(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"

    def _batch(self, rows: range) -> Path:
        return self.folder / f"batch-{rows.start:08d}.safetensors"


def _read(path: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("features"), file.get_tensor("labels"), json.loads(file.metadata()["samples"])


def _is_complete(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return {"features", "labels"} <= set(file.keys()) and "samples" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_features(folder: str | Path) -> FeatureTable:
    """The table that `videossl extract` wrote into a folder.

    Raises:
        DataError: no manifest there, or shards missing.
    """
    folder = Path(folder)
    return FeatureCache(folder, _read_manifest(folder)).table()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no features (no manifest.json); `videossl extract` writes them"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete the folder and extract again") from error
    needed = {"format", "identity", "label_names", "num_samples", "batch_samples", "shard_size"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys() or manifest["format"] != FORMAT:
        raise DataError(
            f"{path} is not a feature manifest of format {FORMAT}; delete the folder and extract again"
        )
    return manifest


def _check_identity(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = [key for key in wanted if stored.get(key) != wanted[key]]
    if different:
        changes = ", ".join(f"{key} {stored.get(key)!r} instead of {wanted[key]!r}" for key in different)
        raise DataError(
            f"the features in {folder} were made with {changes}: "
            "name another folder, or delete this one to extract anew"
        )


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
