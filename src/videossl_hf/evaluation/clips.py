"""Samples of a dataset as model inputs, one tensor a sample that holds all its views."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..data.datasets import SeededDataset
from ..data.reader import read_audio
from ..data.stored_codes import CodesManifest
from ..data.video_folder import SOUND_EXTENSIONS
from ..errors import DataError, DecodeError, InputError
from .fingerprint import data_fingerprint

__all__ = ["BadSample", "PreparedClips", "PreparedSample", "Views", "sample_name"]


@dataclass(frozen=True)
class Views:
    """How often a video is looked at in a test: clips spread over its length, times crops of each clip.

    Attributes:
        clips: 1 is the middle of the video.
        crops: 1 (the centre) or 3 (along the longer side).
    """

    clips: int = 1
    crops: int = 1

    @classmethod
    def parse(cls, text: str) -> Views:
        """From "CLIPSxCROPS", such as "10x3"."""
        match = re.fullmatch(r"([1-9]\d{0,3})x([13])", text)
        if match is None:
            raise InputError(
                f'views must be written CLIPSxCROPS with 1 or 3 crops, such as "10x3", got {text!r}'
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def count(self) -> int:
        """Views of a video."""
        return self.clips * self.crops

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}"


@dataclass(frozen=True)
class PreparedSample:
    """A decoded sample.

    Attributes:
        inputs: (views, frames, channels, height, width), codes (views, frames, rows, columns) where the
            processor makes those, or (views, 1, mel, time) for sound.
        label: index of the class; -1 without one.
        key: its name.
    """

    inputs: Tensor
    label: int
    key: str


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be decoded, and why."""

    key: str
    error: DecodeError


class PreparedClips(Dataset[PreparedSample | BadSample]):
    """A dataset as the model sees it in a test: decoded on access, without anything random.

    Args:
        processor: of this package; its settings say how a clip is taken.
        dataset: map-style samples with a "video" cell (and "label"); for sound with an "audio" cell or a
            sound file as "video", else the container's own track is taken.
        views: "CLIPSxCROPS"; sound has no crops. One span of a sound file is its middle.
        modality: "video" or "audio".
        keep: hold what was decoded in memory, for a monitor that comes back to the same samples.
        as_pixels: pixels even where the processor makes codes, for hand-made features.
        codes: what is said of the dataset's stored codes, if it has some; a processor that takes codes then
            looks at these and not at the files.

    Raises:
        ConfigurationError: the stored codes are not those that the processor takes.
        InputError: an unknown modality or views, crops of sound, or a streamed dataset.
        DataError: the dataset lacks the column.
    """

    def __init__(
        self,
        processor: Any,
        dataset: Any,
        *,
        views: str = "1x1",
        modality: str = "video",
        keep: bool = False,
        as_pixels: bool = False,
        codes: CodesManifest | None = None,
    ) -> None:
        if modality not in ("video", "audio"):
            raise InputError(f'modality must be "video" or "audio", got {modality!r}')
        self.processor = processor
        self.dataset = dataset
        self.views = Views.parse(views)
        self.modality = modality
        self.as_pixels = as_pixels
        if modality == "audio" and self.views.crops != 1:
            raise InputError(f"sound cannot be cropped: give views {self.views.clips}x1 instead of {views}")
        if not hasattr(dataset, "__len__"):
            raise InputError(
                "a streamed dataset has no length and no order to come back to: load it with streaming=False"
            )
        features = getattr(dataset, "features", None)
        if features is not None and "video" not in features and modality not in features:
            raise DataError(f"the dataset has no {modality} column; it has {', '.join(features)}")
        self.label_names: list[str] | None = getattr((features or {}).get("label"), "names", None)
        self.codes: CodesManifest | None = None
        if codes is not None and modality == "video" and not as_pixels and hasattr(processor, "stored_views"):
            processor.check_codes(codes, self.views.crops)
            self.codes, self._stored = codes, SeededDataset(dataset)
            self.dataset = self._stored.dataset  # without the codes, which it would read as lists
        self._kept: dict[int, PreparedSample | BadSample] | None = {} if keep else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the samples; computed once, as it reads a part of every file."""
        return data_fingerprint(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> PreparedSample | BadSample:
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        sample = self._prepare(row)
        self.remember([row], [sample])
        return sample

    def remember(self, rows: Sequence[int], samples: Sequence[PreparedSample | BadSample]) -> None:
        """Hold what was decoded, if `keep`; samples that a worker process decoded come back this way."""
        if self._kept is not None:
            self._kept.update(zip(rows, samples, strict=True))

    def holds(self, rows: Sequence[int]) -> bool:
        """Whether all of these samples are in memory."""
        return self._kept is not None and all(row in self._kept for row in rows)

    def _prepare(self, row: int) -> PreparedSample | BadSample:
        # A worker process may return an error, but not raise one that keeps its type.
        sample = self.dataset[row] if self.codes is None else self._stored[row]
        key = sample_name(sample, row)
        try:
            inputs = self._inputs(sample)
        except DecodeError as error:
            return BadSample(key, error)
        label = sample.get("label")
        return PreparedSample(inputs, -1 if label is None else int(label), key)

    def _inputs(self, sample: Mapping[str, Any]) -> Tensor:
        """(views, ...) of one sample."""
        if self.codes is not None:
            return self.processor.stored_views(sample, self.codes, self.views.clips, self.views.crops)
        if self.modality == "video":
            process = getattr(self.processor, "video_processor", self.processor)
            views = {"num_clips": self.views.clips, "num_crops": self.views.crops}
            if self.as_pixels:
                inputs = process.pixels([sample["video"]], **views)
            else:
                features = process(videos=[sample["video"]], return_tensors="pt", **views)
                inputs = features["input_codes" if "input_codes" in features else "pixel_values_videos"]
            return inputs[0] if self.views.count > 1 else inputs
        sound = sample.get("audio")
        if sound is None and _is_sound_file(sample.get("video")):
            sound = sample["video"]
        if sound is None:  # the track that goes with each clip of the video
            inputs = self.processor(
                videos=[sample["video"]], audio=True, return_tensors="pt", num_clips=self.views.clips
            )["input_features"]
            return inputs[0] if self.views.clips > 1 else inputs
        spans = _spans(sound, self.views.clips, self.processor.feature_extractor)
        return self.processor(audio=spans, return_tensors="pt")["input_features"]


def _is_sound_file(cell: Any) -> bool:
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    return isinstance(path, (str, PurePath)) and PurePath(path).suffix.lower() in SOUND_EXTENSIONS


def _spans(sound: Any, clips: int, extractor: Any) -> list[np.ndarray]:
    """Waveforms of as many spans, as long as the model hears: one in the middle, several from end to end."""
    rate = extractor.sampling_rate
    length = round(extractor.audio_seconds * rate)
    track = read_audio(sound, sample_rate=rate)
    left = max(len(track) - length, 0)
    starts = np.linspace(0, left, clips).round().astype(int) if clips > 1 else [left // 2]
    return [track[start : start + length] for start in starts]


def sample_name(sample: Mapping[str, Any], row: int) -> str:
    """The name of a sample: the last two parts of its file's path, or its row."""
    for column in ("video", "audio"):
        cell = sample.get(column)
        path = cell.get("path") if isinstance(cell, Mapping) else cell
        if isinstance(path, (str, PurePath)):
            return "/".join(PurePath(path).parts[-2:])
    return f"row {row}"
