"""Official TVTS and TVTSv2 checkpoints, and the image models that they start from, to our models and back.

Official files come from github.com/TencentARC/TVTS (`v1/base/base_trainer.py`, `v1/downstream`, `v2`). A
checkpoint's keys must be exactly those of the key table, apart from an explicit list of keys that are
dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...nn.foreign_checkpoint import read_state_dict
from ...nn.official_weights import check_keys, count_layers, load_exactly, shape_of
from .configuration_tvts import TVTSConfig
from .modeling_tvts import (
    TVTSForPreTraining,
    TVTSForVideoClassification,
    TVTSModel,
    TVTSPreTrainedModel,
    TVTSVideoModel,
)

DROPPED = {
    "constant position indices": r"text_model\.embeddings\.position_ids",
    "decoder of the image model": r"(decoder_.*|mask_token)",
    "classifier of an image model": r"(fc_norm\..*)",
    "CLIP's own temperature": r"(text_)?logit_scale",
}
"""Reason -> official keys that are left out."""

_LINEAR = ("weight", "bias")
_TRANSPOSED = re.compile(r"(.*\.)?(proj|text_projection)$")

Table = dict[str, tuple[str, ...]]


def key_table(config: TVTSConfig, kind: str) -> Table:
    """Official key -> our keys, for every weight of a model; several keys get equal blocks of rows.

    Args:
        kind: "pretraining", "classification" or "video" (video tower alone, unprefixed).
    """
    divided = config.attention_type == "divided"
    official, ours = ("video_model.", "tvts.video_model.") if kind == "pretraining" else ("", "video_model.")
    if kind == "classification":
        ours = "tvts.video_model."
    table = _divided_tower(config, official, ours) if divided else _joint_tower(config, official, ours)
    if kind == "classification":
        table |= _leaves("head", "classifier")
    if kind == "pretraining":
        table |= _clip_text(config) if config.text_tower == "clip" else _text(config)
        if config.use_projection:
            table |= _leaves("txt_proj.1", "tvts.text_projection.linear")
            table |= _leaves("vid_proj.0", "tvts.video_projection.linear")
        if config.num_scripts > 1:
            table |= sorting_table(config)
    return table


def sorting_table(config: TVTSConfig, official: str = "pred_model.", ours: str = "sorting_head.") -> Table:
    """Official key -> our key of the sorting head."""
    table: Table = {f"{official}type_embed": (f"{ours}type_embeddings",)}
    table |= _blocks(config.sorting_layers, official, ours)
    return table | _leaves(f"{official}norm", f"{ours}norm") | _leaves(f"{official}head", f"{ours}classifier")


def _leaves(official: str, ours: str, names: tuple[str, ...] = _LINEAR) -> Table:
    return {f"{official}.{name}": (f"{ours}.{name}",) for name in names}


def _blocks(depth: int, official: str, ours: str) -> Table:
    table: Table = {}
    for index in range(depth):
        for theirs, our in (
            ("norm1", "norm1"),
            ("norm2", "norm2"),
            ("attn.qkv", "attention.qkv"),
            ("attn.proj", "attention.proj"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            table |= _leaves(f"{official}blocks.{index}.{theirs}", f"{ours}layers.{index}.{our}")
    return table


def _joint_tower(config: TVTSConfig, official: str, ours: str) -> Table:
    table: Table = {
        f"{official}cls_token": (f"{ours}embeddings.class_token",),
        f"{official}pos_embed": (f"{ours}embeddings.spatial_positions",),
        f"{official}temporal_embed": (f"{ours}embeddings.temporal_positions",),
    }
    table |= _leaves(f"{official}patch_embed.proj", f"{ours}embeddings.patches")
    table |= _blocks(config.num_hidden_layers, official, ours)
    return table | _leaves(f"{official}norm", f"{ours}norm")


def _divided_tower(config: TVTSConfig, official: str, ours: str) -> Table:
    table: Table = {
        f"{official}class_embedding": (f"{ours}embeddings.class_token",),
        f"{official}positional_embedding": (f"{ours}embeddings.spatial_positions",),
        f"{official}temporal_embedding": (f"{ours}embeddings.temporal_positions",),
        f"{official}conv1.weight": (f"{ours}embeddings.patches.weight",),
        f"{official}proj": (f"{ours}projection.weight",),
    }
    table |= _leaves(f"{official}ln_pre", f"{ours}first_norm") | _leaves(f"{official}ln_post", f"{ours}norm")
    for index in range(config.num_hidden_layers):
        for theirs, our in (
            ("ln_1", "norm1"),
            ("ln_2", "norm2"),
            ("ln_3", "temporal_norm"),
            ("attn.qkv", "attention.qkv"),
            ("attn.proj", "attention.proj"),
            ("timeattn.qkv", "temporal_attention.qkv"),
            ("timeattn.proj", "temporal_attention.proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            table |= _leaves(
                f"{official}transformer.resblocks.{index}.{theirs}", f"{ours}layers.{index}.{our}"
            )
    return table


def _text(config: TVTSConfig) -> Table:
    """The official code holds transformers' own model."""
    with torch.device("meta"):
        names = config.text_tower_settings.build(None).state_dict()
    return {f"text_model.{name}": (f"tvts.text_model.{name}",) for name in names}


