"""What ILA's alignment looks at: the clip once a block, dark where the masks are, with the points in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from ..evaluation.loading import quiet_libraries
from .film_strip import film_strip
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXPLANATION", "aligned_strip", "painter", "point_places"]

EXPLANATION = (
    "The clip once a block of the network: the masks darken what they take away, the points are the "
    "alignment's."
)
HEIGHT, GAP, CAPTION = 96, 3, 18
DARKEST = 0.25
"""Brightness of a patch that a mask takes away."""


def painter(name: str, revision: str | None = None) -> Callable[[np.ndarray, Tensor, Any], Image]:
    """A function that draws clips: frames as they are shown and as the model takes them to a picture.

    Args:
        name: folder or Hub id of an ILA model.
        revision: of a Hub id.
    """
    with quiet_libraries():
        model = AutoModel.from_pretrained(name, revision=revision).eval()

    def paint(frames: np.ndarray, pixel_values_videos: Tensor, clip: Any) -> Image:
        from PIL import Image

        with torch.no_grad():
            output = model(pixel_values_videos=pixel_values_videos, output_alignment=True)
        blocks = len(output.points)
        rows = [
            aligned_strip(frames, masks[0], points[0], caption=f"block {number} of {blocks}")
            for number, (masks, points) in enumerate(zip(output.masks, output.points, strict=True), 1)
        ]
        legend = "ring: place that meets the next frame; cross: the one before"
        picture = Image.new("RGB", (rows[0].width, CAPTION + sum(row.height for row in rows)), LIGHT.surface)
        _write(picture, legend, 1)
        top = CAPTION
        for row in rows:
            picture.paste(row, (0, top))
            top += row.height
        return picture

    return paint


def point_places(points: Tensor, grid: int, side: int) -> list[tuple[float, float]]:
    """Points `(n, 2)` from -1 to 1 as places in a picture of a frame, in pixels: -1 and 1 are the middles of
    the outermost of `grid` patches, as the model has it, and the frame is `side` pixels high."""
    places = ((points + 1) / 2 * (grid - 1) + 0.5) / grid * side
    return [(float(x), float(y)) for x, y in places]


def aligned_strip(frames: np.ndarray, masks: Tensor, points: Tensor, caption: str) -> Image:
    """The frames of a clip in one row, with what one block's alignment makes of them.

    Args:
        frames: (frames, side, side, 3) uint8.
        masks: (frames, patches) from 0 to 1.
        points: (frames - 1, 4), x and y in the earlier frame of each pair, x and y in the later one.
        caption: written above.
    """
    from PIL import Image, ImageDraw

    grid, side = round(masks.shape[1] ** 0.5), frames.shape[1]
    light = masks.reshape(-1, 1, grid, grid).float()
    light = torch.nn.functional.interpolate(light, size=(side, side), mode="nearest")
    brightness = DARKEST + (1 - DARKEST) * light.permute(0, 2, 3, 1).numpy()
    strip = film_strip((frames * brightness).round().astype(np.uint8), height=HEIGHT, gap=GAP)
    picture = Image.new("RGB", (strip.width, CAPTION + strip.height), LIGHT.surface)
    picture.paste(strip, (0, CAPTION), strip)
    _write(picture, caption, 1)
    pen = ImageDraw.Draw(picture)
    for pair in range(len(points)):
        earlier, later = point_places(points[pair].reshape(2, 2), grid, HEIGHT)
        x, y = _corner(pair, earlier)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=LIGHT.second, width=2)
        x, y = _corner(pair + 1, later)
        pen.line((x - 4, y - 4, x + 4, y + 4), fill=LIGHT.accent, width=2)
        pen.line((x - 4, y + 4, x + 4, y - 4), fill=LIGHT.accent, width=2)
    return picture


def _corner(frame: int, place: tuple[float, float]) -> tuple[float, float]:
    """A place in a frame as one in the row."""
    return GAP + frame * (HEIGHT + GAP) + place[0], CAPTION + GAP + place[1]


def _write(picture: Image, text: str, top: int) -> None:
    from PIL import ImageDraw, ImageFont

    ImageDraw.Draw(picture).text((GAP, top), text, fill=LIGHT.muted, font=ImageFont.load_default(12))
