"""Training batches of a tokeniser: single frames of each video, cut and flipped as DALL-E's were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data.loading import SampleLoader
from ...data.spatial_crop import draw_crop_box, resize_frames, short_side_size
from ...errors import ConfigurationError
from .configuration_dvae import DVAEConfig
from .processing_dvae import DVAEProcessor

__all__ = ["DVAEAugmentation", "DVAECollator"]


@dataclass(frozen=True)
class DVAEAugmentation:
    """Which frames of a video are taken, and how they are cut; the defaults are DALL-E's."""

    frames: int = 8
    """Frames of each video, drawn one by one; cut and flipped alike."""
    scale: tuple[float, float] = (9 / 8, 12 / 8)
    """Range of the short side before cutting, in sides of the cut; never larger than the video's own."""
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigurationError(f"frames must be at least 1, got {self.frames}")
        if len(self.scale) != 2 or not 1 <= self.scale[0] <= self.scale[1]:
            raise ConfigurationError(f"scale must be two numbers (low, high) from 1 on, got {self.scale}")
        if not 0 <= self.flip_probability <= 1:
            raise ConfigurationError(f"flip_probability must lie in [0, 1], got {self.flip_probability}")


class DVAECollator:
    """Undecoded samples to the argument of `DVAEForPreTraining.forward`.

    What is drawn for a sample depends on its seed alone.

    Args:
        config: of the model.
        processor: of the model; says how large a frame is.
        augmentation: which frames are taken, and how they are cut.
        loader: decodes, and deals with what cannot be decoded.

    Raises:
        ConfigurationError: frames that are no squares, or no multiple of 8 wide.
    """

    def __init__(
        self,
        config: DVAEConfig,
        processor: DVAEProcessor,
        augmentation: DVAEAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.video_processor = processor.video_processor
        self.augmentation = augmentation or DVAEAugmentation()
        self.loader = loader or SampleLoader()
        crop = self.video_processor.crop_size
        if crop["height"] != crop["width"] or crop["height"] % 8:
            raise ConfigurationError(f"crop_size must be a square with sides that are multiples of 8: {crop}")
        self.size = int(crop["height"])

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Load a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            pixel_values_videos: (batch, frames, channels, size, size) float32.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        return {"pixel_values_videos": torch.stack(self.loader.load_batch(samples, self._load))}

    def _load(self, sample: dict[str, Any], generator: torch.Generator) -> Tensor:
        augmentation = self.augmentation
        with self.loader.open(sample) as video:
            numbers = torch.randint(len(video.frame_times), (augmentation.frames,), generator=generator)
            frames = torch.from_numpy(video.frames(numbers.numpy())).permute(0, 3, 1, 2)
        height, width = frames.shape[-2:]
        # A frame smaller than the cut is enlarged to it.
        low, high = (max(self.size, min(round(s * self.size), height, width)) for s in augmentation.scale)
        short_side = low + int(torch.randint(high - low + 1, (), generator=generator))
        pixels = resize_frames(frames, short_side_size(height, width, short_side))
        height, width = pixels.shape[-2:]
        top, left, _, _ = draw_crop_box(height, width, self.size, generator)
        pixels = pixels[..., top : top + self.size, left : left + self.size]
        if float(torch.rand((), generator=generator)) < augmentation.flip_probability:
            pixels = pixels.flip(-1)
        settings = self.video_processor._settings({"do_resize": False, "do_center_crop": False})
        return self.video_processor._pixels((pixels / 255).permute(0, 2, 3, 1), settings)[0]
