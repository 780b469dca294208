"""Training batches of TVTS: clips with K scripts each, or with one caption.

The scripts are cut first and the frames are spread over their whole span, so that clip and speech show the
same seconds. Everything drawn for a sample depends on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.augment import augment_clips
from ...data.cache import CachedVideo
from ...data.clip_draw import ClipDraw
from ...data.loading import SampleLoader
from ...data.sampling import segment_random_clip
from ...data.spatial_crop import Box, draw_crop_box, draw_resized_crop_box, short_side_size
from ...data.transcripts.readers import parse_transcript
from ...data.transcripts.scripts import draw_scripts, script_texts, script_windows
from ...data.transcripts.words import split_sentences
from ...errors import ConfigurationError, DataError
from .configuration_tvts import TVTSConfig
from .encoder_tvts import draw_kept
from .processing_tvts import TVTSProcessor
from .sampling_tvts import segment_frames, span_frames

__all__ = ["TVTSAugmentation", "TVTSCollator", "resize_clip"]


@dataclass(frozen=True)
class TVTSAugmentation:
    """What may happen to a sample; the defaults are those of the published run on narrated videos."""

    text: str = "transcript"
    """"transcript": K scripts of the column `transcript`; "caption": the column `caption`."""
    script_seconds: tuple[int, int] = (3, 5)
    """Shortest and longest script in whole seconds; one length is drawn a sample."""
    script_gap: int = 1
    """Seconds between two scripts; what is said there is lost."""
    min_words: int = 0
    """A sample with a script of fewer words is bad. The official code takes empty scripts as well."""
    shuffle_scripts: bool = True
    """Give the scripts in random order, with their true places; the loss is the same either way."""
    caption_frames: int = 4
    """Frames of a captioned clip. An image, or what is shorter than a tubelet, is repeated."""
    legacy_frame_rate: bool = False
    """Take the frames to be spread over the whole seconds of the video, as the official code does: frames
    then run ahead of the speech, by up to a second at the end."""
    crop: str = "short_side"
    """"short_side": the short side scaled to `resize_ratio` times the clip's size, then a random square;
    "resized": a random share of the frame's area."""
    resize_ratio: float = 1.2
    crop_area: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.0
    """Captions of images only: speech says left and right."""
    decode_short_side: int | None = None
    """Frames are scaled down to this short side while they are decoded; None keeps the file's own size."""

    def __post_init__(self) -> None:
        for name in ("script_seconds", "crop_area", "crop_ratio"):
            low, high = object.__getattribute__(self, name)
            object.__setattr__(self, name, (low, high))
            if not 0 < low <= high:
                raise ConfigurationError(
                    f"{name} must be two positive numbers, low and high, got {(low, high)}"
                )
        if self.text not in ("transcript", "caption") or self.crop not in ("short_side", "resized"):
            raise ConfigurationError(
                f"text must be 'transcript' or 'caption' and crop 'short_side' or 'resized', got"
                f" {self.text!r} and {self.crop!r}"
            )
        if self.script_gap < 0 or self.min_words < 0 or self.caption_frames < 1 or self.crop_area[1] > 1:
            raise ConfigurationError(
                "script_gap and min_words must not be negative, caption_frames must be at least 1 and"
                " crop_area at most 1"
            )
        if not self.resize_ratio >= 1 or not 0 <= self.flip_probability <= 1:
            raise ConfigurationError("resize_ratio must be at least 1 and flip_probability within [0, 1]")
        if self.decode_short_side is not None and self.decode_short_side < 1:
            raise ConfigurationError("decode_short_side must be at least 1 pixel")


@dataclass(frozen=True)
class _Sample:
    """A decoded sample."""

    frames: Tensor
    """(frames, channels, height, width) uint8, resized."""
    box: Box
    flip: bool
    texts: list[str]
    places: Tensor
    """(scripts,) int64: the place in time of each text."""
    kept: Tensor
    """(tubelets, kept) int64."""


