"""What a configuration describes, without any weights: class, sizes, inputs, parameters, operations."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.initialization import no_init_weights

from ..errors import InputError
from ..registry import COMPANIONS, METHODS, class_prefix, find_class, has_class

__all__ = ["ModelDescription", "describe_config", "method_of", "takes_codes"]


@dataclass(frozen=True)
class ModelDescription:
    """Facts that follow from a configuration.

    Attributes:
        method: a name of the registry, or of a companion such as the tokeniser.
        architecture: the class that was saved.
        parameters: of that class, queues and statistics not counted.
        feature_parameters: of the model that `AutoModel` loads.
        feature_size: length of the vector that it gives a clip (`pooler_output`); 0 for a tokeniser.
        codes: how many codes a tokeniser has; 0 for any other model.
        inputs: what it takes, in words.
        gflop: for the features of one clip, or for the codes of one frame, counting two per multiply-add.
        labels: names of the classes of a classifier.
    """

    method: str
    architecture: str
    parameters: int
    feature_parameters: int
    feature_size: int
    codes: int
    inputs: list[str]
    gflop: float
    labels: list[str]

    @property
    def cost(self) -> str:
        """The operations in words."""
        number = f"{self.gflop:.1f}" if self.gflop >= 10 else f"{self.gflop:.3g}"
        return f"{number} GFLOP (two for a multiply-add) {self._counted()}"

    def _counted(self) -> str:
        if self.codes:
            return "a frame"
        if takes_codes(self.method):
            return "for the codes of a clip; its tokeniser's come on top"
        return "for the video of a clip"


def method_of(config: Any) -> str:
    """Name of the method that a configuration belongs to.

    Raises:
        InputError: it is none of ours.
    """
    model_type = getattr(config, "model_type", None)
    for method in (*METHODS, *COMPANIONS):
        if has_class(method, "Config") and find_class(method, "Config").model_type == model_type:
            return method
    known = ", ".join(sorted({*METHODS, *COMPANIONS}))
    raise InputError(f"a model of type {model_type!r} is none of this package's, which are {known}")


def takes_codes(method: str) -> bool:
    """Whether models of a method take codes that a tokeniser makes of frames."""
    return find_class(method, "Model").main_input_name == "input_codes"


def describe_config(config: Any) -> ModelDescription:
    """Describe a configuration; builds the model without memory for its weights."""
    method = method_of(config)
    prefix = class_prefix(method)
    architecture = (getattr(config, "architectures", None) or [f"{prefix}Model"])[0]
    # Tensors with shapes and no content: as fast for a large model as for a small one.
    with (
        FakeTensorMode(),
        no_init_weights(),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        saved = find_class(method, architecture.removeprefix(prefix))(copy.deepcopy(config))
        features = find_class(method, "Model")(copy.deepcopy(config)).eval()
        features.set_attn_implementation("eager")  # fused attention is not counted
        if takes_codes(method):
            clip = torch.zeros(1, *config.grid, dtype=torch.int64)
        else:
            clip = torch.empty(1, *_clip_shape(config))[:, : 1 if method in COMPANIONS else None]
        output = features(**{features.main_input_name: clip})
    is_classifier = architecture.endswith("Classification")
    return ModelDescription(
        method=method,
        architecture=architecture,
        parameters=_count(saved),
        feature_parameters=_count(features),
        feature_size=0 if method in COMPANIONS else output.pooler_output.shape[-1],
        codes=config.vocab_size if method in COMPANIONS else 0,
        inputs=_inputs(config),
        gflop=counter.get_total_flops() / 1e9,
        labels=list(config.id2label.values()) if is_classifier else [],
    )


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _clip_shape(config: Any) -> tuple[int, int, int, int]:
    """(frames, channels, height, width) that a model takes; a tokeniser, which takes any, as its processor
    gives them."""
    if hasattr(config, "image_size"):
        height, width = getattr(config, "frame_size", (config.image_size, config.image_size))
        return config.num_frames, config.num_channels, height, width
    usual = find_class(method_of(config), "VideoProcessor")
    return usual.num_frames, config.num_channels, usual.crop_size["height"], usual.crop_size["width"]


def _inputs(config: Any) -> list[str]:
    rate = f" at {config.fps:g} frames a second" if getattr(config, "fps", None) else ""
    frames, _, height, width = _clip_shape(config)
    number = frames if hasattr(config, "num_frames") else "any number of"
    inputs = [f"video: {number} frames of {height}x{width}{rate}"]
    if takes_codes(method_of(config)):
        inputs[0] += f", as {config.grid[1]}x{config.grid[2]} codes of a tokeniser each"
    if getattr(config, "use_audio", False):
        inputs.append(
            f"sound: {config.audio_seconds:g} s as a log-mel spectrogram of {config.num_mel_bins} bins"
        )
    if getattr(config, "use_text", False):
        inputs.append(f"text: up to {config.max_text_length} tokens")
    elif getattr(config, "has_text", False):
        inputs.append(
            f"text: names of classes, up to {config.text_config.max_position_embeddings} tokens each"
        )
    return inputs
