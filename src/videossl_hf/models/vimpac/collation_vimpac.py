"""Training batches of VIMPAC: two clips of each video and the masks of both, from stored codes or from files.

As published there is no augmentation of pixels: two random clips, the centre of each frame, random masks.
Colours can be changed where clips come from files.
A sample with a `codes` column is not decoded. Otherwise its file is opened once, and its frames are the ones
that tokenising the whole video would have stored, so that both routes train on the same codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.clip_draw import ClipDraw
from ...data.jitter import COLOURS, check_jitter, jitter_factors
from ...data.loading import SampleLoader
from ...data.recolour import recolour_clips
from ...data.stored_codes import CODES, CodeView, cut_frames, frames_shown, read_codes_manifest
from ...errors import ConfigurationError, DataError
from .clips_vimpac import PADDING, frame_step, random_clips, take_clips
from .configuration_vimpac import VIMPACConfig
from .masking_vimpac import MaskDraws, draw_mask_numbers, find_masked_positions, make_masks, stack_draws
from .processing_vimpac import VIMPACProcessor, checked_codes

__all__ = ["VIMPACAugmentation", "VIMPACCollator", "VIMPACSample"]


@dataclass(frozen=True)
class VIMPACAugmentation:
    """How the two clips of a video are taken."""

    largest_distance: float | None = None
    """Largest distance in seconds between the starts of the two clips; None: anywhere in the video."""
    codes_fps: float | None = None
    """Frames a second of the column `codes`; None: the rate of the clips. At a higher one, clips start at
    more places and take every n-th frame."""
    use_codes: bool = True
    """Take the column `codes` where there is one, instead of the file."""
    brightness: float = 0.0
    """Largest change, up or down, as a share; each clip has its own, before it becomes codes. The published
    method changes no colours (0); where all frames of a video share a ground colour, that colour alone tells
    its two clips from other videos."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Largest turn of the hue either way; 0.5 is half a turn."""
    gray_probability: float = 0.0

    @property
    def changes_colours(self) -> bool:
        """Whether clips are other than the stored codes show them."""
        return any(getattr(self, name) for name in (*COLOURS, "gray_probability"))

    def __post_init__(self) -> None:
        check_jitter(self)
        if self.largest_distance is not None and self.largest_distance < 0:
            raise ConfigurationError(f"largest_distance must not be negative, got {self.largest_distance}")
        if self.codes_fps is not None and not self.codes_fps > 0:
            raise ConfigurationError(f"codes_fps must be positive, got {self.codes_fps}")
        if not 0 <= self.gray_probability <= 1:
            raise ConfigurationError(f"gray_probability must lie in [0, 1], got {self.gray_probability}")


