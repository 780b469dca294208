"""Training batches of VideoMoCo: a query and a key view of every clip.

The file is opened and decoded once a sample. By default both views are made of the same frames, as in the
official code; they differ in crop and colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...data.augment import ClipAugmentation, crop_clips, draw_box, normalize_clips
from ...data.clip_draw import ClipDraw
from ...data.jitter import jitter_factors
from ...data.loading import SampleLoader
from ...data.recolour import SHIFTED_COLOURS, recolour_clips
from ...data.sampling import dense_clip, source_stride
from ...errors import ConfigurationError, DataError
from .configuration_videomoco import VideoMoCoConfig
from .processing_videomoco import VideoMoCoProcessor

__all__ = ["VideoMoCoAugmentation", "VideoMoCoCollator", "draw_view"]

GRAY_FIRST = ("gray", "jitter", "blur", "flip")
"""Steps of the official `MoCoAugment`; it has no blur."""
JITTER_FIRST = ("jitter", "gray", "blur", "flip")
"""Steps of the official `MoCoAugmentV2`."""


@dataclass(frozen=True)
class VideoMoCoAugmentation(ClipAugmentation):
    """What may happen to a view; the defaults are those of the official `MoCoAugment`, per clip.

    `VideoMoCoAugmentation.v2()` are those of its `MoCoAugmentV2`, after MoCo v2 (arXiv 2003.04297).
    """

    crop_area: tuple[float, float] = (0.2, 1.0)
    jitter_probability: float = 1.0
    """Of brightness, contrast, saturation and hue together, in random order."""
    hue: float = 0.4
    """Largest turn of the hue either way; 0.5 is half a turn."""
    blur_probability: float = 0.0
    gray_first: bool = True
    """Gray before the jitter, which then gives no more colour to a gray clip; else after it."""
    per_frame: bool = False
    """Draw flip, gray and the factors of the jitter for each frame by itself, as the official code does.
    Flips then come and go within a clip. Whether to jitter or blur, the order of the jitter and the blur's
    width stay the same over a clip (in the official code over a batch)."""
    legacy_augmentations: bool = False
    """Colours as in kornia 0.4, of the official code's time: brightness is added, contrast multiplies,
    saturation is scaled in HSV. Otherwise as in torchvision and newer kornia."""
    clips_per_video: int = 1
    """1: query and key are views of the same frames; 2: each of its own clip of the video."""
    decode_short_side: int | None = 256
    """Frames are scaled down to this short side while they are decoded; None keeps the file's own size."""
    reject_short: bool = False
    """A video that is shorter than the clip is a bad sample; otherwise it repeats its last frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hue <= 0.5:
            raise ConfigurationError(f"hue must lie in [0, 0.5], got {self.hue}")
        if self.clips_per_video not in (1, 2):
            raise ConfigurationError(f"clips_per_video must be 1 or 2, got {self.clips_per_video}")
        if self.decode_short_side is not None and self.decode_short_side < 1:
            raise ConfigurationError("decode_short_side must be at least 1 pixel")

    @classmethod
    def v2(cls, **changes: Any) -> VideoMoCoAugmentation:
        """The official `MoCoAugmentV2`: jitter in four of five clips, with less hue, then gray, then blur."""
        preset = {"gray_first": False, "jitter_probability": 0.8, "hue": 0.1, "blur_probability": 0.5}
        return cls(**(preset | changes))

    @property
    def steps(self) -> tuple[str, ...]:
        """Order of the colour steps, for `recolour_clips`."""
        return GRAY_FIRST if self.gray_first else JITTER_FIRST


def draw_view(
    augmentation: VideoMoCoAugmentation,
    height: int,
    width: int,
    size: int,
    num_frames: int,
    generator: torch.Generator,
) -> list[ClipDraw]:
    """Every random choice for one view of a clip: one draw for all frames or, with `per_frame`, one a frame.

    Args:
        augmentation: what may happen.
        height, width: of the decoded frames.
        size: side of the square that comes out.
        num_frames: of the clip.
        generator: the sample's own. It advances by the same amount whatever is switched on.
    """
    once = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    each = torch.rand(num_frames, 6, generator=generator, dtype=torch.float64).tolist()
    side, jitter, blur, sigma, *priorities = once
    resize, box = draw_box(augmentation, height, width, size, side, generator)
    low, high = augmentation.blur_sigma
    sigmas = (low + (high - low) * sigma,) * 2 if blur < augmentation.blur_probability else None

    def factors(strengths: Sequence[float]) -> tuple[tuple[str, float], ...]:
        jittered = jitter < augmentation.jitter_probability
        return jitter_factors(augmentation, strengths, priorities) if jittered else ()

    return [
        ClipDraw(
            box=box,
            resize=resize,
            flip=flip < augmentation.flip_probability,
            jitter=factors(strengths),
            gray=gray < augmentation.gray_probability,
            blur=sigmas,
        )
        for flip, gray, *strengths in (each if augmentation.per_frame else each[:1])
    ]


@dataclass(frozen=True)
class _Clips:
    """A decoded sample: the frames of its query and of its key view, and the source of further choices."""

    frames: list[torch.Tensor]
    """Two tensors (frames, channels, height, width) uint8; one and the same if the views share them."""
    generator: torch.Generator


class VideoMoCoCollator:
    """Undecoded samples to the arguments of `VideoMoCoForPreTraining.forward`.

    Which frames and what is done to them depends on each sample's seed alone: neither on the other samples of
    the batch nor on the number of workers.

    Args:
        config: of the model; says frames, their distance, and size.
        processor: of the model; gives normalisation.
        augmentation: what may happen to a view.
        loader: decodes, and deals with what cannot be decoded.
    """

    def __init__(
        self,
        config: VideoMoCoConfig,
        processor: VideoMoCoProcessor,
        augmentation: VideoMoCoAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.augmentation = augmentation or VideoMoCoAugmentation()
        self.loader = loader or SampleLoader()

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Decode and augment a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            - pixel_values_videos: (batch, frames, channels, height, width) float, the query views.
            - second_pixel_values_videos: the same of the key views.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        clips = self.loader.load_batch(samples, self._decode)
        views = [self._augment([clip.frames[view] for clip in clips], clips) for view in range(2)]
        return {"pixel_values_videos": views[0], "second_pixel_values_videos": views[1]}

    def _decode(self, sample: dict[str, Any], generator: torch.Generator) -> _Clips:
        length, stride = self.config.num_frames, float(self.config.frame_stride)
        with self.loader.open(sample, self.augmentation.decode_short_side) as video:
            info = video.info
            if self.config.fps is not None:
                stride = source_stride(info.fps, self.config.fps, stride)
            needed = int((length - 1) * stride + 1e-6) + 1
            if self.augmentation.reject_short and info.num_frames < needed:
                raise DataError(f"the video has {info.num_frames} frames, but a clip needs {needed}")
            frames = []
            for _ in range(self.augmentation.clips_per_video):
                indices = dense_clip(info.num_frames, length, stride, generator=generator)
                frames.append(torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2))
        return _Clips([frames[0], frames[-1]], generator)

    def _augment(self, frames: Sequence[torch.Tensor], clips: Sequence[_Clips]) -> torch.Tensor:
        """One view of every clip: (batch, frames, channels, size, size)."""
        size, augmentation = self.config.image_size, self.augmentation
        draws = []
        for own, clip in zip(frames, clips, strict=True):
            length, _, height, width = own.shape
            draws.append(draw_view(augmentation, height, width, size, length, clip.generator))
        video = crop_clips(frames, [of_clip[0] for of_clip in draws], size)
        recolour_clips(
            # A view of the same memory: what is done to it is done to the clips.
            video.flatten(0, 1).unsqueeze(1) if augmentation.per_frame else video,
            [draw for of_clip in draws for draw in of_clip],
            steps=augmentation.steps,
            colours=SHIFTED_COLOURS if augmentation.legacy_augmentations else None,
            blur_kernel=augmentation.blur_kernel,
        )
        normalisation = self.processor.video_processor
        return normalize_clips(video, normalisation.image_mean, normalisation.image_std)
