"""Weights out of other people's files: nothing in them is run, whatever else they hold."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError

__all__ = ["read_state_dict"]

_MAPPINGS = (
    "yacs.config.CfgNode",
)  # settings that are filled like a dictionary; the unpickler wants a plain one
_NAMESPACE = "argparse.Namespace"  # settings, in many official files
_WRAPPERS = ("state_dict", "model", "module")


class _Inert:
    """Stands for an object of a class that we do not know: takes any arguments and state, and does
    nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file.

    torch's own unpickler for weights reads the file. Where it also names classes or functions of other
    projects (configurations, loggers, paths), each of them is replaced by a class that does nothing; what it
    would have made is thrown away. Reads safetensors files, bare state dicts, and such under "state_dict",
    "model" or "module"; the prefix `module.` of distributed training is removed.

    Raises:
        CheckpointError: the file is damaged, names functions of the operating system, or holds no state dict.
    """
    path = Path(path)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except FileNotFoundError:
        raise
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"cannot read {path}: {reason}. The file is damaged, or holds more than weights"
        ) from (error)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise CheckpointError(f"{path} holds no state dict; give the file that the official code saved")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _load_pickle(path: Path) -> Any:
    names = {_NAMESPACE}
    if zipfile.is_zipfile(path):  # of older files torch does not tell what they name
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    stubs: list[Any] = [
        (OrderedDict if name in _MAPPINGS else type("Inert", (_Inert,), {}), name) for name in sorted(names)
    ]
    with torch.serialization.safe_globals(stubs):
        return torch.load(path, map_location="cpu", weights_only=True)
