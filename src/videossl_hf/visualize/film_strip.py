"""Clips as still pictures: a strip of frames, and a motion print that shows a whole clip in one frame."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["animation", "data_uri", "film_strip", "motion_print", "png_bytes"]

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
