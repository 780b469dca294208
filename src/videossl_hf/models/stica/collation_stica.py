"""Training batches of STiCA and GDT: one clip a sample, augmented twice, and the sound that goes with it.

The file is opened and decoded once a sample. Both views are made from the same frames, each with its own
random choices; the sound starts where the clip starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...data.augment import ClipAugmentation, augment_clips, draw_clip
from ...data.cache import CachedVideo
from ...data.clip_draw import ClipDraw
from ...data.loading import SampleLoader
from ...data.sampling import stica_clip_length, stica_clip_span, stica_frame_indices
from ...data.spec_augment import SPEC_AUGMENT, draw_spec_masks, fill_masks
from ...errors import ConfigurationError, DataError
from .configuration_stica import STiCAConfig
from .processing_stica import STiCAProcessor

__all__ = ["STiCAAugmentation", "STiCACollator"]


@dataclass(frozen=True)
class STiCAAugmentation(ClipAugmentation):
    """What may happen to a clip and its sound; the defaults are those of the published STiCA run."""

    decode_short_side: int | None = 256
    """Frames are scaled down to this short side while they are decoded; None keeps the file's own size."""
    volume: float = 0.1
    """The sound is multiplied by a factor within 1 +- this."""
    sound_shift: float = 0.0
    """Largest distance in seconds, either way, between the starts of sound and clip."""
    spec_augment: str | None = None
    """"mild", "medium" (GDT) or "heavy" masks on the spectrogram; None for none (STiCA)."""
    reject_short: bool = False
    """A video that is shorter than the clip or its sound is a bad sample; otherwise it repeats its last frame
    and its sound is padded with silence."""
    small_size: int = 64
    """Side of the small views in pixels, used with the configuration's crop_space "input". The official code
    takes 96 with "short_side" crops."""
    small_area: tuple[float, float] = (0.05, 0.14)
    """Share of the frame's area that small views cut out of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.small_area
        if not 0 < low <= high <= 1:
            raise ConfigurationError(f"small_area must be (low, high) within (0, 1], got {self.small_area}")
        if not 0 <= self.volume < 1 or self.sound_shift < 0:
            raise ConfigurationError(
                "volume must lie in [0, 1) and sound_shift must not be negative, "
                f"got {self.volume} and {self.sound_shift}"
            )
        if self.spec_augment is not None and self.spec_augment not in SPEC_AUGMENT:
            raise ConfigurationError(
                f"spec_augment must be one of {', '.join(SPEC_AUGMENT)} or null, got {self.spec_augment!r}"
            )
        if self.small_size < 1 or (self.decode_short_side is not None and self.decode_short_side < 1):
            raise ConfigurationError("small_size and decode_short_side must be at least 1 pixel")


@dataclass(frozen=True)
class _Clip:
    """A decoded sample: what the augmentations of all its views start from."""

    frames: torch.Tensor
    """(frames, channels, height, width) uint8."""
    sound: np.ndarray | None
    """(samples,) int16."""
    generator: torch.Generator
    """Source of every further choice for this sample."""


class STiCACollator:
    """Undecoded samples to the arguments of `STiCAForPreTraining.forward`.

    Which frames and what is done to them depends on each sample's seed alone: neither on the other samples of
    the batch nor on the number of workers.

    Args:
        config: of the model; says frames, rate, sizes, objective and where crops are taken.
        processor: of the model; gives normalisation and spectrograms.
        augmentation: what may happen to a clip.
        loader: decodes, and deals with what cannot be decoded.

    Raises:
        ConfigurationError: processor and configuration disagree about the sound.
    """

    def __init__(
        self,
        config: STiCAConfig,
        processor: STiCAProcessor,
        augmentation: STiCAAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.augmentation = augmentation or STiCAAugmentation()
        self.loader = loader or SampleLoader()
        extractor = processor.feature_extractor
        for name in ("num_mel_bins", "audio_seconds"):
            if config.use_audio and getattr(extractor, name) != getattr(config, name):
                raise ConfigurationError(
                    f"the processor's {name} is {getattr(extractor, name)}, but the model's is "
                    f"{getattr(config, name)}: make them equal"
                )

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Decode and augment a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            - pixel_values_videos: (batch, frames, channels, height, width) float, view 1.
            - second_pixel_values_videos: the same of view 2; not for the objective "gdt".
            - input_features: (batch, 1, mel, time) float; not without a sound tower.
            - small_pixel_values_videos: (batch, views, frames, channels, small, small); only with crops of
              the input.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        clips = self.loader.load_batch(samples, self._decode)
        batch = self._views(clips)
        if self.config.use_audio:
            batch["input_features"] = self._spectrograms(clips)
        return batch

    def _decode(self, sample: dict[str, Any], generator: torch.Generator) -> _Clip:
        config = self.config
        with self.loader.open(sample, self.augmentation.decode_short_side) as video:
            info = video.info
            length = stica_clip_length(config.num_frames, info.fps, target_fps=config.fps)
            start, _ = stica_clip_span(info.num_frames, length, generator=generator)
            indices = stica_frame_indices(info.num_frames, length, config.num_frames, start=start)
            if self.augmentation.reject_short:
                self._check_duration(video)
            sound = self._sound(sample, video, start, generator) if config.use_audio else None
            frames = torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2)
        return _Clip(frames, sound, generator)

    def _check_duration(self, video: CachedVideo) -> None:
        needed = self.config.num_frames / self.config.fps
        if self.config.use_audio:
            needed = max(needed, self.config.audio_seconds)
        # Half a frame of tolerance: durations are rounded to frames.
        if _duration(video) + 0.5 / video.info.fps < needed:
            raise DataError(f"the video lasts {_duration(video):.2f} s, but {needed:.2f} s are needed")

    def _sound(
        self, sample: dict[str, Any], video: CachedVideo, start: float, generator: torch.Generator
    ) -> np.ndarray:
        """The sound from the clip's start on; moved back where it would run over the end of the video."""
        seconds = self.config.audio_seconds
        times = video.frame_times
        begin = float(np.interp(start, np.arange(len(times)), times))
        shift = 2 * torch.rand((), generator=generator, dtype=torch.float64).item() - 1
        begin += shift * self.augmentation.sound_shift
        begin = max(0.0, min(begin, _duration(video) - seconds))
        rate = self.processor.feature_extractor.sampling_rate
        return self.loader.audio(sample, video, begin, seconds, rate)

    def _views(self, clips: Sequence[_Clip]) -> dict[str, torch.Tensor]:
        """All views of the large size in one go, and all small ones."""
        config = self.config
        names = ["pixel_values_videos"]
        if config.objective != "gdt":
            names.append("second_pixel_values_videos")
        views = self._augment(clips, len(names), config.image_size, self.augmentation)
        batch = dict(zip(names, views, strict=True))
        if config.crop_space == "input" and config.space_small_crops and config.objective != "gdt":
            small = self._augment(
                clips, config.space_small_crops, self.augmentation.small_size, self._small_augmentation
            )
            batch["small_pixel_values_videos"] = torch.stack(small, dim=1)
        return batch

    @property
    def _small_augmentation(self) -> STiCAAugmentation:
        return replace(self.augmentation, crop_area=self.augmentation.small_area)

    def _augment(
        self, clips: Sequence[_Clip], views: int, size: int, augmentation: ClipAugmentation
    ) -> list[torch.Tensor]:
        """`views` tensors of (batch, frames, channels, size, size)."""
        draws: list[ClipDraw] = []
        for _ in range(views):
            for clip in clips:
                height, width = clip.frames.shape[-2:]
                draws.append(draw_clip(augmentation, height, width, size, clip.generator))
        normalisation = self.processor.video_processor
        video = augment_clips(
            [clip.frames for clip in clips] * views,
            draws,
            size,
            mean=normalisation.image_mean,
            std=normalisation.image_std,
            blur_kernel=augmentation.blur_kernel,
            legacy=augmentation.legacy_augmentations,
        )
        return list(video.split(len(clips)))

    def _spectrograms(self, clips: Sequence[_Clip]) -> torch.Tensor:
        volume = self.augmentation.volume
        waveforms = []
        for clip in clips:
            assert clip.sound is not None
            draw = torch.rand((), generator=clip.generator, dtype=torch.float64).item()
            waveforms.append(clip.sound * ((1 + volume * (2 * draw - 1)) / 32768))
        features = self.processor.feature_extractor(waveforms, unit_scale=True)["input_features"]
        if self.augmentation.spec_augment is None:
            return features
        masks = [
            draw_spec_masks(
                self.augmentation.spec_augment,
                features.shape[-2],
                features.shape[-1],
                clip.generator,
                legacy_width=self.augmentation.legacy_augmentations,
            )
            for clip in clips
        ]
        return fill_masks(features, masks)


def _duration(video: CachedVideo) -> float:
    """Seconds from the first frame to the end of the last one."""
    return float(video.frame_times[-1]) + 1 / video.info.fps
