"""Short hashes of what features are made from: the weights, the processor's settings, the data.

Equal fingerprints mean equal features (up to rounding on another device), whatever the folder is called.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

__all__ = ["data_fingerprint", "model_fingerprint", "model_identity", "processor_fingerprint", "short_hash"]

# What a configuration or processor records of its origin, which does not change what it computes.
_ORIGIN = frozenset(
    {
        "_commit_hash",
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "dtype",
        "id2label",
        "label2id",
        "name_or_path",
        "problem_type",
        "processor_class",
        "torch_dtype",
        "transformers_version",
    }
)
_EDGE_BYTES = 65536


def _digest(*parts: bytes) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()


def _settings(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _settings(value[key]) for key in sorted(value, key=str) if key not in _ORIGIN}
    if isinstance(value, (list, tuple)):
        return [_settings(item) for item in value]
    return value


def _canonical(value: Any) -> bytes:
    return json.dumps(_settings(value), sort_keys=True, default=str).encode()


def short_hash(value: Any) -> str:
    """Of anything JSON can say; 16 hexadecimal digits."""
    return _digest(_canonical(value))


def model_fingerprint(model: torch.nn.Module) -> str:
    """Hash of all weights and buffers, their names and the configuration; 16 hexadecimal digits."""
    config = getattr(model, "config", None)
    parts = [type(model).__name__.encode()]
    if config is not None and hasattr(config, "to_dict"):
        parts.append(_canonical(config.to_dict()))
    for name, tensor in sorted(model.state_dict().items()):
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        parts.append(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return _digest(*parts)


def model_identity(model: torch.nn.Module) -> dict[str, str | None]:
    """Where a model comes from and what it is: {"id", "revision", "class", "weights"}."""
    config = getattr(model, "config", None)
    return {
        "id": getattr(config, "_name_or_path", "") or type(model).__name__,
        "revision": getattr(config, "_commit_hash", None),
        "class": type(model).__name__,
        "weights": model_fingerprint(model),
    }


def processor_fingerprint(processor: Any) -> str:
    """Hash of a processor's settings, as `to_dict` lists them."""
    settings = processor.to_dict() if hasattr(processor, "to_dict") else {}
    return _digest(type(processor).__name__.encode(), _canonical(settings))


def data_fingerprint(dataset: Any) -> str:
    """Hash of the samples, their order and their labels, wherever the files lie.

    Of a file the size and the first and last 64 KiB are read: an edit in the middle of a large file that
    keeps its size goes unnoticed. Bytes inside the dataset are hashed in full.

    Args:
        dataset: a sequence of samples with "video" or "audio" cells ({"bytes", "path"} or a path) and
        "label".
    """
    names = getattr((getattr(dataset, "features", None) or {}).get("label"), "names", None)
    parts = [_canonical(names)]
    for sample in dataset:
        parts.append(str(sample.get("label")).encode())
        for column in ("video", "audio"):
            if sample.get(column) is not None:
                parts.extend(_media_parts(sample[column]))
    return _digest(*parts)


def _media_parts(cell: Any) -> list[bytes]:
    if isinstance(cell, dict):
        if cell.get("bytes") is not None:
            return [cell["bytes"]]
        cell = cell.get("path")
    path = Path(str(cell))
    if not path.is_file():  # a URL, or a file that the extraction will report as unreadable
        return [str(cell).encode()]
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(size - _EDGE_BYTES, 0))
        return [str(size).encode(), head, file.read(_EDGE_BYTES)]
