"""Codes of a tokeniser beside the videos that they were made of: which frames, how cut, in which column.

A row's codes are int16 `(frames, rows, columns)`, one column of the table for each way of cutting the frames.
Arrow keeps them so that a few frames out of thousands are read without touching the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigurationError, DataError
from .spatial_crop import short_side_size

__all__ = [
    "CODES",
    "CROPS",
    "MANIFEST",
    "CodeView",
    "CodesManifest",
    "codes_array",
    "cut_frames",
    "frames_shown",
    "read_codes_manifest",
]

CODES = "codes"
"""The column of the plain view; every other column of codes begins with it."""
MANIFEST = "codes.json"
CROPS = ("top", "center", "bottom")
"""A square at the first corner, in the middle, at the last corner of a frame."""


@dataclass(frozen=True)
class CodeView:
    """How frames are cut before they become codes.

    Attributes:
        short_side: pixels of the short side before cutting.
        crop: one of `CROPS`.
        flip: mirrored left to right.
    """

    short_side: int
    crop: str = "center"
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ConfigurationError(f"a crop is one of {', '.join(CROPS)}, got {self.crop!r}")

    def column(self, image_size: int) -> str:
        """The name of the column that holds its codes: "codes" for the plain view, else "codes_160_top_flip"
        and the like."""
        if self == CodeView(image_size):
            return CODES
        return f"{CODES}_{self.short_side}_{self.crop}" + "_flip" * self.flip


@dataclass(frozen=True)
class CodesManifest:
    """What all codes of a folder have in common, in its codes.json.

    Attributes:
        tokenizer: name of the tokeniser; only told, never compared.
        fingerprint: of the tokeniser's weights.
        num_codes: of the tokeniser.
        fps: frames a second.
        image_size: side in pixels of the squares that became codes.
        views: column -> how its frames were cut.
    """

    tokenizer: str
    fingerprint: str
    num_codes: int
    fps: float
    image_size: int
    views: dict[str, CodeView]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def differences(
        self, *, frame_size: tuple[int, int], num_codes: int, views: Iterable[CodeView], **others: Any
    ) -> list[str]:
        """What keeps these codes from being those that somebody wants, in words.

        Args:
            frame_size: height and width in pixels.
            num_codes: of the tokeniser.
            views: that there must be.
            others: `fps` and `fingerprint`, where they matter; None does not.
        """
        pairs = {
            "image_size": ([self.image_size] * 2, list(frame_size)),
            "num_codes": (self.num_codes, num_codes),
            "fps": (self.fps, others.get("fps")),
            "the tokeniser's fingerprint": (self.fingerprint, others.get("fingerprint")),
        }
        found = [f"{name} is {a} there, {b} here" for name, (a, b) in pairs.items() if b not in (None, a)]
        columns = [view.column(self.image_size) for view in views]
        if missing := [name for name in columns if name not in self.views]:
            found.append(f"there is no column {', '.join(missing)} (--scales, --crops, --flips)")
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CodesManifest:
        """From what `to_dict` gave."""
        views = {name: CodeView(**view) for name, view in values["views"].items()}
        return cls(**{**values, "views": views})


def read_codes_manifest(source: str, revision: str | None = None) -> CodesManifest | None:
    """The manifest of a folder or Hub dataset of codes; None for one without.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(source).expanduser()
    file: Path | None = (path if path.is_dir() else path.parent) / MANIFEST
    if not path.exists():
        file = _from_hub(source, revision)
    if file is None or not file.is_file():
        return None
    try:
        return CodesManifest.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}): make the codes again") from error


def _from_hub(source: str, revision: str | None) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(source, MANIFEST, repo_type="dataset", revision=revision))
    except EntryNotFoundError:
        return None


def frames_shown(frame_times: np.ndarray, frame_duration: float, fps: float) -> np.ndarray:
    """The frames of a video that are kept at another rate: those on show at every `1 / fps` seconds.

    Args:
        frame_times: (frames,) seconds since the first frame.
        frame_duration: seconds that the last frame is shown.
        fps: of the frames that are kept.

    Returns:
        int64 array (kept frames,), at least one.
    """
    duration = float(frame_times[-1]) + frame_duration
    times = np.arange(max(round(duration * fps), 1)) / fps
    return np.maximum(np.searchsorted(frame_times, times + 1e-6, side="right") - 1, 0)


def cut_frames(frames: np.ndarray, view: CodeView, image_size: int) -> Tensor:
    """Squares as a tokeniser takes them: the same from a file and for the cache.

    Args:
        frames: (frames, height, width, 3) uint8; their short side is the view's, unless the video is smaller.

    Returns:
        (frames, 3, image_size, image_size) uint8.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    height, width = pixels.shape[-2:]
    if min(height, width) < view.short_side:
        size = short_side_size(height, width, view.short_side)
        pixels = F.interpolate(pixels.float(), size, mode="bicubic").round().clamp(0, 255).byte()
        height, width = size
    factor = CROPS.index(view.crop) / 2
    top, left = (int(factor * (side - image_size) + 0.5) for side in (height, width))
    pixels = pixels[..., top : top + image_size, left : left + image_size]
    return pixels.flip(-1) if view.flip else pixels.contiguous()


def codes_array(column: Any) -> np.ndarray:
    """Codes `(frames, rows, columns)` of an Arrow column of one row: a view, read where it is used."""
    cell = column.chunk(0).flatten()
    sides = []
    while hasattr(cell.type, "list_size"):
        sides.append(cell.type.list_size)
        cell = cell.flatten()
    return cell.to_numpy().reshape(-1, *sides)
