"""Training batches of labelled videos for a classifier of any method: one random view of each video.

A view is taken as the method's own processor would in a test with several clips, so that rate, length and
spread of the frames are those that the model knows; which of the clips, and the crop, are drawn. For models
of frames from all over the video one random frame of each of its parts can be taken instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError, DataError
from .blending import blend_batch
from .clip_draw import ClipDraw
from .erasing import draw_erased_box
from .jitter import check_jitter, jitter_factors
from .loading import SampleLoader
from .rand_augment import LARGEST_MAGNITUDE, apply_operations, draw_operations
from .recolour import recolour_clips
from .sampling import segment_random_clip
from .spatial_crop import Box, draw_resized_crop_box, resized_crop

__all__ = ["LabelledClipAugmentation", "LabelledClipCollator"]


@dataclass(frozen=True)
class LabelledClipAugmentation:
    """What may happen to a clip that a classifier learns from."""

    decode_short_side: int | None = 256
    """Frames are scaled to this short side while they are decoded; None keeps the file's own size."""
    frames: Literal["view", "segments"] = "view"
    """"view": one of the clips that a test of `temporal_views` clips would take; "segments": a random frame
    of each of as many equal parts of the video as a clip has frames."""
    temporal_views: int = 10
    """Clips, evenly spread over the video, of which one is drawn; 1 takes the middle one."""
    random_operations: int = 0
    """RandAugment: operations that are drawn for a clip, half of which are skipped; 0 for none."""
    random_magnitude: float = 7.0
    """RandAugment: mean of their strength, from 0 to 10."""
    random_spread: float = 0.5
    """RandAugment: standard deviation of their strength."""
    crop_area: tuple[float, float] = (0.35, 1.0)
    """Share of the frame's area that is cut out."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of what is cut out, log-uniform."""
    flip_probability: float = 0.0
    """Of a mirrored clip; 0.5 is usual where left and right mean nothing."""
    jitter_probability: float = 0.0
    """Of other brightness, contrast, saturation and hue, in random order."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    """Largest turn of the hue either way; 0.5 is half a turn."""
    erase_probability: float = 0.0
    """Of a box that is filled with noise, anew in every frame."""
    blend_probability: float = 0.0
    """Of blending the clips of a batch with each other, by Mixup or CutMix."""
    cutmix_probability: float = 0.5
    """Share of blended batches that CutMix blends."""
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""

    def __post_init__(self) -> None:
        for name, high in (("crop_area", 1.0), ("crop_ratio", float("inf"))):
            value = tuple(getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
                raise ConfigurationError(
                    f"{name} must be two numbers (low, high) above 0 and at most {high}, got {value}"
                )
        shares = [field.name for field in fields(self) if field.name.endswith("_probability")]
        for name in (*shares, "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        check_jitter(self)
        if self.frames not in ("view", "segments"):
            raise ConfigurationError(f'frames must be "view" or "segments", got {self.frames!r}')
        if self.random_operations < 0 or self.random_spread < 0:
            raise ConfigurationError("random_operations and random_spread must not be negative")
        if not 0 <= self.random_magnitude <= LARGEST_MAGNITUDE:
            raise ConfigurationError(
                f"random_magnitude must lie in [0, {LARGEST_MAGNITUDE}], got {self.random_magnitude}"
            )
        if self.mixup_alpha <= 0 or self.cutmix_alpha <= 0:
            raise ConfigurationError("mixup_alpha and cutmix_alpha must be positive")
        if self.temporal_views < 1 or (self.decode_short_side or 1) < 1:
            raise ConfigurationError("temporal_views and decode_short_side must be at least 1")

    @property
    def softens_labels(self) -> bool:
        """Whether labels become probabilities."""
        return self.blend_probability > 0 or self.label_smoothing > 0


@dataclass(frozen=True)
class _Clip:
    """A decoded and augmented sample."""

    frames: Tensor
    """(frames, channels, height, width) float in [0, 1]."""
    label: int
    generator: torch.Generator
    """Source of every further choice for this sample."""


class LabelledClipCollator:
    """Undecoded samples to the arguments of a `ForVideoClassification`: `pixel_values_videos` (batch, frames,
    channels, height, width), and `labels` (batch,), or probabilities (batch, classes) where clips are blended
    or labels smoothed.

    In this order: frames, RandAugment, crop, flip, colour, normalisation, erasing, blending.

    What happens to a clip depends on its sample's seed alone; how a batch is blended, on that of its first.

    Args:
        config: of the model; says how many classes there are.
        processor: of the model; says which frames make a clip, and how large and in what form it goes in.
        augmentation: what may happen to a clip.
        loader: decodes, and deals with what cannot be decoded.
    """

    def __init__(
        self,
        config: Any,
        processor: Any,
        augmentation: LabelledClipAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.num_labels = config.num_labels
        self.video_processor = getattr(processor, "video_processor", processor)
        self.augmentation = augmentation or LabelledClipAugmentation()
        self.loader = loader or SampleLoader()

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Decode and augment a batch.

        Raises:
            DataError: a sample without a label of the model's classes, or too many bad samples.
            DecodeError, InputError: a bad sample, where the loader's policy is to raise.
        """
        clips = self.loader.load_batch(samples, self._decode)
        inputs = self.video_processor(
            [clip.frames for clip in clips],
            do_sample_frames=False,
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        videos, labels = inputs["pixel_values_videos"], torch.tensor([clip.label for clip in clips])
        for video, clip in zip(videos, clips, strict=True):
            self._erase(video, clip.generator)
        if self.augmentation.softens_labels:
            videos, labels = blend_batch(
                videos, labels, self.num_labels, self.augmentation, clips[0].generator
            )
        return {"pixel_values_videos": videos, "labels": labels}

    def _decode(self, sample: dict[str, Any], generator: torch.Generator) -> _Clip:
        label = sample.get("label")
        if label is None or not 0 <= label < self.num_labels:
            raise DataError(f"a label from 0 to {self.num_labels - 1} is needed, got {label!r}")
        augmentation = self.augmentation
        view, flip = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        with self.loader.open(sample, augmentation.decode_short_side) as video:
            frames = video.frames(self._frame_numbers(video.info, view, generator))
        operations = draw_operations(
            augmentation.random_operations,
            augmentation.random_magnitude,
            augmentation.random_spread,
            generator,
        )
        red, green, blue = (round(255 * share) for share in self.video_processor.image_mean)
        frames = apply_operations(frames, operations, (red, green, blue))
        height, width = frames.shape[1:3]
        area, ratio = augmentation.crop_area, augmentation.crop_ratio
        box = draw_resized_crop_box(height, width, area, ratio, generator)
        size = self.video_processor.crop_size
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        clips = resized_crop([clip], [box], (size["height"], size["width"])) / 255
        recolour_clips(clips, [self._draw(box, flip, generator)], steps=("flip", "jitter"))
        return _Clip(clips[0], int(label), generator)

    def _frame_numbers(self, info: Any, view: float, generator: torch.Generator) -> np.ndarray:
        """Which frames make the clip; `view` in [0, 1) says which view."""
        if self.augmentation.frames == "segments":
            return segment_random_clip(info.num_frames, self.video_processor.num_frames, generator=generator)
        count = self.augmentation.temporal_views
        views = self.video_processor.clip_indices(info.num_frames, info.fps, num_clips=count)
        return views[int(view * len(views))]

    def _draw(self, box: Box, flip: float, generator: torch.Generator) -> ClipDraw:
        """Whether the clip is mirrored, and its colours; `flip` in [0, 1) has been drawn."""
        augmentation = self.augmentation
        jitter, *numbers = torch.rand(9, generator=generator, dtype=torch.float64).tolist()
        jittered = jitter < augmentation.jitter_probability
        factors = jitter_factors(augmentation, numbers[:4], numbers[4:]) if jittered else ()
        return ClipDraw(box, flip=flip < augmentation.flip_probability, jitter=factors)

    def _erase(self, video: Tensor, generator: torch.Generator) -> None:
        """Fill a box of a normalised clip (frames, channels, height, width) with noise, in place."""
        erase = torch.rand((), generator=generator, dtype=torch.float64).item()
        box = draw_erased_box(video.shape[-2], video.shape[-1], generator)
        if box is not None and erase < self.augmentation.erase_probability:
            top, left, height, width = box
            part = video[..., top : top + height, left : left + width]
            part.copy_(torch.randn(part.shape, generator=generator))
