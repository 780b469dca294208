"""Official STiCA, GDT and fine-tuned checkpoints, and torchvision's r2plus1d_18, to our models and back.

Official files come from github.com/facebookresearch/GDT: `main_stica.py` and `main_gdt.py` save pre-training
models, `eval_video.py` classifiers. Nothing is reshaped; a checkpoint's keys must be exactly those of the key
table, apart from an explicit list of keys that are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...nn.foreign_checkpoint import read_state_dict
from ...nn.official_weights import count_layers, load_exactly, rename_strictly, shape_of
from .configuration_stica import BACKBONE_DEPTHS, STiCAConfig
from .modeling_stica import (
    STiCAForPreTraining,
    STiCAForVideoClassification,
    STiCAPreTrainedModel,
    STiCAVideoModel,
)

DROPPED = {
    "dead classifier of the sound network": r"audio_network\.base\.fc\.(weight|bias)",
    "constant position indices": r".*\.pos_ids",
    "batch counters, which nothing reads": r".*\.num_batches_tracked",
    "second name of the classifier's BatchNorm": r"final_bn\..*",
    "text tower of the HowTo100M model": r"(text_network|mlp_t)\..*",
    "supervised classifier of torchvision": r"fc\.(weight|bias)",
}
"""Reason -> official keys that are left out."""

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_LINEAR = ("weight", "bias")


def key_table(config: STiCAConfig, kind: str) -> dict[str, str]:
    """Official key -> our key, for every weight of a model.

    Args:
        kind: "pretraining", "classification" or "torchvision" (video network alone).
    """
    video = {"pretraining": "video_network.base.", "classification": "base.", "torchvision": ""}[kind]
    ours = "video_model." if kind == "torchvision" else "stica.video_model."
    table = dict(_video_backbone(config, video, f"{ours}backbone."))
    if kind != "torchvision":
        official = {"pretraining": "video_pooling", "classification": "pooling_arch"}[kind]
        table |= _pooling(config, f"{official}.2.", f"{ours}pooling.")
    if kind == "pretraining":
        table |= _audio_backbone(config, "audio_network.base.", "stica.audio_model.backbone.")
        for official, head in (("mlp_v", "video_projection"), ("mlp_a", "audio_projection")):
            table |= _projection(config, f"{official}.", f"{head}.")
    if kind == "classification":
        linear = "classifier.1" if config.classifier_batch_norm else "classifier"
        table |= _leaves(linear, "classifier", _LINEAR)
        if config.classifier_batch_norm:
            table |= _leaves("classifier.0", "classifier_norm", _BATCH_NORM)
    return table


def _leaves(official: str, ours: str, names: Iterable[str] = ("weight",)) -> dict[str, str]:
    return {f"{official}.{name}": f"{ours}.{name}" for name in names}


def _video_backbone(config: STiCAConfig, official: str, ours: str) -> dict[str, str]:
    table = _leaves(f"{official}stem.0", f"{ours}stem.conv.spatial")
    table |= _leaves(f"{official}stem.1", f"{ours}stem.conv.norm", _BATCH_NORM)
    table |= _leaves(f"{official}stem.3", f"{ours}stem.conv.temporal")
    table |= _leaves(f"{official}stem.4", f"{ours}stem.norm", _BATCH_NORM)
    for changes_shape, theirs, our in _blocks(config.video_depths or (), official, ours):
        for number in (1, 2):
            table |= _leaves(f"{theirs}conv{number}.0.0", f"{our}conv{number}.spatial")
            table |= _leaves(f"{theirs}conv{number}.0.1", f"{our}conv{number}.norm", _BATCH_NORM)
            table |= _leaves(f"{theirs}conv{number}.0.3", f"{our}conv{number}.temporal")
            table |= _leaves(f"{theirs}conv{number}.1", f"{our}norm{number}", _BATCH_NORM)
        if changes_shape:
            table |= _shortcut(theirs, our)
    return table


def _audio_backbone(config: STiCAConfig, official: str, ours: str) -> dict[str, str]:
    table = _leaves(f"{official}conv1", f"{ours}stem.conv")
    table |= _leaves(f"{official}bn1", f"{ours}stem.norm", _BATCH_NORM)
    for changes_shape, theirs, our in _blocks(config.audio_depths, official, ours):
        for number in (1, 2):
            table |= _leaves(f"{theirs}conv{number}", f"{our}conv{number}")
            table |= _leaves(f"{theirs}bn{number}", f"{our}norm{number}", _BATCH_NORM)
        if changes_shape:
            table |= _shortcut(theirs, our)
    return table


def _blocks(depths: Iterable[int], official: str, ours: str) -> Iterable[tuple[bool, str, str]]:
    """For each block: whether it has a shortcut convolution, and its prefixes."""
    for stage, depth in enumerate(depths):
        for block in range(depth):
            changes_shape = block == 0 and stage > 0
            yield changes_shape, f"{official}layer{stage + 1}.{block}.", f"{ours}stages.{stage}.{block}."


def _shortcut(official: str, ours: str) -> dict[str, str]:
    return _leaves(f"{official}downsample.0", f"{ours}shortcut.conv") | _leaves(
        f"{official}downsample.1", f"{ours}shortcut.norm", _BATCH_NORM
    )


def _pooling(config: STiCAConfig, official: str, ours: str) -> dict[str, str]:
    table: dict[str, str] = {}
    projections = {"q_lin": "query", "k_lin": "key"}
    if config.pooling_full_qkv:
        projections |= {"v_lin": "value", "out_lin": "out"}
    for index in range(config.pooling_layers or 0):
        theirs, our = f"{official}transformer.{index}.", f"{ours}layers.{index}."
        for name, renamed in projections.items():
            table |= _leaves(f"{theirs}mha.{name}", f"{our}attention.{renamed}", _LINEAR)
        for number in (1, 2):
            table |= _leaves(f"{theirs}norm{number}", f"{our}norm{number}", _LINEAR)
        table |= _leaves(f"{theirs}ffn.lin1", f"{our}feed_forward.0", _LINEAR)
        table |= _leaves(f"{theirs}ffn.lin2", f"{our}feed_forward.2", _LINEAR)
    if config.pooling_position and config.pooling_layers:
        table |= _leaves(f"{official}pos_embs.0", f"{ours}position")
    return table


def _projection(config: STiCAConfig, official: str, ours: str) -> dict[str, str]:
    table = _leaves(f"{official}block_forward.2", f"{ours}fc1")
    table |= _leaves(f"{official}block_forward.4", f"{ours}norm", _BATCH_NORM)
    return table | _leaves(f"{official}block_forward.8", f"{ours}fc2", _LINEAR)


def checkpoint_kind(keys: Iterable[str]) -> str:
    """What an official state dict is of: "pretraining", "classification" or "torchvision"."""
    keys = list(keys)
    starts = {"video_network.base.": "pretraining", "base.": "classification", "stem.": "torchvision"}
    for start, kind in starts.items():
        if any(key.startswith(start) for key in keys):
            return kind
    raise CheckpointError(
        "these are no weights of STiCA, GDT, their fine-tuned models or torchvision's r2plus1d_18: no key"
        " starts with video_network.base., base. or stem."
    )


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> STiCAConfig:
    """Sizes read off the shapes of official weights; what shapes do not tell (heads, tokens, input) is the
    default.

    Args:
        overrides: fields of the configuration to set.
    """
    kind = checkpoint_kind(state)
    video = {"pretraining": "video_network.base.", "classification": "base.", "torchvision": ""}[kind]
    pooling = {"pretraining": "video_pooling.2.", "classification": "pooling_arch.2.", "torchvision": "-"}[
        kind
    ]
    settings: dict[str, Any] = {
        "pooling_layers": count_layers(state, rf"{re.escape(pooling)}transformer\.(\d+)\.")
    }
    settings["video_widths"], settings["video_depths"] = _stages(state, video, "conv2.0.3.weight")
    settings["video_stem_width"], settings["num_channels"] = shape_of(state, f"{video}stem.0.weight")[:2]
    for name, depths in BACKBONE_DEPTHS.items():
        if tuple(settings["video_depths"]) == depths:
            settings["backbone"] = name
    if settings["pooling_layers"]:
        first = f"{pooling}transformer.0."
        settings["pooling_ffn"] = shape_of(state, f"{first}ffn.lin1.weight")[0]
        settings["pooling_full_qkv"] = f"{first}mha.v_lin.weight" in state
        settings["pooling_position"] = f"{pooling}pos_embs.0.weight" in state
        if settings["pooling_position"]:
            settings["pooling_position_size"] = shape_of(state, f"{pooling}pos_embs.0.weight")[0]
    if kind == "pretraining":
        settings["audio_widths"], settings["audio_depths"] = _stages(
            state, "audio_network.base.", "conv2.weight"
        )
        settings["projection_hidden"] = shape_of(state, "mlp_v.block_forward.2.weight")[0]
        settings["projection_dim"] = shape_of(state, "mlp_v.block_forward.8.weight")[0]
        if not any(key.startswith("video_pooling.") for key in state):
            settings |= {"objective": "gdt", "num_frames": 30, "audio_seconds": 1.0, "num_mel_bins": 40}
    else:
        settings["use_audio"] = False
    if kind == "classification":
        settings["classifier_batch_norm"] = "classifier.0.running_mean" in state
        settings["num_frames"], settings["image_size"] = 32, 128
        classifier = "classifier.1.bias" if settings["classifier_batch_norm"] else "classifier.bias"
        settings["num_labels"] = shape_of(state, classifier)[0]
        if settings["pooling_layers"]:
            settings["pooling_tokens"] = 8
    return STiCAConfig(**(settings | overrides))


def _stages(state: Mapping[str, Tensor], prefix: str, last: str) -> tuple[list[int], list[int]]:
    """Widths and depths of a ResNet."""
    depths = [
        count_layers(state, rf"{re.escape(prefix)}layer{stage}\.(\d+)\.")
        for stage in range(1, 1 + count_layers(state, rf"{re.escape(prefix)}layer(\d+)\.") - 1)
    ]
    widths = [shape_of(state, f"{prefix}layer{stage}.0.{last}")[0] for stage in range(1, len(depths) + 1)]
    return widths, depths


def convert_state_dict(state: Mapping[str, Tensor], config: STiCAConfig) -> dict[str, Tensor]:
    """Official weights under our keys.

    Raises:
        CheckpointError: a key is missing, or neither in the key table nor in the drop list.
    """
    return rename_strictly(state, key_table(config, checkpoint_kind(state)), DROPPED.values())


def official_state_dict(model: STiCAPreTrainedModel) -> dict[str, Tensor]:
    """A model's weights under the official keys (without the keys of the drop list)."""
    kinds = {STiCAForPreTraining: "pretraining", STiCAForVideoClassification: "classification"}
    table = key_table(model.config, kinds.get(type(model), "torchvision"))
    state = model.state_dict()
    return {official: state[ours] for official, ours in table.items()}


