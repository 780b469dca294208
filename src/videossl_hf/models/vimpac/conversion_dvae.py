"""Weights of the discrete VAE: OpenAI's files and transformers' `FlavaImageCodebook` to ours.

OpenAI published `encoder.pkl` and `decoder.pkl`: pickles of whole modules. Loading those runs the code that
the pickle names. Here the pickle is read with a table of the few harmless constructors that such a file
needs; whatever else it names stops the reading, so nothing in the file is ever executed and the package
`dall_e` is not needed.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .configuration_dvae import NUM_GROUPS, DVAEConfig
from .modeling_dvae import DVAEModel

__all__ = [
    "convert",
    "dvae_key_table",
    "from_flava",
    "load_official_dvae",
    "read_pickled_module",
]


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


_MODULES = ("dall_e.", "torch.nn.modules.")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "device"): _Stand,
    ("functools", "partial"): _Stand,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
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
    """The state dict of a module that `torch.save` pickled whole, without executing anything in the file.

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
        raise CheckpointError(f"{path} holds no module with weights; give encoder.pkl or decoder.pkl")
    return state


def _parameters_of(module: _Stand, prefix: str) -> list[tuple[str, Tensor]]:
    found = []
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.attributes.get(kind) or {}).items():
            if isinstance(value, Tensor):
                found.append((f"{prefix}{name}", value))
    for name, child in (module.attributes.get("_modules") or {}).items():
        if isinstance(child, _Stand):
            found += _parameters_of(child, f"{prefix}{name}.")
    return found


def dvae_key_table(config: DVAEConfig, part: str) -> dict[str, str]:
    """OpenAI's key -> ours, for the "encoder" or the "decoder"."""
    convs = {"blocks.input": f"{part}.stem", "blocks.output.conv": f"{part}.head"}
    first, widths = _widths(config, part)
    for group, (before, width) in enumerate(zip([first, *widths[:-1]], widths, strict=True)):
        for block in range(config.num_blocks_per_group):
            theirs, ours = f"blocks.group_{group + 1}.block_{block + 1}", f"{part}.groups.{group}.{block}"
            for conv in range(4):
                convs[f"{theirs}.res_path.conv_{conv + 1}"] = f"{ours}.convs.{conv}"
            if block == 0 and before != width:
                convs[f"{theirs}.id_path"] = f"{ours}.shortcut"
    names = {"w": "weight", "b": "bias"}
    return {f"{key}.{leaf}": f"{ours}.{name}" for key, ours in convs.items() for leaf, name in names.items()}


def _widths(config: DVAEConfig, part: str) -> tuple[int, list[int]]:
    if part == "encoder":
        return config.hidden_size, [config.hidden_size * 2**group for group in range(NUM_GROUPS)]
    width = config.decoder_hidden_size
    return config.decoder_stem_size, [width * 2 ** (NUM_GROUPS - 1 - group) for group in range(NUM_GROUPS)]


def load_official_dvae(
    encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor] | None = None
) -> DVAEModel:
    """The tokeniser of OpenAI's state dicts; without `decoder` it cannot make pictures.

    Raises:
        CheckpointError: keys or shapes that are not those of these networks.
    """
    settings: dict[str, Any] = {"use_decoder": decoder is not None}
    vocab_size = _shape(encoder, "blocks.output.conv.w")[0]
    settings["hidden_size"], settings["num_channels"] = _shape(encoder, "blocks.input.w")[:2]
    settings["num_blocks_per_group"] = len(
        {key.split(".")[2] for key in encoder if key.startswith("blocks.group_1.block_")}
    )
    if decoder is not None:
        settings["decoder_stem_size"] = _shape(decoder, "blocks.input.w")[0]
        settings["decoder_hidden_size"] = _shape(decoder, "blocks.output.conv.w")[1]
    config = DVAEConfig(vocab_size=vocab_size, **settings)
    model = DVAEModel(config)
    state: dict[str, Tensor] = {}
    for part, official in (("encoder", encoder), ("decoder", decoder)):
        if official is None:
            continue
        table = dvae_key_table(config, part)
        problems = [
            f"{what}: {', '.join(sorted(keys)[:6])}"
            for what, keys in (
                ("missing", table.keys() - official.keys()),
                ("not known", official.keys() - table.keys()),
            )
            if keys
        ]
        if problems:
            raise CheckpointError(
                f"these are no weights of the {part} of a DALL-E dVAE; {'; '.join(problems)}"
            )
        state |= {table[key]: value.float() for key, value in official.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit together: {error}") from error
    return model.eval()


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"these are no weights of a DALL-E dVAE; missing: {key}")
    return tuple(state[key].shape)


def from_flava(codebook: nn.Module | Mapping[str, Tensor]) -> DVAEModel:
    """The tokeniser of transformers' `FlavaImageCodebook`, or of its state dict; there is no decoder."""
    state = codebook.state_dict() if isinstance(codebook, nn.Module) else codebook
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("image_codebook.")
        for theirs, openai in ((".group.", "."), (".path.", "."), (".weight", ".w"), (".bias", ".b")):
            name = name.replace(theirs, openai)
        renamed[name] = value
    return load_official_dvae(renamed)


def convert(path: str | Path) -> DVAEModel:
    """The tokeniser of OpenAI's `encoder.pkl`; with `decoder.pkl` beside it, it makes pictures too."""
    decoder = Path(path).with_name("decoder.pkl")
    pickled = read_pickled_module(decoder) if decoder.is_file() else None
    return load_official_dvae(read_pickled_module(path), pickled)
