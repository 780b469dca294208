"""Official VideoMoCo checkpoints, fine-tuned ones and torchvision's video ResNets, to our models and back.

Official files come from github.com/tinapan-pt/VideoMoCo: `train.py` saves the encoders with the queue in one
file and the generator in another, `eval.py` classifiers. Nothing is reshaped, and a checkpoint's keys must
be exactly those of the key table. What the authors keep out of their files is new: the keys' ages, which
begin at 0, as they do when the official code resumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...nn.foreign_checkpoint import read_state_dict
from ...nn.official_weights import count_layers, load_exactly, rename_strictly, shape_of
from .configuration_videomoco import VideoMoCoConfig, generator_map_side
from .modeling_videomoco import (
    VideoMoCoForPreTraining,
    VideoMoCoForVideoClassification,
    VideoMoCoPreTrainedModel,
)

NEW = ("queue.ages", "current_epoch", "completed_steps", "previous_loss_g")
"""Keys of ours that official files do not hold."""

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_LINEAR = ("weight", "bias")
_QUERY, _KEY = "encoder_q.", "encoder_k."


def key_table(config: VideoMoCoConfig, kind: str) -> dict[str, str]:
    """Official key -> our key, for every weight of a model.

    Args:
        kind: "pretraining" or "classification".
    """
    encoder = "videomoco.encoder.backbone."
    if kind == "classification":
        return backbone_table(config, "", encoder) | _leaves("fc", "classifier", _LINEAR)
    table = {"queue": "queue.keys", "queue_ptr": "queue.pointer"}
    table |= backbone_table(config, _QUERY, encoder) | projection_table(config, f"{_QUERY}fc", "projection")
    table |= backbone_table(config, _KEY, "key_encoder.backbone.")
    table |= projection_table(config, f"{_KEY}fc", "key_projection")
    if config.dropped_frames == "generator":
        table |= generator_table("mask_generator.", "generator.")
    return table


def _leaves(official: str, ours: str, names: Iterable[str] = ("weight",)) -> dict[str, str]:
    return {f"{official}.{name}": f"{ours}.{name}" for name in names}


def backbone_table(config: VideoMoCoConfig, official: str, ours: str) -> dict[str, str]:
    """torchvision's key -> our key, of a video ResNet without its last layer."""
    factorized = config.arch == "r2plus1d_18"
    if factorized:
        table = _factorized(f"{official}stem", 0, f"{ours}stem.conv")
        table |= _leaves(f"{official}stem.4", f"{ours}stem.norm", _BATCH_NORM)
    else:
        table = _leaves(f"{official}stem.0", f"{ours}stem.conv")
        table |= _leaves(f"{official}stem.1", f"{ours}stem.norm", _BATCH_NORM)
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs, our = f"{official}layer{stage + 1}.{block}.", f"{ours}stages.{stage}.{block}."
            for number in (1, 2):
                if factorized:
                    table |= _factorized(f"{theirs}conv{number}.0", 0, f"{our}conv{number}")
                else:
                    table |= _leaves(f"{theirs}conv{number}.0", f"{our}conv{number}")
                table |= _leaves(f"{theirs}conv{number}.1", f"{our}norm{number}", _BATCH_NORM)
            if block == 0 and stage > 0:
                table |= _leaves(f"{theirs}downsample.0", f"{our}shortcut.conv")
                table |= _leaves(f"{theirs}downsample.1", f"{our}shortcut.norm", _BATCH_NORM)
    return table


def _factorized(official: str, first: int, ours: str) -> dict[str, str]:
    """A convolution over space, its BatchNorm, ReLU and the convolution over time, numbered from `first`."""
    table = _leaves(f"{official}.{first}", f"{ours}.spatial")
    table |= _leaves(f"{official}.{first + 1}", f"{ours}.norm", _BATCH_NORM)
    return table | _leaves(f"{official}.{first + 3}", f"{ours}.temporal")


def projection_table(config: VideoMoCoConfig, official: str, ours: str) -> dict[str, str]:
    """Official key -> our key, of a projection with or without a hidden layer."""
    if not config.mlp:
        return _leaves(official, f"{ours}.fc2", _LINEAR)
    return _leaves(f"{official}.0", f"{ours}.fc1", _LINEAR) | _leaves(f"{official}.2", f"{ours}.fc2", _LINEAR)


def generator_table(official: str, ours: str) -> dict[str, str]:
    """Official key -> our key, of the generator."""
    table = _leaves(f"{official}Conv_BN.0", f"{ours}stem_conv")
    table |= _leaves(f"{official}Conv_BN.1", f"{ours}stem_norm", _BATCH_NORM)
    convolutions = {"conv": "image_conv", "atrous_block1": "point_conv", "conv_1x1_output": "fuse_conv"}
    convolutions |= {f"atrous_block{rate}": f"atrous_convs.{index}" for index, rate in enumerate((6, 12, 18))}
    convolutions |= {"conv2.0": "reduce_conv", "conv1.0": "refine_conv", "fc.0": "score"}
    for theirs, our in convolutions.items():
        table |= _leaves(f"{official}{theirs}", f"{ours}{our}", _LINEAR)
    for theirs, our in (("conv2.1", "reduce_norm"), ("conv1.1", "refine_norm")):
        table |= _leaves(f"{official}{theirs}", f"{ours}{our}", _BATCH_NORM)
    weights = [f"{name}_{side}_l0" for name in ("weight", "bias") for side in ("ih", "hh")]
    both = [*weights, *(f"{name}_reverse" for name in weights)]
    return table | _leaves(f"{official}rnn", f"{ours}lstm", both)