class VIMPACSample(NamedTuple):
    """One video: its clips as codes (clips, frames, rows, columns) or as pixels, and what of them is real."""

    codes: Tensor | None
    pixels: Tensor | None
    frame_mask: Tensor
    draws: MaskDraws = MaskDraws()
    label: int = -1


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

    @property
    def views(self) -> list[CodeView]:
        """How frames are cut: in the middle, at the model's own size."""
        return [CodeView(min(self.config.frame_size))]

    def check_source(self, source: str, revision: str | None = None) -> None:
        """Compare the codes of a folder or Hub dataset, where it has some, with what this training takes.

        Raises:
            ConfigurationError: they differ; the message says in what.
            DataError: codes.json is damaged.
        """
        manifest = read_codes_manifest(source, revision)
        if manifest is None or not self.augmentation.use_codes:
            return
        self._refuse_colours(source)
        config, tokenizer = self.config, self.processor.tokenizer_model
        differences = manifest.differences(
            frame_size=config.frame_size,
            num_codes=config.num_codes,
            views=self.views,
            fps=self.augmentation.codes_fps or config.fps,
            fingerprint=tokenizer and tokenizer.fingerprint(),
        )
        if differences:
            raise ConfigurationError(
                f"the codes of {source} are not those of this recipe: {'; '.join(differences)}. Change the"
                " recipe (augmentation.codes_fps takes clips out of faster codes), or make the codes again"
                " (videossl prepare --codes)"
            )

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Load a batch.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.

        Returns:
            - input_codes, second_input_codes: (batch, frames, rows, columns) int64; or, from files without a
              tokeniser, pixel_values_videos, second_pixel_values_videos (batch, frames, channels, height,
              width), and frame_mask, second_frame_mask (batch, frames).
            - mask, second_mask: (batch, frames, rows, columns) int32.
            - masked_positions: (masked,) int64.
            - has_padding: bool.

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, where the loader's policy is to raise.
        """
        loaded = self.loader.load_batch(samples, self._load)
        batch = self._inputs(loaded)
        masks = make_masks(self.config, stack_draws([sample.draws for sample in loaded], dim=1))
        self._add(batch, "mask", masks)
        batch["masked_positions"] = find_masked_positions(masks)
        return batch

    def _inputs(self, loaded: Sequence[VIMPACSample]) -> dict[str, Any]:
        """The clips of a batch, and what of them is padding."""
        frame_mask = torch.stack([sample.frame_mask for sample in loaded], dim=1)
        batch: dict[str, Any] = {"has_padding": not bool(frame_mask.all())}
        if all(sample.codes is not None for sample in loaded):
            clips = torch.stack([sample.codes for sample in loaded if sample.codes is not None], dim=1)
            self._add(batch, "input_codes", clips)
        elif all(sample.pixels is not None for sample in loaded):
            pixels = torch.stack([sample.pixels for sample in loaded if sample.pixels is not None], dim=1)
            tokenizer = self.processor.tokenizer_model
            if tokenizer is None:
                self._add(batch, "pixel_values_videos", self._normalized(pixels))
                self._add(batch, "frame_mask", frame_mask)
            else:
                codes = tokenizer.encode(pixels).cpu()
                codes = torch.where(frame_mask[..., None, None], codes, self.config.pad_code or 0)
                self._add(batch, "input_codes", codes)
        else:
            raise DataError("some samples of a batch have codes and some have none: store those of all")
        return batch

    def _refuse_colours(self, source: str) -> None:
        """Stored codes show the colours of the files, and no others."""
        if self.augmentation.changes_colours:
            raise ConfigurationError(
                f"{source} has stored codes, in which colours can no longer be changed: set"
                " augmentation.use_codes to false, or brightness, contrast, saturation, hue and"
                " gray_probability to 0"
            )

    @staticmethod
    def _add(batch: dict[str, Any], name: str, clips: Tensor) -> None:
        """`clips` (clips, batch, ...) as one entry a clip."""
        batch.update(zip((name, f"second_{name}"), clips, strict=False))

    def _load(self, sample: dict[str, Any], generator: torch.Generator) -> VIMPACSample:
        clips = self._clips_of(sample, self.views[0], generator)
        return clips._replace(draws=draw_mask_numbers(self.config, self.num_clips, generator))

    def _clips_of(self, sample: dict[str, Any], view: CodeView, generator: torch.Generator) -> VIMPACSample:
        """Random clips of a sample, from the stored codes of this view or from the file."""
        if self.augmentation.use_codes and sample.get(CODES) is not None:
            self._refuse_colours("a sample")
            column = view.column(min(self.config.frame_size))
            if sample.get(column) is None:
                raise DataError(f"a sample has stored codes, but not in the column {column}")
            codes, frames = self._from_codes(sample[column], generator)
            return VIMPACSample(codes, None, torch.from_numpy(frames != PADDING))
        pixels, frames = self._from_file(sample, view, generator)
        return VIMPACSample(None, pixels, torch.from_numpy(frames != PADDING))

    def _from_codes(self, stored: Any, generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
        array = np.asarray(stored)
        if array.ndim == 3 and array.shape[1:] != self.config.grid[1:]:
            raise DataError(
                f"the stored codes are {array.shape[1]} x {array.shape[2]}, the model takes"
                f" {self.config.grid[1]} x {self.config.grid[2]}: set image_size, or store them anew"
            )
        rate = self.augmentation.codes_fps or self.config.fps
        frames = self._clips(max(len(array), 1), rate, generator)
        # Of a long video only these frames are read.
        wanted = np.unique(frames[frames != PADDING])
        codes = checked_codes(array[wanted] if len(array) else array, self.config.num_codes)
        places = np.where(frames == PADDING, PADDING, np.searchsorted(wanted, frames))
        return torch.from_numpy(take_clips(codes, places, self.config.pad_code or 0)), frames

    def _from_file(
        self, sample: dict[str, Any], view: CodeView, generator: torch.Generator
    ) -> tuple[Tensor, np.ndarray]:
        height, width = self.config.frame_size
        rate = self.augmentation.codes_fps or self.config.fps
        with self.loader.open(sample, view.short_side) as video:
            numbers = frames_shown(video.frame_times, 1 / video.info.fps, rate)
            frames = self._clips(len(numbers), rate, generator)
            pixels = video.frames(numbers[np.maximum(frames, 0)].flatten())
        if height == width:
            squares = cut_frames(pixels, view, height)
        else:
            whole = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
            squares = F.interpolate(whole, (height, width), mode="bilinear", antialias=True).byte()
        clips = squares.unflatten(0, frames.shape)
        return (self._recoloured(clips, generator) if self.augmentation.changes_colours else clips), frames

    def _recoloured(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """`(clips, frames, channels, height, width)` uint8, each clip with other colours."""
        augmentation = self.augmentation
        whole = (0, 0, *clips.shape[-2:])
        draws = []
        for gray, *rest in torch.rand(len(clips), 9, generator=generator, dtype=torch.float64).tolist():
            jitter = jitter_factors(augmentation, rest[:4], rest[4:])
            draws.append(ClipDraw(whole, jitter=jitter, gray=gray < augmentation.gray_probability))
        pixels = clips.float() / 255
        recolour_clips(pixels, draws, steps=("jitter", "gray"))
        return pixels.mul_(255).round_().byte()

    def _normalized(self, pixels: Tensor) -> Tensor:
        """`(clips, batch, frames, channels, height, width)` uint8 as the processor gives them."""
        video_processor = self.processor.video_processor
        settings = video_processor._settings({"do_resize": False, "do_center_crop": False})
        flat = pixels.flatten(0, 2).permute(0, 2, 3, 1)
        return video_processor._pixels(flat, settings)[0].unflatten(0, pixels.shape[:3])

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
