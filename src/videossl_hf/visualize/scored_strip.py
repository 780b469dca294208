"""A film strip with a score under every frame, in which some frames are marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .film_strip import film_strip
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["scored_strip"]

_GAP = 3
_BARS = 40
_TEXT = 18


def scored_strip(
    frames: np.ndarray,
    scores: Sequence[float],
    marked: Collection[int] = (),
    *,
    height: int = 72,
    caption: str = "",
) -> Image:
    """Frames side by side on white; below each a bar and its score in percent. Marked frames are dimmed and
    crossed out.

    Args:
        frames: (frames, height, width, 3) uint8.
        scores: one a frame, not negative; the longest bar is the largest of them.
        marked: frame numbers.
        height: of a frame in the picture, pixels.
        caption: a line above the strip.

    Raises:
        InputError: not frames, another number of scores, or a mark beyond the last frame.
    """
    from PIL import Image, ImageDraw, ImageFont

    strip = film_strip(frames, height=height, gap=_GAP)
    if len(scores) != len(frames) or not set(marked) <= set(range(len(frames))):
        raise InputError(f"{len(scores)} scores and marks {sorted(marked)} for {len(frames)} frames")
    width = (strip.width - _GAP) // len(frames) - _GAP
    top = _TEXT if caption else 0
    picture = Image.new("RGB", (strip.width, top + strip.height + _BARS + _TEXT), LIGHT.surface)
    picture.paste(strip, (0, top), strip)
    pen = ImageDraw.Draw(picture, "RGBA")
    pen.text((_GAP, 1), caption, fill=LIGHT.muted, font=ImageFont.load_default(12))
    font = ImageFont.load_default(min(11.0, 0.36 * width))
    floor = top + strip.height + _BARS
    longest = max(max(scores), 1e-12)
    for number, score in enumerate(scores):
        left, upper = _GAP + number * (width + _GAP), top + _GAP
        colour = LIGHT.bad if number in marked else LIGHT.accent
        if number in marked:
            box = (left, upper, left + width - 1, upper + height - 1)
            pen.rectangle(box, fill=(255, 255, 255, 150), outline=colour, width=2)
            pen.line(box, fill=colour, width=2)
            pen.line((box[0], box[3], box[2], box[1]), fill=colour, width=2)
        bar = round((_BARS - 6) * score / longest)
        if bar:
            pen.rectangle((left, floor - bar, left + width - 1, floor - 1), fill=colour)
        text = f"{100 * score:.1f}"
        pen.text((left + width / 2, floor + 3), text, fill=LIGHT.ink, font=font, anchor="mt")
    return picture