def checkpoint_kind(keys: Iterable[str]) -> str:
    """What an official state dict is of: "pretraining" or "classification"."""
    starts = {key.split(".")[0] for key in keys}
    if "encoder_q" in starts:
        return "pretraining"
    if "stem" in starts:
        return "classification"
    if "mask_generator" in starts:
        raise CheckpointError("this is the generator alone: give the encoders' file, and this one beside it")
    raise CheckpointError(
        "these are no weights of VideoMoCo, its fine-tuned models or torchvision's video ResNets: no key"
        " starts with encoder_q. or stem."
    )


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> VideoMoCoConfig:
    """Sizes read off the shapes of official weights; what shapes do not tell is the default.

    Args:
        state: of the encoders, and where there is one of the generator. Without generator the model has none
            (`dropped_frames="none"`): load what was saved with `dropped_frames="generator"` to train a new
            one.
        overrides: fields of the configuration to set.
    """
    kind = checkpoint_kind(state)
    prefix = _QUERY if kind == "pretraining" else ""
    settings = _backbone_settings(state, prefix)
    settings["dropped_frames"] = "none"
    if kind == "classification":
        settings["num_labels"] = shape_of(state, "fc.bias")[0]
        return VideoMoCoConfig(**(settings | overrides))
    settings["mlp"] = f"{prefix}fc.2.weight" in state
    settings["dim"] = shape_of(state, f"{prefix}fc.2.bias" if settings["mlp"] else f"{prefix}fc.bias")[0]
    settings["queue_size"] = shape_of(state, "queue")[1]
    if any(key.startswith("mask_generator.") for key in state):
        settings |= _generator_settings(state, "mask_generator.")
    return VideoMoCoConfig(**(settings | overrides))


def _backbone_settings(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    stages = range(1, count_layers(state, rf"{prefix}layer(\d+)\."))
    arch, last = "r3d_18", "conv2.0.weight"
    if f"{prefix}stem.3.weight" in state:
        arch, last = "r2plus1d_18", "conv2.0.3.weight"
    elif f"{prefix}layer2.0.{last}" in state and shape_of(state, f"{prefix}layer2.0.{last}")[2] == 1:
        arch = "mc3_18"
    stem_width, channels = shape_of(state, f"{prefix}stem.0.weight")[:2]
    settings: dict[str, Any] = {"arch": arch, "num_channels": channels}
    settings["widths"] = [shape_of(state, f"{prefix}layer{stage}.0.{last}")[0] for stage in stages]
    settings["depths"] = [count_layers(state, rf"{prefix}layer{stage}\.(\d+)\.") for stage in stages]
    if arch == "r2plus1d_18":
        settings["stem_width"] = stem_width
    return settings


def _generator_settings(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    frames, hidden = shape_of(state, f"{prefix}fc.0.weight")
    features = shape_of(state, f"{prefix}rnn.weight_ih_l0")[1]
    settings = {"num_frames": frames, "generator_hidden": hidden, "generator_features": features}
    default = VideoMoCoConfig.image_size
    if generator_map_side(default) ** 2 != features:
        settings["image_size"] = 8 * round(features**0.5) + 8
    return {"dropped_frames": "generator"} | settings


def official_state_dict(model: VideoMoCoPreTrainedModel) -> dict[str, Tensor]:
    """A model's weights under the official keys: encoders, queue and generator together, or a classifier."""
    kind = "classification" if isinstance(model, VideoMoCoForVideoClassification) else "pretraining"
    state = model.state_dict()
    return {official: state[ours] for official, ours in key_table(model.config, kind).items()}


def load_official(
    state: Mapping[str, Tensor], config: VideoMoCoConfig | None = None
) -> VideoMoCoPreTrainedModel:
    """A model of ours with official weights, in evaluation mode.

    Args:
        state: official weights, as `read_state_dict` gives them; the generator's may be among them.
        config: read off the weights by default.

    Returns:
        VideoMoCoForPreTraining, or VideoMoCoForVideoClassification for fine-tuned and torchvision's weights.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    config = infer_config(state) if config is None else config
    kind = checkpoint_kind(state)
    model_class = VideoMoCoForPreTraining if kind == "pretraining" else VideoMoCoForVideoClassification
    model = model_class(config)
    load_exactly(model, rename_strictly(state, key_table(config, kind)), NEW)
    return model.eval()


def convert(
    path: str | Path, generator: str | Path | None = None, **overrides: Any
) -> VideoMoCoPreTrainedModel:
    """The model of an official file.

    Args:
        path: a file that the official code, or torchvision, saved.
        generator: the file of the generator that belongs to it.
        overrides: fields of the configuration that the weights do not tell, such as `temperature`.
    """
    state = read_state_dict(path)
    if generator is not None:
        further = read_state_dict(generator)
        foreign = sorted(key for key in further if not key.startswith("mask_generator."))
        if foreign or not further:
            raise CheckpointError(
                f"{generator} is no generator of VideoMoCo: its keys must start with mask_generator., it has"
                f" {', '.join(foreign[:3]) or 'none'}"
            )
        state |= further
    return load_official(state, infer_config(state, **overrides))


__all__ = [
    "backbone_table",
    "convert",
    "generator_table",
    "infer_config",
    "key_table",
    "load_official",
    "official_state_dict",
    "projection_table",
]
