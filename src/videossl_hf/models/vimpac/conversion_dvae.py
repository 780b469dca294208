"""Weights of the discrete VAE: OpenAI's files and transformers' `FlavaImageCodebook` to ours.

OpenAI published `encoder.pkl` and `decoder.pkl`: pickles of whole modules. Loading those runs the code that
the pickle names. Here the pickle is read with a table of the few harmless constructors that such a file
needs; whatever else it names stops the reading, so nothing in the file is ever executed and the package
`dall_e` is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import CheckpointError
from ...nn.pickled_module import read_pickled_module
from .configuration_dvae import NUM_GROUPS, DVAEConfig
from .modeling_dvae import DVAEModel

__all__ = [
    "convert",
    "dvae_key_table",
    "from_flava",
    "load_official_dvae",
    "read_pickled_module",
]


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
