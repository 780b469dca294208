"""Clips as still pictures: a strip of frames, and a motion print that shows a whole clip in one frame."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["animation", "data_uri", "film_strip", "motion_print", "neighbour_board", "png_bytes"]

_EARLY, _LATE = np.array([72.0, 120.0, 255.0]), np.array([255.0, 132.0, 40.0])


def film_strip(frames: np.ndarray, *, height: int = 72, count: int | None = None, gap: int = 3) -> Image:
    """Frames side by side on a dark strip with rounded corners, in order.

    Args:
        frames: (frames, height, width, 3) uint8.
        height: of a frame in the picture, pixels.
        count: evenly spread frames to show; None shows all.
        gap: pixels between frames and around them.

    Raises:
        InputError: not frames.
    """
    from PIL import Image, ImageDraw

    _check(frames)
    chosen = frames if count is None else frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    total = len(chosen) * (width + gap) + gap, height + 2 * gap
    strip = Image.new("RGBA", total)
    ImageDraw.Draw(strip).rounded_rectangle(
        (0, 0, total[0] - 1, total[1] - 1), radius=2 * gap, fill=(20, 24, 33, 255)
    )
    for number, frame in enumerate(chosen):
        scaled = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        strip.paste(scaled, (gap + number * (width + gap), gap))
    return strip


def motion_print(frames: np.ndarray, *, size: int = 72) -> Image:
    """The course of a clip in one picture: what moves leaves a trail from blue (early) to orange (late).

    The still background is the median over time, dimmed.

    Args:
        frames: (frames, height, width, 3) uint8.
        size: height of the picture in pixels.
    """
    from PIL import Image

    _check(frames)
    values = frames.astype(np.float32)
    still = np.median(values, axis=0)
    moved = np.abs(values - still).max(axis=3, keepdims=True)
    strength = np.clip(moved / max(float(moved.max()), 1.0) * 1.4, 0, 1)
    time = np.linspace(0, 1, len(frames))[:, None, None, None]
    colours = strength * ((1 - time) * _EARLY + time * _LATE)
    latest = np.take_along_axis(colours, strength.argmax(axis=0, keepdims=True), axis=0)[0]
    cover = strength.max(axis=0)
    grey = still.mean(axis=2, keepdims=True) * 0.35
    picture = np.clip((1 - cover) * grey + latest, 0, 255).astype(np.uint8)
    width = max(1, round(size * frames.shape[2] / frames.shape[1]))
    return Image.fromarray(picture).resize((width, size), Image.Resampling.BICUBIC)


def animation(frames: np.ndarray, *, height: int = 72, frames_per_second: float = 8.0) -> bytes:
    """The clip as an endlessly repeated WebP file.

    Args:
        frames: (frames, height, width, 3) uint8.
        height: pixels.
        frames_per_second: speed.
    """
    from PIL import Image

    _check(frames)
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    pictures = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=round(1000 / frames_per_second),
        loop=0, quality=80,
    )  # fmt: skip
    return buffer.getvalue()


def neighbour_board(
    queries: Sequence[tuple[Image, str, Sequence[tuple[str, Sequence[tuple[Image, str, bool]]]]]],
) -> Image:
    """Queries with what several models found for them, as one picture on white.

    Args:
        queries: (strip, name, columns); a column is (heading, clips), a clip (strip, name, is it right).
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    margin, column_gap, line = 16, 28, 24
    strips = [clip[0] for _, _, columns in queries for _, clips in columns for clip in clips]
    strip_width, strip_height = max(s.width for s in strips), max(s.height for s in strips)
    lead_width = max(strip.width for strip, _, _ in queries)
    column_width = strip_width + 130
    most = max(len(clips) for _, _, columns in queries for _, clips in columns)
    row_height = max(line + most * (strip_height + 6), queries[0][0].height + line) + 2 * margin
    columns = max(len(found) for _, _, found in queries)
    width = 2 * margin + lead_width + columns * (column_gap + column_width)
    board = Image.new("RGB", (width, len(queries) * row_height), "white")
    pen = ImageDraw.Draw(board)
    for number, (strip, name, found) in enumerate(queries):
        top = number * row_height + margin
        pen.text((margin, top), name, fill=LIGHT.ink, font=ImageFont.load_default(17))
        board.paste(strip, (margin, top + line), strip)
        for place, (heading, clips) in enumerate(found):
            left = margin + lead_width + column_gap + place * (column_gap + column_width)
            pen.text((left, top), heading, fill=LIGHT.muted, font=font)
            for rank, (clip, label, right) in enumerate(clips):
                corner = left, top + line + rank * (strip_height + 6)
                board.paste(clip, corner, clip)
                place_of_text = corner[0] + strip_width + 8, corner[1] + strip_height // 2 - 9
                pen.text(place_of_text, label, fill=LIGHT.good if right else LIGHT.bad, font=font)
        if number:
            pen.line((margin, top - margin, width - margin, top - margin), fill=LIGHT.line)
    return board


def png_bytes(image: Image) -> bytes:
    """File content of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """File content as an address that a page carries inside itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _check(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(
            f"frames must be (frames, height, width, 3) uint8, got {frames.shape} {frames.dtype}"
        )
