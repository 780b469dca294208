"""Features on disk: safetensors shards beside a manifest that says what they were made from.

    FOLDER/manifest.json             identity of model, processor, views and data; sizes; names of the classes
    FOLDER/shard-00000.safetensors   features, labels and row numbers of the first `shard_size` samples
    ...

A shard appears under its name only when it is complete, so an interrupted extraction goes on with the first
missing one. A manifest of another model, data or setting is an error, never silently reused.
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

FORMAT = 1


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

    def rows(self, shard: int) -> range:
        """Sample numbers of a shard."""
        size = self.manifest["shard_size"]
        return range(shard * size, min((shard + 1) * size, self.manifest["num_samples"]))

    def missing(self) -> list[int]:
        """Shards that are not there, or cannot be read."""
        return [shard for shard in range(self.num_shards) if not self._is_complete(shard)]

    def write(self, shard: int, table: FeatureTable) -> None:
        """Store a finished shard; a reader sees all of it or nothing."""
        path = self._path(shard)
        part = path.with_suffix(f".part{os.getpid()}")
        try:
            save_file(
                {"features": table.features.contiguous(), "labels": table.labels.contiguous()},
                part,
                metadata={
                    "keys": json.dumps(table.keys),
                    "skipped": json.dumps(table.info.get("skipped", [])),
                },
            )
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error}") from error

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
        features: list[Tensor] = []
        labels: list[Tensor] = []
        keys: list[str] = []
        skipped: list[dict[str, str]] = []
        for shard in range(self.num_shards):
            with safe_open(self._path(shard), framework="pt") as file:
                keys += json.loads(file.metadata()["keys"])
                skipped += json.loads(file.metadata()["skipped"])
                if file.get_slice("labels").get_shape() != [0]:
                    features.append(file.get_tensor("features"))
                    labels.append(file.get_tensor("labels"))
        if not features:
            raise DataError(f"none of the samples of {self.folder} could be decoded: {skipped[0]}")
        info = self.manifest | {"skipped": skipped}
        return FeatureTable(torch.cat(features), torch.cat(labels), keys, self.manifest["label_names"], info)

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"

    def _is_complete(self, shard: int) -> bool:
        try:
            with safe_open(self._path(shard), framework="pt") as file:
                return {"features", "labels"} <= set(file.keys()) and "skipped" in (file.metadata() or {})
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
    needed = {"format", "identity", "label_names", "num_samples", "batch_size", "shard_size"}
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
