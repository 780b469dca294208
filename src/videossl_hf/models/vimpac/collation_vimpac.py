"""Training batches of VIMPAC: two clips of each video and the masks of both, from stored codes or from files.

As published there is no augmentation of pixels: two random clips, the centre of each frame, random masks.
A sample with a `codes` column is not decoded. Otherwise its file is opened once, and its frames are the ones
that tokenising the whole video would have stored, so that both routes train on the same codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...data.loading import SampleLoader
from ...errors import ConfigurationError, DataError
from .clips_vimpac import PADDING, frame_step, random_clips, stored_frames, take_clips
from .configuration_vimpac import VIMPACConfig
from .masking_vimpac import MaskDraws, draw_mask_numbers, find_masked_positions, make_masks
from .processing_vimpac import VIMPACProcessor, checked_codes

__all__ = ["VIMPACAugmentation", "VIMPACCollator"]


@dataclass(frozen=True)
class VIMPACAugmentation:
    """How the two clips of a video are taken."""

    largest_distance: float | None = None
    """Largest distance in seconds between the starts of the two clips; None: anywhere in the video."""
    codes_fps: float | None = None
    """Frames a second of the column `codes`; None: the rate of the clips."""
    use_codes: bool = True
    """Take the column `codes` where there is one, instead of the file."""

    def __post_init__(self) -> None:
        if self.largest_distance is not None and self.largest_distance < 0:
            raise ConfigurationError(f"largest_distance must not be negative, got {self.largest_distance}")
        if self.codes_fps is not None and not self.codes_fps > 0:
            raise ConfigurationError(f"codes_fps must be positive, got {self.codes_fps}")


class _Sample(NamedTuple):
    """One video: its clips as codes (clips, frames, rows, columns) or as pixels, and what of them is real."""

    codes: Tensor | None
    pixels: Tensor | None
    frame_mask: Tensor
    draws: MaskDraws


class VIMPACCollator:
    """Undecoded samples to the arguments of `VIMPACForPreTraining.forward`.

    Clips and masks of a sample depend on its seed alone: neither on the other samples of the batch nor on the
    number of workers, nor on whether its codes were stored before.

    Args:
        config: of the model; says frames, rate, size and masks.
        processor: of the model. With a tokeniser it makes the codes here; without one, files come out as
            pixels, for a model that has its own.
        augmentation: how clips are taken.
        loader: decodes, and deals with what cannot be decoded.

    Raises:
        ConfigurationError: processor and configuration disagree.
    """

    def __init__(
        self,
        config: VIMPACConfig,
        processor: VIMPACProcessor,
        augmentation: VIMPACAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.augmentation = augmentation or VIMPACAugmentation()
        self.loader = loader or SampleLoader()
        for name in ("num_frames", "fps", "num_codes", "pad_code"):
            if getattr(processor.video_processor, name) != getattr(config, name):
                raise ConfigurationError(
                    f"the processor's {name} is {getattr(processor.video_processor, name)}, but the model's"
                    f" is {getattr(config, name)}: make them equal"
                )

    @property
    def num_clips(self) -> int:
        """Clips of a video: two, or one without the contrastive loss."""
        return 2 if self.config.contrastive_weight else 1

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Load a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            - input_codes, second_input_codes: (batch, frames, rows, columns) int64; or, from files without a
              tokeniser, pixel_values_videos, second_pixel_values_videos (batch, frames, channels, height,
              width), and frame_mask, second_frame_mask (batch, frames).
            - mask, second_mask: (batch, frames, rows, columns) int64.
            - masked_positions: (masked,) int64.
            - has_padding: bool.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        loaded = self.loader.load_batch(samples, self._load)
        frame_mask = torch.stack([sample.frame_mask for sample in loaded], dim=1)
        batch: dict[str, Any] = {}
        if all(sample.codes is not None for sample in loaded):
            clips = torch.stack([sample.codes for sample in loaded if sample.codes is not None], dim=1)
            self._add(batch, "input_codes", clips)
        elif all(sample.pixels is not None for sample in loaded):
            pixels = torch.stack([sample.pixels for sample in loaded if sample.pixels is not None], dim=1)
            tokenizer = self.processor.tokenizer_model
            if tokenizer is None:
                self._add(batch, "pixel_values_videos", pixels)
                self._add(batch, "frame_mask", frame_mask)
            else:
                codes = tokenizer.encode(pixels).cpu()
                codes = torch.where(frame_mask[..., None, None], codes, self.config.pad_code or 0)
                self._add(batch, "input_codes", codes)
        else:
            raise DataError("some samples of a batch have codes and some have none: store those of all")
        masks = torch.stack([make_masks(self.config, sample.draws) for sample in loaded], dim=1)
        self._add(batch, "mask", masks)
        batch["masked_positions"] = find_masked_positions(masks)
        batch["has_padding"] = not bool(frame_mask.all())
        return batch

    @staticmethod
    def _add(batch: dict[str, Any], name: str, clips: Tensor) -> None:
        """`clips` (clips, batch, ...) as one entry a clip."""
        batch.update(zip((name, f"second_{name}"), clips, strict=False))

    def _load(self, sample: dict[str, Any], generator: torch.Generator) -> _Sample:
        if self.augmentation.use_codes and sample.get("codes") is not None:
            codes, frames = self._from_codes(sample["codes"], generator)
            pixels = None
        else:
            pixels, frames = self._from_file(sample, generator)
            codes = None
        draws = draw_mask_numbers(self.config, self.num_clips, generator)
        return _Sample(codes, pixels, torch.from_numpy(frames != PADDING), draws)

    def _from_codes(self, stored: Any, generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
        codes = checked_codes(stored, self.config.num_codes)
        if codes.shape[1:] != self.config.grid[1:]:
            raise DataError(
                f"the stored codes are {codes.shape[1]} x {codes.shape[2]}, the model takes"
                f" {self.config.grid[1]} x {self.config.grid[2]}: set image_size, or store them anew"
            )
        rate = self.augmentation.codes_fps or self.config.fps
        frames = self._clips(len(codes), rate, generator)
        return torch.from_numpy(take_clips(codes, frames, self.config.pad_code or 0)), frames

    def _from_file(self, sample: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
        short_side = min(self.config.frame_size)
        rate = self.augmentation.codes_fps or self.config.fps
        with self.loader.open(sample, short_side) as video:
            numbers = stored_frames(video.frame_times, 1 / video.info.fps, rate)
            frames = self._clips(len(numbers), rate, generator)
            pixels = torch.from_numpy(video.frames(numbers[np.maximum(frames, 0)].flatten()))
        clips = list(pixels.unflatten(0, frames.shape))
        video_processor = self.processor.video_processor
        settings = video_processor._settings({})
        views = [video_processor._pixels(clip, settings)[0] for clip in clips]
        return torch.stack(views), frames

    def _clips(self, num_frames: int, rate: float, generator: torch.Generator) -> np.ndarray:
        """Frame numbers (clips, frames) among the stored frames."""

        def draw(low: int, high: int) -> int:
            return low + int(torch.randint(high - low + 1, (), generator=generator))

        distance = self.augmentation.largest_distance
        return random_clips(
            num_frames,
            self.config.num_frames,
            frame_step(rate, self.config.fps),
            self.num_clips,
            draw,
            None if distance is None else round(distance * rate),
        )