def _clip_text(config: TVTSConfig) -> Table:
    ours = "tvts.text_model.text_model."
    table: Table = {
        "text_token_embedding.weight": (f"{ours}embeddings.token_embedding.weight",),
        "text_positional_embedding": (f"{ours}embeddings.position_embedding.weight",),
        "text_projection": ("tvts.text_model.text_projection.weight",),
    }
    table |= _leaves("text_ln_final", f"{ours}final_layer_norm")
    for index in range(config.text_tower_settings.config.num_hidden_layers):
        theirs, our = f"text_model.resblocks.{index}.", f"{ours}encoder.layers.{index}."
        for name in _LINEAR:
            parts = tuple(f"{our}self_attn.{part}_proj.{name}" for part in "qkv")
            table[f"{theirs}attn.in_proj_{name}"] = parts
        for name, renamed in (
            ("attn.out_proj", "self_attn.out_proj"),
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            table |= _leaves(f"{theirs}{name}", f"{our}{renamed}")
    return table


def checkpoint_kind(state: Mapping[str, Tensor]) -> str:
    """What an official state dict is of: "pretraining", "classification", "video" or "image" (MAE)."""
    if any(key.startswith("pred_model.") for key in state) or any(
        key.startswith("video_model.") for key in state
    ):
        return "pretraining"
    if "cls_token" in state or "class_embedding" in state:
        if "temporal_embed" not in state and "temporal_embedding" not in state:
            return "image"
        return "classification" if "head.weight" in state else "video"
    raise CheckpointError(
        "these are no weights of TVTS, TVTSv2, their fine-tuned models or an image MAE: no key starts with"
        " video_model., and there is no cls_token"
    )


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> TVTSConfig:
    """Sizes read off the shapes of official weights; what shapes do not tell (heads, mask) is the default.

    Args:
        overrides: fields of the configuration to set.
    """
    kind = checkpoint_kind(state)
    prefix = "video_model." if kind == "pretraining" else ""
    divided = f"{prefix}class_embedding" in state
    settings = _divided_sizes(state, prefix) if divided else _joint_sizes(state, prefix, kind)
    if kind == "pretraining":
        settings |= _clip_sizes(state) if divided else _text_sizes(state)
        settings["use_projection"] = "vid_proj.0.weight" in state
        if settings["use_projection"]:
            settings["projection_dim"] = shape_of(state, "vid_proj.0.weight")[0]
        settings["num_scripts"] = 1
        if "pred_model.head.weight" in state:
            settings["num_scripts"] = shape_of(state, "pred_model.head.weight")[0]
            settings["sorting_layers"] = count_layers(state, r"pred_model\.blocks\.(\d+)\.")
    else:
        settings["use_text"] = False
        settings.setdefault("sorting_heads", 1)
    if kind == "classification":
        settings["num_labels"] = shape_of(state, "head.weight")[0]
    settings |= overrides
    return TVTSConfig.v2(**settings) if divided else TVTSConfig(**settings)


def _joint_sizes(state: Mapping[str, Tensor], prefix: str, kind: str) -> dict[str, Any]:
    hidden, channels, *kernel = shape_of(state, f"{prefix}patch_embed.proj.weight")
    tubelet, patch = (2, kernel[-1]) if kind == "image" else (kernel[0], kernel[-1])
    settings: dict[str, Any] = {"hidden_size": hidden, "num_channels": channels}
    settings |= {"tubelet_size": tubelet, "patch_size": patch}
    settings["image_size"] = patch * round((shape_of(state, f"{prefix}pos_embed")[1] - 1) ** 0.5)
    if kind != "image":
        settings["num_frames"] = tubelet * shape_of(state, f"{prefix}temporal_embed")[1]
    settings["num_hidden_layers"] = count_layers(state, rf"{re.escape(prefix)}blocks\.(\d+)\.")
    settings["mlp_ratio"] = shape_of(state, f"{prefix}blocks.0.mlp.fc1.weight")[0] / hidden
    return settings


def _divided_sizes(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    hidden, channels, *_, patch = shape_of(state, f"{prefix}conv1.weight")
    settings: dict[str, Any] = {"hidden_size": hidden, "num_channels": channels, "patch_size": patch}
    settings["image_size"] = patch * round((shape_of(state, f"{prefix}positional_embedding")[-2] - 1) ** 0.5)
    settings["num_frames"] = shape_of(state, f"{prefix}temporal_embedding")[-2]
    blocks = rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\."
    settings["num_hidden_layers"] = count_layers(state, blocks)
    fc = shape_of(state, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight")[0]
    settings["mlp_ratio"] = fc / hidden
    settings["projection_dim"] = shape_of(state, f"{prefix}proj")[1]
    if hidden == 1280:  # ViT-H, whose further settings no shape tells
        settings["size"] = "huge_patch14"
    elif patch == 32:
        settings["size"] = "base_patch32"
    return settings


def _text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    start = "text_model.embeddings."
    vocabulary, width = shape_of(state, f"{start}word_embeddings.weight")
    return {
        "text_settings": {
            "vocab_size": vocabulary,
            "dim": width,
            "max_position_embeddings": shape_of(state, f"{start}position_embeddings.weight")[0],
            "n_layers": count_layers(state, r"text_model\.transformer\.layer\.(\d+)\."),
            "hidden_dim": shape_of(state, "text_model.transformer.layer.0.ffn.lin1.weight")[0],
        }
    }


def _clip_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    vocabulary, width = shape_of(state, "text_token_embedding.weight")
    layers = count_layers(state, r"text_model\.resblocks\.(\d+)\.")
    return {
        "text_settings": {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "max_position_embeddings": shape_of(state, "text_positional_embedding")[0],
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, width // 64),
            "intermediate_size": shape_of(state, "text_model.resblocks.0.mlp.c_fc.weight")[0],
            "hidden_act": "gelu" if width == 1024 else "quick_gelu",  # ViT-H is OpenCLIP's
        }
    }


def convert_state_dict(
    state: Mapping[str, Tensor], model: TVTSPreTrainedModel, table: Table
) -> dict[str, Tensor]:
    """Official weights under our keys, in our shapes.

    Raises:
        CheckpointError: a key is missing, or neither in the key table nor in the drop list; or shapes differ.
    """
    kept = {key for key in state if not any(re.fullmatch(pattern, key) for pattern in DROPPED.values())}
    check_keys(kept, table)
    own, converted = model.state_dict(), {}
    for key in sorted(kept):
        value = state[key].T if _TRANSPOSED.fullmatch(key) else state[key]
        for name, part in zip(table[key], value.chunk(len(table[key])), strict=True):
            wanted = own[name].shape
            if tuple(size for size in part.shape if size != 1) != tuple(size for size in wanted if size != 1):
                raise CheckpointError(
                    f"the checkpoint does not fit the configuration; {key} is {tuple(part.shape)}, expected"
                    f" {tuple(wanted)}"
                )
            converted[name] = part.reshape(wanted).clone()
    return converted


def official_state_dict(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Our weights, or their gradients, under the official keys and in the official layout, but for axes of
    size 1."""
    official = {}
    for key, names in table.items():
        if all(name in tensors for name in names):
            value = torch.cat([tensors[name] for name in names])
            official[key] = value.T if _TRANSPOSED.fullmatch(key) else value
    return official


def load_official(state: Mapping[str, Tensor], config: TVTSConfig | None = None) -> TVTSPreTrainedModel:
    """A model of ours with official weights, in evaluation mode.

    Args:
        state: official weights, as `read_state_dict` gives them; of an image MAE, the kernel is repeated in
            time.
        config: read off the weights by default.

    Returns:
        TVTSForPreTraining, TVTSForVideoClassification, or for a video tower alone TVTSVideoModel.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    config = infer_config(state) if config is None else config
    kind = checkpoint_kind(state)
    if kind == "image":
        model: Any = TVTSVideoModel(config)
        load_image_weights(model, state)
        return model.eval()
    classes = {
        "pretraining": TVTSForPreTraining,
        "classification": TVTSForVideoClassification,
        "video": TVTSVideoModel,
    }
    model = classes[kind](config)
    converted = convert_state_dict(state, model, key_table(config, kind))
    load_exactly(model, converted)
    return model.eval()


@torch.no_grad()
def load_image_weights(
    model: TVTSPreTrainedModel, state: Mapping[str, Tensor], divide_kernel: bool = False
) -> None:
    """Start the video tower from an image MAE (`mae_pretrain_vit_base.pth`), in place.

    The kernel of the patches is repeated along time, and the temporal table is set to zeros.

    Args:
        model: any TVTS model with joint attention.
        state: weights of the image encoder.
        divide_kernel: divide the kernel by its frames, so that a still clip gives what its image gives. The
            official code does not.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    prefix = "tvts." if hasattr(model, "tvts") else ""
    shape_of(state, "patch_embed.proj.weight", dimensions=4)  # an image model's kernel has no time
    frames = model.config.tubelet_size
    weight = state["patch_embed.proj.weight"].unsqueeze(2).repeat(1, 1, frames, 1, 1)
    backbone: Any = getattr(model, "tvts", model)
    inflated = dict(state)
    inflated["patch_embed.proj.weight"] = weight / frames if divide_kernel else weight
    inflated["temporal_embed"] = torch.zeros_like(backbone.video_model.embeddings.temporal_positions)
    table = _joint_tower(model.config, "", f"{prefix}video_model.")
    model.load_state_dict(convert_state_dict(inflated, model, table), strict=False)


@torch.no_grad()
def load_clip_weights(model: TVTSPreTrainedModel, clip: Any) -> None:
    """Start both towers of a TVTSv2 model from transformers' CLIP of the same sizes, in place.

    What CLIP lacks (attention over time, its norm, the temporal table) keeps its values.

    Args:
        model: with divided attention, and with text for the text tower to be set.
        clip: a `CLIPModel`.

    Raises:
        CheckpointError: shapes differ.
    """
    prefix = "tvts." if hasattr(model, "tvts") else ""
    own, found = model.state_dict(), clip.state_dict()
    video, vision = f"{prefix}video_model.", "vision_model."
    sources = {
        f"{video}embeddings.class_token": found[f"{vision}embeddings.class_embedding"],
        f"{video}embeddings.spatial_positions": found[f"{vision}embeddings.position_embedding.weight"],
        f"{video}embeddings.patches.weight": found[f"{vision}embeddings.patch_embedding.weight"],
        f"{video}projection.weight": found["visual_projection.weight"],
    }
    for ours, theirs in (("first_norm", "pre_layrnorm"), ("norm", "post_layernorm")):
        for leaf in _LINEAR:
            sources[f"{video}{ours}.{leaf}"] = found[f"{vision}{theirs}.{leaf}"]
    for index in range(model.config.num_hidden_layers):
        our, their = f"{video}layers.{index}.", f"{vision}encoder.layers.{index}."
        for leaf in _LINEAR:
            parts = [found[f"{their}self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            sources[f"{our}attention.qkv.{leaf}"] = torch.cat(parts)
            for ours, theirs in (
                ("attention.proj", "self_attn.out_proj"),
                ("norm1", "layer_norm1"),
                ("norm2", "layer_norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                sources[f"{our}{ours}.{leaf}"] = found[f"{their}{theirs}.{leaf}"]
    for name in own:
        if name.startswith(f"{prefix}text_model."):
            sources[name] = found[name.removeprefix(f"{prefix}text_model.")]
    for name, value in sources.items():
        if own[name].numel() != value.numel():
            raise CheckpointError(
                f"CLIP does not fit: {name} is {tuple(own[name].shape)}, CLIP's is {tuple(value.shape)}"
            )
        own[name].copy_(value.reshape(own[name].shape))


def initial_model(
    config: TVTSConfig,
    image: str | Path | None = None,
    text: str | Path | None = None,
    clip: str | Path | None = None,
) -> TVTSForPreTraining:
    """A model as the official pre-training starts it.

    Args:
        config: of the model.
        image: TVTS: file of an image MAE, such as `mae_pretrain_vit_base.pth`.
        text: TVTS: folder or Hub id of the text tower, such as `distilbert/distilbert-base-uncased`.
        clip: TVTSv2: folder or Hub id of a CLIP, such as `openai/clip-vit-base-patch16`.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    from transformers import AutoModel, CLIPModel

    model = TVTSForPreTraining(config)
    if image is not None:
        load_image_weights(model, read_state_dict(image))
    if text is not None:
        encoder: TVTSModel = model.tvts
        loaded = AutoModel.from_pretrained(text, config=encoder.text_model.config)
        encoder.text_model.load_state_dict(loaded.state_dict())
    if clip is not None:
        load_clip_weights(model, CLIPModel.from_pretrained(clip))
    return model


def convert(path: str | Path, **overrides: Any) -> TVTSPreTrainedModel:
    """The model of an official file.

    Args:
        path: a file that the official code, or MAE, saved.
        overrides: fields of the configuration that the weights do not tell, such as `num_attention_heads`.
    """
    state = read_state_dict(path)
    return load_official(state, infer_config(state, **overrides))


__all__ = [
    "DROPPED",
    "convert",
    "convert_state_dict",
    "infer_config",
    "initial_model",
    "key_table",
    "load_clip_weights",
    "load_image_weights",
    "load_official",
    "official_state_dict",
    "sorting_table",
]
