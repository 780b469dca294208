"""Training batches of ILA: one clip a sample with frames from all over the video, blended with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from ...data.augment import crop_clips, normalize_clips
from ...data.blending import blend_batch
from ...data.clip_draw import ClipDraw
from ...data.erasing import draw_erased_box
from ...data.jitter import check_jitter, jitter_factors
from ...data.loading import SampleLoader
from ...data.multi_scale_crop import draw_multi_scale_box
from ...data.recolour import recolour_clips
from ...data.rounded_segments import random_rounded_clip
from ...data.spatial_crop import Box
from ...errors import ConfigurationError, DataError
from .configuration_ila import ILAConfig
from .processing_ila import ILAProcessor

__all__ = ["ILAAugmentation", "ILACollator", "draw_view"]


@dataclass(frozen=True)
class ILAAugmentation:
    """What may happen to a clip; the defaults are those of the published runs, but for two things.

    The official code never flips, on Kinetics-400 perhaps by oversight: set `flip_probability` to 0.5 where
    left and right mean nothing. And it draws the colours of each frame anew; here a clip keeps its own. A
    probability or a strength of 0 switches a step off.
    """

    decode_short_side: int | None = 256
    """Frames are scaled to this short side while they are decoded (384 for 336 pixels); None keeps the
    file's own size."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of the crop as shares of the short side."""
    flip_probability: float = 0.0
    jitter_probability: float = 0.8
    """Of brightness, contrast, saturation and hue together, in random order."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    """Largest turn of the hue either way; 0.5 is half a turn."""
    gray_probability: float = 0.2
    erase_probability: float = 0.25
    """Of blanking a box of the frame."""
    blend_probability: float = 1.0
    """Of blending the clips of a batch with each other, by Mixup or CutMix."""
    cutmix_probability: float = 0.5
    """Share of blended batches that CutMix blends."""
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""

    def __post_init__(self) -> None:
        if isinstance(self.scales, list):
            object.__setattr__(self, "scales", tuple(self.scales))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability") and not 0 <= value <= 1:
                raise ConfigurationError(f"{field.name} must lie in [0, 1], got {value}")
        check_jitter(self)
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigurationError(f"label_smoothing must lie in [0, 1], got {self.label_smoothing}")
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigurationError(f"scales must lie in (0, 1], got {self.scales}")
        if self.mixup_alpha <= 0 or self.cutmix_alpha <= 0:
            raise ConfigurationError(
                f"mixup_alpha and cutmix_alpha must be positive, got {self.mixup_alpha}, {self.cutmix_alpha}"
            )
        if self.decode_short_side is not None and self.decode_short_side < 1:
            raise ConfigurationError("decode_short_side must be at least 1 pixel")


def draw_view(
    augmentation: ILAAugmentation, height: int, width: int, size: int, generator: torch.Generator
) -> tuple[ClipDraw, Box | None]:
    """Every random choice for one clip: crop and colours, and the box to blank.

    Args:
        augmentation: what may happen.
        height, width: of the decoded frames.
        size: side of the square that comes out.
        generator: the sample's own. It advances by the same amount whatever is switched on.
    """
    box = draw_multi_scale_box(height, width, size, augmentation.scales, generator)
    numbers = torch.rand(12, generator=generator, dtype=torch.float64).tolist()
    flip, jitter, gray, erase, *rest = numbers
    jittered = jitter < augmentation.jitter_probability
    erased = draw_erased_box(size, size, generator)
    draw = ClipDraw(
        box=box,
        flip=flip < augmentation.flip_probability,
        jitter=jitter_factors(augmentation, rest[:4], rest[4:]) if jittered else (),
        gray=gray < augmentation.gray_probability,
    )
    return draw, erased if erase < augmentation.erase_probability else None


@dataclass(frozen=True)
class _Clip:
    """A decoded sample."""

    frames: torch.Tensor
    """(frames, channels, height, width) uint8."""
    label: int
    generator: torch.Generator
    """Source of every further choice for this sample."""


class ILACollator:
    """Undecoded samples to the arguments of `ILAForVideoClassification.forward`.

    What happens to a clip depends on its sample's seed alone; how a batch is blended, on that of its first.

    Args:
        config: of the model; says frames, size and number of classes.
        processor: of the model; gives the normalisation.
        augmentation: what may happen to a clip.
        loader: decodes, and deals with what cannot be decoded.
    """

    def __init__(
        self,
        config: ILAConfig,
        processor: ILAProcessor,
        augmentation: ILAAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.augmentation = augmentation or ILAAugmentation()
        self.loader = loader or SampleLoader()

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Decode and augment a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`, with the column `label`.

        Returns:
            - pixel_values_videos: (batch, frames, channels, side, side) float.
            - labels: (batch, classes) probabilities.

        Raises:
            DataError: a sample without a label of the model's classes, or too many bad samples.
            DecodeError, InputError: a bad sample, where the loader's policy is to raise.
        """
        clips = self.loader.load_batch(samples, self._decode)
        size, normalisation = self.config.image_size, self.processor.video_processor
        views = []
        for clip in clips:
            height, width = clip.frames.shape[-2:]
            views.append(draw_view(self.augmentation, height, width, size, clip.generator))
        draws = [draw for draw, _ in views]
        videos = crop_clips([clip.frames for clip in clips], draws, size)
        recolour_clips(videos, draws, steps=("flip", "jitter", "gray"))
        videos = normalize_clips(videos, normalisation.image_mean, normalisation.image_std)
        for video, (_, erased) in zip(videos, views, strict=True):
            if erased is not None:
                top, left, height, width = erased
                video[..., top : top + height, left : left + width] = 0
        labels = torch.tensor([clip.label for clip in clips])
        videos, labels = blend_batch(
            videos, labels, self.config.num_labels, self.augmentation, clips[0].generator
        )
        return {"pixel_values_videos": videos, "labels": labels}

    def _decode(self, sample: dict[str, Any], generator: torch.Generator) -> _Clip:
        label = sample.get("label")
        if label is None or not 0 <= label < self.config.num_labels:
            raise DataError(f"a label from 0 to {self.config.num_labels - 1} is needed, got {label!r}")
        with self.loader.open(sample, self.augmentation.decode_short_side) as video:
            indices = random_rounded_clip(video.info.num_frames, self.config.num_frames, generator=generator)
            frames = torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2)
        return _Clip(frames, int(label), generator)
