"""Official ILA checkpoints of both branches to our models and back.

Official files come from github.com/Francis-Rings/ILA: branch master saves models with the text head
(Kinetics-400), branch SSV2 such with the linear head. One table says which official tensor is which of ours;
a checkpoint's keys must be exactly those of the table. transformers' CLIP models go in through
`ILAModel.from_clip`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...nn.foreign_checkpoint import read_state_dict
from ...nn.official_weights import check_keys, count_layers, load_exactly, shape_of
from .configuration_ila import ILAConfig
from .modeling_ila import ILAForVideoClassification

__all__ = [
    "Entry",
    "aligner_table",
    "block_table",
    "convert",
    "convert_state_dict",
    "infer_config",
    "key_table",
    "load_official",
    "official_state_dict",
    "official_tensor",
]

_LINEAR = ("weight", "bias")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_VISUAL = "visual.transformer.resblocks."


@dataclass(frozen=True)
class Entry:
    """Where one official tensor goes.

    Attributes:
        ours: our keys. Several get equal blocks of rows, or all of them a scalar.
        form: "same", "transposed" (official code multiplies from the left), or "squeezed" (ours lacks the
            last dimension, of size 1).
    """

    ours: tuple[str, ...]
    form: str = "same"


Table = dict[str, Entry]


def key_table(config: ILAConfig) -> Table:
    """Official key -> ours, for every tensor of a classifier."""
    vision = config.vision_config
    table = {
        "visual.conv1.weight": Entry(("ila.vision_model.embeddings.patch_embedding.weight",)),
        "visual.class_embedding": Entry(("ila.vision_model.embeddings.class_embedding",)),
        "visual.positional_embedding": Entry(("ila.vision_model.embeddings.position_embedding.weight",)),
        "visual.proj": Entry(("ila.visual_projection.weight",), "transposed"),
        "mit.positional_embedding": Entry(("ila.mit.position_embedding",)),
    }
    table |= _leaves("visual.ln_pre", "ila.vision_model.pre_layernorm")
    table |= _leaves("visual.ln_post", "ila.vision_model.post_layernorm")
    for index in range(vision.num_hidden_layers):
        table |= block_table(config, f"{_VISUAL}{index}.", f"ila.vision_model.encoder.layers.{index}.")
    for index in range(config.mit_num_layers):
        table |= _transformer_layer(f"mit.resblocks.{index}.", f"ila.mit.layers.{index}.")
    return table | (_text_head(config) if config.has_text else _linear_head())


def block_table(config: ILAConfig, official: str = "", ours: str = "") -> Table:
    """The same for one block of the vision tower."""
    table = _transformer_layer(official, ours)
    table |= _leaves(f"{official}message_fc", f"{ours}message_proj")
    table |= _leaves(f"{official}message_ln", f"{ours}message_norm")
    if config.token_mode == "add":
        table |= _leaves(f"{official}temporal_skip_align_fc", f"{ours}aligned_proj")
        table |= _leaves(f"{official}temporal_skip_fc", f"{ours}interactive_proj")
    return table | aligner_table(config, f"{official}message_attn.", f"{ours}alignment.")


def aligner_table(config: ILAConfig, official: str = "", ours: str = "") -> Table:
    """The same for the alignment of one block."""
    theirs, our = f"{official}interactive_block.", f"{ours}interactive."
    if config.interactive_block == "depthwise":
        halves = [f"{our}earlier.", f"{our}later."]
        table = _leaves(f"{theirs}0.depthwise_conv.0", [f"{half}conv" for half in halves])
        table |= _leaves(f"{theirs}0.depthwise_conv.1", [f"{half}norm" for half in halves], _BATCH_NORM)
        joining, joining_norm, last, last_norm = "0.pointwise_conv.0", "0.pointwise_conv.1", "1", "2"
    else:
        table = {}
        joining, joining_norm, last, last_norm = "0", "1", "3", "4"
    table |= _leaves(f"{theirs}{joining}", f"{our}join")
    table |= _leaves(f"{theirs}{joining_norm}", f"{our}join_norm", _BATCH_NORM)
    table |= _leaves(f"{theirs}{last}", f"{our}conv")
    table |= _leaves(f"{theirs}{last_norm}", f"{our}norm", _BATCH_NORM)
    theirs, our = f"{official}prediction_block.", f"{ours}point_head."
    for number, (convolution, norm) in enumerate((("0", "1"), ("4", "5")), start=1):
        table |= _leaves(f"{theirs}{convolution}", f"{our}conv{number}")
        table |= _leaves(f"{theirs}{norm}", f"{our}norm{number}", _BATCH_NORM)
    table |= _leaves(f"{theirs}10", f"{our}hidden") | _leaves(f"{theirs}12", f"{our}out")
    if config.token_mode == "add":
        table[f"{official}conv.weight"] = Entry((f"{ours}temporal_conv.weight",), "squeezed")
        table[f"{official}conv.bias"] = Entry((f"{ours}temporal_conv.bias",))
        table |= _leaves(f"{official}fc", f"{ours}out_proj")
    return table


def _leaves(official: str, ours: str | Iterable[str], names: Iterable[str] = _LINEAR) -> Table:
    ours = [ours] if isinstance(ours, str) else list(ours)
    return {f"{official}.{name}": Entry(tuple(f"{our}.{name}" for our in ours)) for name in names}


def _transformer_layer(official: str, ours: str) -> Table:
    table = {
        f"{official}attn.in_proj_{name}": Entry(
            tuple(f"{ours}self_attn.{letter}_proj.{name}" for letter in "qkv")
        )
        for name in _LINEAR
    }
    table |= _leaves(f"{official}attn.out_proj", f"{ours}self_attn.out_proj")
    table |= _leaves(f"{official}ln_1", f"{ours}layer_norm1") | _leaves(
        f"{official}ln_2", f"{ours}layer_norm2"
    )
    table |= _leaves(f"{official}mlp.c_fc", f"{ours}mlp.fc1")
    return table | _leaves(f"{official}mlp.c_proj", f"{ours}mlp.fc2")


def _linear_head() -> Table:
    return _leaves("mit.classify_head.0", "classifier_norm") | _leaves("mit.classify_head.2", "classifier")


def _text_head(config: ILAConfig) -> Table:
    text = "ila.text_model."
    table = {
        "token_embedding.weight": Entry((f"{text}embeddings.token_embedding.weight",)),
        "positional_embedding": Entry((f"{text}embeddings.position_embedding.weight",)),
        "text_projection": Entry(("ila.text_projection.weight",), "transposed"),
        "logit_scale": Entry(("ila.logit_scale",)),
        "prompts_visual_proj": Entry(("ila.prompts_projection.weight",), "transposed"),
        "prompts_generator.alpha": Entry(("prompts_generator.alpha",)),
    }
    table |= _leaves("ln_final", f"{text}final_layer_norm")
    table |= _leaves("prompts_visual_ln", "ila.prompts_norm")
    table |= _leaves("prompts_generator.norm", "prompts_generator.norm")
    for index in range(config.text_config.num_hidden_layers):
        table |= _transformer_layer(f"transformer.resblocks.{index}.", f"{text}encoder.layers.{index}.")
    for index in range(config.prompt_layers):
        theirs, ours = f"prompts_generator.decoder.{index}.", f"prompts_generator.layers.{index}."
        for letter in "qkv":
            table |= _leaves(
                f"{theirs}cross_attn.{letter}_proj", f"{ours}cross_attn.{letter}_proj", ("weight",)
            )
        table |= _leaves(f"{theirs}cross_attn.proj", f"{ours}cross_attn.out_proj")
        table |= _leaves(f"{theirs}norm1", f"{ours}norm1") | _leaves(f"{theirs}norm3", f"{ours}norm2")
        table |= _leaves(f"{theirs}mlp.0", f"{ours}mlp.fc1") | _leaves(f"{theirs}mlp.3", f"{ours}mlp.fc2")
    return table


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> ILAConfig:
    """Sizes read off the shapes of official weights; heads have a width of 64, as in every published model,
    unless `overrides` say otherwise.

    Args:
        overrides: fields of the configuration; `vision_config` and `text_config` are merged with what the
            shapes tell.

    Raises:
        CheckpointError: these are no weights of ILA, or of its paper's other form, which was never published.
    """
    has_text = "prompts_generator.alpha" in state
    if f"{_VISUAL}0.message_fc.weight" not in state or has_text == ("mit.classify_head.2.weight" in state):
        raise CheckpointError(
            "these are no weights of ILA: no message_fc in the blocks, or no head (prompts_generator, or"
            " mit.classify_head)"
        )
    if f"{_VISUAL}0.temporal_skip_fc.weight" not in state:
        raise CheckpointError(
            "the blocks have no temporal_skip_fc: they are not those of the released code, which adds the"
            " aligned features to the blocks' input"
        )
    width, channels, patch, _ = shape_of(state, "visual.conv1.weight", 4)
    side = round((shape_of(state, "visual.positional_embedding", 2)[0] - 1) ** 0.5)
    interactive = f"{_VISUAL}0.message_attn.interactive_block."
    is_depthwise = f"{interactive}0.depthwise_conv.0.weight" in state
    settings: dict[str, Any] = {
        "head": "text" if has_text else "linear",
        "interactive_block": "depthwise" if is_depthwise else "dense",
        "num_frames": shape_of(state, "mit.positional_embedding", 3)[1],
        "projection_dim": shape_of(state, "visual.proj", 2)[1],
        "mit_num_layers": count_layers(state, r"mit\.resblocks\.(\d+)\."),
        "align_hidden": shape_of(state, f"{interactive}{'1' if is_depthwise else '3'}.weight", 4)[0],
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": shape_of(state, f"{_VISUAL}0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": count_layers(
            state, r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_weight"
        ),
        "num_attention_heads": max(1, width // 64),
        "num_channels": channels,
        "patch_size": patch,
        "image_size": side * patch,
    }
    text: dict[str, Any] = {}
    if has_text:
        settings["prompt_layers"] = count_layers(state, r"prompts_generator\.decoder\.(\d+)\.")
        vocabulary, text_width = shape_of(state, "token_embedding.weight", 2)
        text = {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": shape_of(state, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            "num_hidden_layers": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
            "num_attention_heads": max(1, text_width // 64),
            "max_position_embeddings": shape_of(state, "positional_embedding", 2)[0],
        }
    elif "id2label" not in overrides:
        settings["num_labels"] = shape_of(state, "mit.classify_head.2.weight", 2)[0]
    overrides = dict(overrides)
    settings["vision_config"] = vision | overrides.pop("vision_config", {})
    settings["text_config"] = text | overrides.pop("text_config", {})
    return ILAConfig(**(settings | overrides))


def convert_state_dict(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Official weights under our keys, in float32.

    Raises:
        CheckpointError: a key is missing, or not in the table.
    """
    check_keys(state, table)
    converted: dict[str, Tensor] = {}
    for official, entry in table.items():
        value = _FORMS[entry.form][0](state[official])
        value = value.float() if value.is_floating_point() else value
        parts = [value] * len(entry.ours) if value.ndim == 0 else value.chunk(len(entry.ours))
        if len(parts) != len(entry.ours):
            raise CheckpointError(f"the checkpoint does not fit; {official} has {len(value)} rows")
        converted |= {ours: part.clone() for ours, part in zip(entry.ours, parts, strict=True)}
    return converted


_FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "same": (lambda value: value, lambda value: value),
    "transposed": (lambda value: value.T, lambda value: value.T),
    "squeezed": (lambda value: value.squeeze(-1), lambda value: value.unsqueeze(-1)),
}
"""Form -> from official to ours, and back."""


def official_tensor(entry: Entry, ours: Mapping[str, Tensor]) -> Tensor:
    """A tensor of ours, or its gradient, as the official code has it."""
    parts = [ours[key] for key in entry.ours]
    value = parts[0] if parts[0].ndim == 0 else torch.cat(parts)
    return _FORMS[entry.form][1](value).contiguous()


def official_state_dict(model: ILAForVideoClassification) -> dict[str, Tensor]:
    """A classifier's tensors under the official keys."""
    state = model.state_dict()
    return {official: official_tensor(entry, state) for official, entry in key_table(model.config).items()}


def load_official(state: Mapping[str, Tensor], config: ILAConfig | None = None) -> ILAForVideoClassification:
    """A classifier with official weights, in evaluation mode.

    Args:
        state: official weights, as `read_state_dict` gives them.
        config: read off the weights by default. A model with the text head does not know the names of its
            classes: `set_labels` tells it.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    config = infer_config(state) if config is None else config
    model = ILAForVideoClassification(config)
    load_exactly(model, convert_state_dict(state, key_table(config)), new=["ila.disturbance"])
    return model.eval()


def convert(path: str | Path, **overrides: Any) -> ILAForVideoClassification:
    """The model of an official file.

    Args:
        path: a file that the official code saved.
        overrides: fields of the configuration that the weights do not tell, such as `id2label`.

    Raises:
        CheckpointError: the file is damaged, or its keys or shapes do not fit.
    """
    state = read_state_dict(path)
    return load_official(state, infer_config(state, **overrides))