def load_official(state: Mapping[str, Tensor], config: STiCAConfig | None = None) -> STiCAPreTrainedModel:
    """A model of ours with official weights, in evaluation mode.

    Args:
        state: official weights, as `read_state_dict` gives them.
        config: read off the weights by default.

    Returns:
        STiCAForPreTraining, STiCAForVideoClassification, or for torchvision's weights STiCAVideoModel.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    config = infer_config(state) if config is None else config
    classes = {
        "pretraining": STiCAForPreTraining,
        "classification": STiCAForVideoClassification,
        "torchvision": STiCAVideoModel,
    }
    model = classes[checkpoint_kind(state)](config)
    new = [key for key in model.state_dict() if key.endswith(("num_batches_tracked", "crop_step"))]
    load_exactly(model, convert_state_dict(state, config), new)
    return model.eval()


def convert(path: str | Path, **overrides: Any) -> STiCAPreTrainedModel:
    """The model of an official file.

    Args:
        path: a file that the official code, or torchvision, saved.
        overrides: fields of the configuration that the weights do not tell, such as `pooling_heads`.
    """
    state = read_state_dict(path)
    return load_official(state, infer_config(state, **overrides))


__all__ = [
    "DROPPED",
    "convert",
    "convert_state_dict",
    "infer_config",
    "key_table",
    "load_official",
    "official_state_dict",
]
