"""Video models that transformers itself has, through the same commands as ours.

Their own processors need torchvision (or leave the choice of frames to the caller). Here sizes, mean, std and
interpolation are read from the JSON beside the weights, and our processor does what they say. Which frames
make a clip stands in no file of theirs: `PEERS` has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers.utils import ModelOutput, cached_file

from ..data.video_processing import VideoSSLVideoProcessor
from ..errors import InputError

__all__ = [
    "PEERS",
    "Peer",
    "PeerModel",
    "file_of",
    "make_peer_processor",
    "model_type",
    "read_processor_settings",
]

_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


class Peer(NamedTuple):
    """How one family of models is shown clips, and where its features are.

    Attributes:
        pixels: the name of its input.
        frames: number of frames of a clip, from its configuration.
        features: tokens (clips, tokens, width), None where it has none over the whole clip, and the pooled
            (clips, width), from the base model and its input.
        clips: settings of our processor that say which frames are taken.
    """

    pixels: str
    frames: Callable[[Any], int]
    features: Callable[[Any, dict[str, Tensor]], tuple[Tensor | None, Tensor]]
    clips: Callable[[int], dict[str, Any]]


def _mean_token(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    tokens = model(**inputs).last_hidden_state
    return tokens, tokens.mean(dim=1)


def _class_token(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    tokens = model(**inputs).last_hidden_state
    return tokens, tokens[:, 0]


def _encoder_mean(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return _mean_token(model, inputs | {"skip_predictor": True})


def _video_features(model: Any, inputs: dict[str, Tensor]) -> tuple[None, Tensor]:
    found = model.get_video_features(**inputs)
    return None, getattr(found, "pooler_output", found)


PEERS = {
    # Every fourth frame, as its papers evaluate on Kinetics; features as its classifiers pool them.
    "videomae": Peer(
        "pixel_values", lambda config: config.num_frames, _mean_token, lambda frames: {"frame_stride": 4}
    ),
    # 8 frames 32 apart, or 16 frames 16 apart, as published.
    "timesformer": Peer(
        "pixel_values",
        lambda config: config.num_frames,
        _class_token,
        lambda frames: {"frame_stride": max(1, 256 // frames)},
    ),
    # 32 frames, every second one.
    "vivit": Peer(
        "pixel_values", lambda config: config.num_frames, _class_token, lambda frames: {"frame_stride": 2}
    ),
    # Four frames a second, as in its pre-training.
    "vjepa2": Peer(
        "pixel_values_videos",
        lambda config: config.frames_per_clip,
        _encoder_mean,
        lambda frames: {"fps": 4.0, "frame_stride": 1},
    ),
    # One frame of each equal part of the video.
    "xclip": Peer(
        "pixel_values",
        lambda config: config.vision_config.num_frames,
        _video_features,
        lambda frames: {"sampling": "uniform"},
    ),
}
"""Model type -> what its files do not say."""


class PeerModel(nn.Module):
    """A model of transformers under the calling convention of ours.

    Args:
        model: of a type in `PEERS`: the base model, or a classifier with `logits`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.peer = PEERS[model.config.model_type]

    def forward(self, pixel_values_videos: Tensor) -> ModelOutput:
        """`last_hidden_state` (clips, tokens, width) and `pooler_output` (clips, width) of a base model, or
        `logits` (clips, classes) of a classifier.

        Args:
            pixel_values_videos: normalised clips (clips, frames, channels, height, width).
        """
        inputs = {self.peer.pixels: pixel_values_videos}
        if self.model.base_model is self.model:
            tokens, pooled = self.peer.features(self.model, inputs)
            return ModelOutput(last_hidden_state=tokens, pooler_output=pooled)
        return ModelOutput(logits=self.model(**inputs).logits)


def model_type(name: str, revision: str | None = None) -> str | None:
    """The type that a model's config.json states; None where there is none, as beside a processor alone."""
    path = file_of(name, "config.json", revision)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read config.json of {name}: {error}") from error


def file_of(name: str, file: str, revision: str | None = None) -> Path | None:
    """Where a model's file lies on this machine, downloaded if need be; None where it has no such file."""
    path = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def read_processor_settings(name: str, revision: str | None = None) -> dict[str, Any]:
    """The JSON of a model's own processor, from a folder or the Hub.

    Raises:
        InputError: there is none, or it is not JSON.
    """
    for file in _FILES:
        path = file_of(name, file, revision)
        if path is None:
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {file} of {name}: {error}") from error
        if not isinstance(settings, dict):
            raise InputError(f"{file} of {name} must hold a JSON object")
        for part in ("video_processor", "image_processor"):
            settings = settings.get(part, settings)
        if "image_mean" in settings:
            return settings
    raise InputError(f"{name} holds no processor settings: none of {', '.join(_FILES)} has image_mean")


def make_peer_processor(config: Any, settings: Mapping[str, Any]) -> VideoSSLVideoProcessor:
    """Our processor with the sizes and normalisation of theirs.

    Args:
        config: of the model.
        settings: as `read_processor_settings` gives them.

    Raises:
        InputError: a setting that does not fit; the message is the processor's.
    """
    peer = PEERS[config.model_type]
    frames = peer.frames(config)
    known = ("do_resize", "size", "do_center_crop", "crop_size", "resample", "do_rescale", "rescale_factor")
    own = {
        key: settings[key] for key in (*known, "do_normalize", "image_mean", "image_std") if key in settings
    }
    if settings.get("offset"):  # ViViT: pixels go to [-1, 1] before mean and std are applied
        own["image_mean"] = [mean + 1 for mean in own["image_mean"]]
    # Theirs scale with filters of their own; the decoder's are others.
    return VideoSSLVideoProcessor(num_frames=frames, resize_while_decoding=False, **peer.clips(frames), **own)
