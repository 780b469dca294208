"""Official VIMPAC weights to ours and back: one table of keys, strict in both directions.

Reads what the official code saves: `classifier.pt`, a flat state dict of the pre-training model (backbone,
mlm_head, cls_head) or of a fine-tuned one (backbone, cls_fc). Nothing in a file is ever executed, so
`args.pickle` beside it is not read: the architecture comes from the shapes, and what shapes do not tell
(`num_attention_heads`, `layout`) from the published rules or from overrides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...nn.foreign_checkpoint import read_state_dict
from ...nn.official_weights import check_keys, count_layers, load_exactly, shape_of
from .configuration_dvae import STRIDE
from .configuration_vimpac import EXTRA_CODES, VIMPACConfig
from .modeling_vimpac import (
    VIMPACForPreTraining,
    VIMPACForVideoClassification,
    VIMPACModel,
    VIMPACPreTrainedModel,
)

TIED = {
    "mlm_head.decoder.weight": "backbone.embedding.weight",
    "mlm_head.decoder.bias": "mlm_head.bias",
}
"""Official keys that repeat another one; verified, then dropped."""

_POSITIONS = {
    "axial": {
        "temporal_pos_embedding": "time",
        "height_pos_embedding": "rows",
        "width_pos_embedding": "columns",
    },
    "space_time": {"temporal_pos_embedding": "time", "spatial_pos_embedding": "places"},
}
_JOINT = "backbone.positional_embedding.positional_embedding"
_CLASSES: dict[str, type[VIMPACPreTrainedModel]] = {
    "pretraining": VIMPACForPreTraining,
    "classification": VIMPACForVideoClassification,
    "backbone": VIMPACModel,
}
_QKV = ("query", "key", "value")
_LINEAR = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def checkpoint_kind(keys: Iterable[str]) -> str:
    """What an official state dict is of: "pretraining", "classification" or "backbone"."""
    keys = list(keys)
    if not any(key.startswith("backbone.") for key in keys):
        raise CheckpointError("these are no weights of VIMPAC: no key starts with backbone.")
    if any(key.startswith("cls_fc.") for key in keys):
        return "classification"
    has_head = any(key.startswith(("mlm_head.", "cls_head.")) for key in keys)
    return "pretraining" if has_head else "backbone"


def key_table(config: VIMPACConfig, kind: str) -> dict[str, tuple[str, slice | None]]:
    """Official key -> our key, and the rows of our tensor that it fills (None: all), of every weight.

    Ours has one tensor for the queries, keys and values of all axes of a step; everything else is whole.

    Args:
        kind: "pretraining", "classification" or "backbone".
    """
    ours = "" if kind == "backbone" else "vimpac."
    table = _backbone(config, ours)
    whole: dict[str, str] = {}
    if kind == "classification":
        whole |= _leaves("cls_fc", "classifier")
    if kind == "pretraining" and config.token_loss_weight:
        whole |= _leaves("mlm_head.transform.0", "token_head.dense")
        whole |= _leaves("mlm_head.transform.2", "token_head.norm") | {"mlm_head.bias": "token_head.bias"}
    if kind == "pretraining" and config.contrastive_weight:
        whole |= _projection(config)
    return table | {official: (name, None) for official, name in whole.items()}


def _leaves(official: str, ours: str, names: Iterable[str] = _LINEAR) -> dict[str, str]:
    return {f"{official}.{name}": f"{ours}.{name}" for name in names}


def _backbone(config: VIMPACConfig, ours: str) -> dict[str, tuple[str, slice | None]]:
    whole = {
        "backbone.cls_param": f"{ours}embeddings.cls",
        "backbone.embedding.weight": f"{ours}embeddings.codes.weight",
    }
    positions = f"{ours}embeddings.positions"
    if config.positions != "joint":  # a joint table has CLS in its first row
        tables = _POSITIONS[config.positions] | {"cls_pos_embedding": "cls"}
        theirs = "backbone.positional_embedding"
        whole |= {f"{theirs}.{key}": f"{positions}.{name}" for key, name in tables.items()}
    if config.pre_norm:
        whole |= _leaves("backbone.ln_post", f"{ours}norm")
    else:
        whole |= _leaves("backbone.ln_pre", f"{ours}embeddings.norm")
    output = "" if config.pre_norm else "output."
    table: dict[str, tuple[str, slice | None]] = {}
    for layer in range(config.num_hidden_layers):
        theirs, our = f"backbone.transformer.resblocks.{layer}.", f"{ours}layers.{layer}."
        whole |= _leaves(f"{theirs}mlp.c_fc", f"{our}mlp.fc1") | _leaves(
            f"{theirs}mlp.c_proj", f"{our}mlp.fc2"
        )
        whole |= _leaves(f"{theirs}ln", f"{our}norm")
        for step, axes in enumerate(config.steps):
            block, target = f"{theirs}attention_blocks.{step}.", f"{our}steps.{step}."
            whole |= _leaves(f"{block}{output}dense", f"{target}output")
            whole |= _leaves(f"{block}{output}LayerNorm", f"{target}norm")
            rows = config.attention_size // len(axes)
            parts = [f"attentions.{axis}.attention.{part}" for axis in range(len(axes)) for part in _QKV]
            for place, part in enumerate(parts):
                for leaf in _LINEAR:
                    table[f"{block}{part}.{leaf}"] = (
                        f"{target}qkv.{leaf}",
                        slice(place * rows, (place + 1) * rows),
                    )
    return table | {official: (name, None) for official, name in whole.items()}


def _projection(config: VIMPACConfig) -> dict[str, str]:
    names = _LINEAR + (_STATISTICS if config.projection_norm == "batch" else ())
    kind = "bn" if config.projection_norm == "batch" else "ln"
    last = config.projection_layers - 1
    table: dict[str, str] = {}
    for layer in range(last):
        table |= _leaves(f"cls_head.mlp.linear_{layer}", f"projection.layers.{layer}")
        table |= _leaves(f"cls_head.mlp.{kind}_{layer}", f"projection.norms.{layer}", names)
    table |= _leaves(f"cls_head.mlp.linear_{last}", f"projection.layers.{last}", ("weight",))
    if config.projection_final_norm:
        table |= _leaves(f"cls_head.mlp.bn_{last}", "projection.final_norm", _LINEAR + _STATISTICS)
    return table


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> VIMPACConfig:
    """Sizes read off the shapes of official weights.

    What shapes do not tell: heads are a sixty-fourth of the width, a step of one axis is time, one of two is
    height and width, one of three all (the published layouts; three single steps are time, height, width).

    Args:
        overrides: fields of the configuration to set, such as `num_attention_heads` or `layout`.
    """
    kind = checkpoint_kind(state)
    vocab_size, hidden_size = shape_of(state, "backbone.embedding.weight")
    blocks = "backbone.transformer.resblocks."
    first = f"{blocks}0.attention_blocks."
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "num_codes": vocab_size - EXTRA_CODES,
        "hidden_size": hidden_size,
        "num_hidden_layers": count_layers(state, rf"{re.escape(blocks)}(\d+)\."),
        "num_attention_heads": max(1, hidden_size // 64),
        "halve_mlp": shape_of(state, f"{blocks}0.mlp.c_fc.weight")[0] == 2 * hidden_size,
        "pre_norm": f"{first}0.dense.weight" in state,
    }
    steps = [
        count_layers(state, rf"{re.escape(first)}{step}\.attentions\.(\d+)\.")
        for step in range(count_layers(state, rf"{re.escape(first)}(\d+)\."))
    ]
    if steps == [1, 1, 1]:
        settings["layout"] = "T,H,W"
    elif steps == [1, 1]:
        settings["layout"] = "T,H"
    else:
        settings["layout"] = ",".join({1: "T", 2: "H|W", 3: "T|H|W"}.get(axes, "?") for axes in steps)
    rows = shape_of(state, f"{first}0.attentions.0.attention.query.weight")[0]
    settings["halve_att"] = 2 * rows * steps[0] == hidden_size
    settings |= _grid_settings(state)
    if kind == "pretraining":
        settings |= _head_settings(state)
    if kind == "classification":
        settings["num_labels"] = shape_of(state, "cls_fc.bias")[0]
    return VIMPACConfig(**(settings | overrides))


def _grid_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    prefix = "backbone.positional_embedding."
    if f"{prefix}height_pos_embedding" in state:
        size = [shape_of(state, f"{prefix}{axis}_pos_embedding")[0] for axis in ("height", "width")]
        sides = [STRIDE * entries for entries in size]
        frames = shape_of(state, f"{prefix}temporal_pos_embedding")[0]
        return {
            "positions": "axial",
            "num_frames": frames,
            "image_size": sides[0] if sides[0] == sides[1] else sides,
        }
    if f"{prefix}spatial_pos_embedding" in state:
        places = shape_of(state, f"{prefix}spatial_pos_embedding")[0]
        frames = shape_of(state, f"{prefix}temporal_pos_embedding")[0]
        return {"positions": "space_time", "num_frames": frames, "image_size": STRIDE * round(places**0.5)}
    return {"positions": "joint"}


def _head_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    head = "cls_head.mlp."
    settings: dict[str, Any] = {
        "token_loss_weight": float("mlm_head.bias" in state),
        "contrastive_weight": float(f"{head}linear_0.weight" in state),
    }
    if settings["contrastive_weight"]:
        layers = count_layers(state, rf"{re.escape(head)}linear_(\d+)\.")
        settings["projection_layers"] = layers
        settings["projection_dim"] = shape_of(state, f"{head}linear_{layers - 1}.weight")[0]
        if layers > 1:
            settings["projection_hidden"] = shape_of(state, f"{head}linear_0.weight")[0]
            settings["projection_norm"] = "layer" if f"{head}ln_0.weight" in state else "batch"
        settings["projection_final_norm"] = f"{head}bn_{layers - 1}.weight" in state
    return settings


def convert_state_dict(state: Mapping[str, Tensor], config: VIMPACConfig) -> dict[str, Tensor]:
    """Official weights under our keys.

    Raises:
        CheckpointError: a key is missing or not known, shapes differ within a tensor of ours, or what should
            be tied is not.
    """
    kind = checkpoint_kind(state)
    for copy, source in TIED.items():
        if copy in state and (source not in state or not torch.equal(state[copy], state[source])):
            raise CheckpointError(f"{copy} differs from {source}, to which it should be tied")
    table = key_table(config, kind)
    kept = {key for key in state if key not in TIED and key != _JOINT}
    counters = {key for key in table if key.endswith("num_batches_tracked")}
    check_keys(kept, table, optional=counters)
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for official, (ours, rows) in table.items():
        if official in kept:
            pieces.setdefault(ours, []).append((rows.start if rows else 0, state[official]))
    converted = {
        ours: torch.cat([piece for _, piece in sorted(found, key=lambda item: item[0])])
        if len(found) > 1
        else found[0][1]
        for ours, found in pieces.items()
    }
    if config.positions == "joint":
        prefix = f"{'' if kind == 'backbone' else 'vimpac.'}embeddings.positions."
        shape_of(state, _JOINT)
        converted |= {f"{prefix}cls": state[_JOINT][:1], f"{prefix}joint": state[_JOINT][1:]}
    return converted


def official_state_dict(model: VIMPACPreTrainedModel) -> dict[str, Tensor]:
    """A model's weights under the official keys, the tied ones among them."""
    kind = next(kind for kind, model_class in _CLASSES.items() if isinstance(model, model_class))
    state = model.state_dict()
    table = key_table(model.config, kind)
    official = {
        key: state[ours] if rows is None else state[ours][rows] for key, (ours, rows) in table.items()
    }
    if model.config.positions == "joint":
        positions = model.base_model.embeddings.positions
        official[_JOINT] = torch.cat([positions.cls, positions.joint]).detach()
    official |= {copy: official[source] for copy, source in TIED.items() if "mlm_head.bias" in official}
    return official


def load_official(state: Mapping[str, Tensor], config: VIMPACConfig | None = None) -> VIMPACPreTrainedModel:
    """A model of ours with official weights, in evaluation mode.

    Args:
        state: official weights, as `read_state_dict` gives them.
        config: read off the weights by default.

    Returns:
        VIMPACForPreTraining, VIMPACForVideoClassification, or VIMPACModel for a backbone alone.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    config = infer_config(state) if config is None else config
    model = _CLASSES[checkpoint_kind(state)](config)
    new = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
    load_exactly(model, convert_state_dict(state, config), new)
    return model.eval()


def convert(path: str | Path, **overrides: Any) -> VIMPACPreTrainedModel:
    """The model of an official file.

    Args:
        path: `classifier.pt` of a snapshot of the official code.
        overrides: fields of the configuration that the weights do not tell, such as `num_attention_heads`.
    """
    state = read_state_dict(path)
    return load_official(state, infer_config(state, **overrides))


__all__ = [
    "TIED",
    "convert",
    "convert_state_dict",
    "infer_config",
    "key_table",
    "load_official",
    "official_state_dict",
]
