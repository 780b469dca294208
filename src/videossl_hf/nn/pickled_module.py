"""Weights out of modules that were saved whole: pickles that name classes, and TorchScript archives.

Loading such a file runs the code that it names, or that it holds. Here its pickle is read with a table of the
few harmless constructors that weights need; whatever else it names stops the reading.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["read_pickled_module"]


class _Stand:
    """Stands in for a module of the file: holds its attributes, runs nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _parameter(data: Any, requires_grad: bool = False, hooks: Any = None) -> Any:
    return data


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor of a storage; torch checks that size and stride stay within it."""
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor that has no storage")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


_MODULES = ("dall_e.", "torch.nn.modules.", "__torch__.")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "device"): _Stand,
    ("functools", "partial"): _Stand,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors and the names of modules, and refuses everything else."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(data))
        self.archive = archive
        self.prefix = prefix

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if f"{module}.".startswith(_MODULES):
            return _Stand
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> Tensor:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(count)) if key.isalnum():
                data = bytearray(self.archive.read(f"{self.prefix}data/{key}"))
                return torch.frombuffer(data, dtype=dtype, count=count)
        raise pickle.UnpicklingError(f"it holds a storage of an unknown kind: {pid!r:.80}")


def read_pickled_module(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a module that was saved whole, without executing anything in the file.

    Args:
        path: a file of `torch.save(module)`, or a TorchScript archive, whose code is not looked at. Such an
            archive does not tell buffers from other tensors of a module: all are given.

    Raises:
        CheckpointError: the file is damaged, or names anything that weights do not need.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            prefix = name.removesuffix("data.pkl")
            module = _Reader(archive.read(name), archive, prefix).load()
    except FileNotFoundError:
        raise
    except Exception as error:  # a hostile pickle can make the unpickler raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"cannot read {path}: {reason}. The file is damaged, or holds more than the weights of a module"
        ) from error
    state = dict(_parameters_of(module, "")) if isinstance(module, _Stand) else {}
    if not state:
        raise CheckpointError(f"{path} holds no module with weights")
    return state


def _parameters_of(module: _Stand, prefix: str) -> list[tuple[str, Tensor]]:
    """Names and values: where `torch.save` puts them, or among the attributes as TorchScript does."""
    own = dict(module.attributes)
    for kind in ("_parameters", "_buffers", "_modules"):
        inner = own.pop(kind, None)
        own |= inner if isinstance(inner, dict) else {}
    found = [(f"{prefix}{name}", value) for name, value in own.items() if isinstance(value, Tensor)]
    for name, child in own.items():
        if isinstance(child, _Stand):
            found += _parameters_of(child, f"{prefix}{name}.")
    return found