class TVTSCollator:
    """Undecoded samples to the arguments of `TVTSForPreTraining.forward`.

    Args:
        config: of the model; says frames, sizes, scripts and mask.
        processor: of the model, with its tokenizer; gives normalisation and tokens.
        augmentation: what may happen to a sample.
        loader: decodes, and deals with what cannot be decoded.

    Raises:
        ConfigurationError: a processor without tokenizer, or settings that do not go together.
    """

    def __init__(
        self,
        config: TVTSConfig,
        processor: TVTSProcessor,
        augmentation: TVTSAugmentation | None = None,
        loader: SampleLoader | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.augmentation = augmentation or TVTSAugmentation()
        self.loader = loader or SampleLoader()
        if processor.tokenizer is None:
            raise ConfigurationError(
                "training needs the tokenizer of the text tower: set processor.tokenizer to its folder or"
                " Hub id"
            )
        frames = self.augmentation.caption_frames
        if self.augmentation.text == "caption" and (
            frames > config.num_frames or frames % config.tubelet_size
        ):
            raise ConfigurationError(
                f"caption_frames={frames} must be a multiple of tubelet_size={config.tubelet_size} and at"
                f" most num_frames={config.num_frames}"
            )

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Decode and augment a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            - pixel_values_videos: (batch, frames, channels, height, width) float.
            - input_ids, attention_mask: (batch, scripts, tokens), or of captions (batch, tokens).
            - script_positions: (batch, scripts) int64; not with captions.
            - keep_indices: (batch, tubelets, kept) int64; not without a mask.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
            ConfigurationError: transcripts that are not prepared.
        """
        loaded = self.loader.load_batch(samples, self._load)
        normalisation = self.processor.video_processor
        batch = {
            "pixel_values_videos": augment_clips(
                [sample.frames for sample in loaded],
                [ClipDraw(box=sample.box, flip=sample.flip) for sample in loaded],
                self.config.image_size,
                mean=normalisation.image_mean,
                std=normalisation.image_std,
            )
        }
        if self.augmentation.text == "caption":
            batch |= self.processor(text=[sample.texts[0] for sample in loaded])
        else:
            batch |= self.processor(text=[sample.texts for sample in loaded])
            batch["script_positions"] = torch.stack([sample.places for sample in loaded])
        if self.config.mask_ratio > 0:
            batch["keep_indices"] = torch.stack([sample.kept for sample in loaded])
        return batch

    def _load(self, sample: dict[str, Any], generator: torch.Generator) -> _Sample:
        settings = self.augmentation
        with self.loader.open(sample, settings.decode_short_side) as video:
            if settings.text == "caption":
                texts, indices = [_caption(sample)], self._caption_frames(video, generator)
            else:
                texts, indices = self._scripts(sample, video, generator)
            frames = torch.from_numpy(video.frames(indices)).permute(0, 3, 1, 2)
        frames, box = self._crop(frames, generator)
        flip = torch.rand((), generator=generator).item() < settings.flip_probability
        places = torch.arange(len(texts))
        if settings.shuffle_scripts:
            places = torch.randperm(len(texts), generator=generator)
        return _Sample(
            frames, box, flip, [texts[place] for place in places], places, self._mask(frames, generator)
        )

    def _scripts(
        self, sample: dict[str, Any], video: CachedVideo, generator: torch.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Scripts in their true order, and the frames of their span."""
        settings, config = self.augmentation, self.config
        if sample.get("transcript") is None:
            raise DataError("the sample has no transcript: the column 'transcript' is missing or empty")
        if isinstance(sample["transcript"], Mapping):
            # Aligning one can take seconds, which is no work for every draw of every clip.
            raise ConfigurationError(
                "the column 'transcript' holds raw annotations instead of words with times: make them once"
                " with `videossl prepare SOURCE --transcripts --output FOLDER` and train on that folder"
            )
        words = split_sentences(parse_transcript(sample["transcript"]))
        seconds = video.info.num_frames / video.info.fps
        duration = int(seconds)
        draw = draw_scripts(
            duration, config.num_scripts, generator, settings.script_seconds, settings.script_gap
        )
        windows = script_windows(duration, draw, config.num_scripts, settings.script_gap)
        texts = script_texts(words, windows, settings.min_words)
        fps = video.info.num_frames / (duration if settings.legacy_frame_rate else seconds)
        first, length = span_frames(windows[0, 0], windows[-1, 1], fps)
        indices = first + segment_frames(max(1, length), config.num_frames, generator)
        return texts, np.minimum(indices, video.info.num_frames - 1)

    def _caption_frames(self, video: CachedVideo, generator: torch.Generator) -> np.ndarray:
        """One random frame of each part of the video; an image is one tubelet."""
        if video.info.num_frames == 1:
            return np.zeros(self.config.tubelet_size, dtype=np.int64)
        return segment_random_clip(
            video.info.num_frames, self.augmentation.caption_frames, generator=generator
        )

    def _crop(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Box]:
        settings, size = self.augmentation, self.config.image_size
        if settings.crop == "short_side":
            frames = resize_clip(frames, int(settings.resize_ratio * size))
            return frames, draw_crop_box(frames.shape[-2], frames.shape[-1], size, generator)
        height, width = frames.shape[-2:]
        return frames, draw_resized_crop_box(
            height, width, settings.crop_area, settings.crop_ratio, generator
        )

    def _mask(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        tubelets = len(frames) // self.config.tubelet_size
        return draw_kept(self.config, 1, tubelets, self.config.num_places, generator, torch.device("cpu"))[0]


def _caption(sample: dict[str, Any]) -> str:
    caption = sample.get("caption")
    if not isinstance(caption, str):
        raise DataError(f"the sample has no caption: the column 'caption' holds {caption!r:.60}")
    return caption


def resize_clip(frames: Tensor, short_side: int) -> Tensor:
    """Scale the short side, smoothed as Pillow does it: `(frames, channels, height, width)` uint8 to the
    same."""
    size = short_side_size(frames.shape[-2], frames.shape[-1], short_side)
    resized = F.interpolate(frames.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
