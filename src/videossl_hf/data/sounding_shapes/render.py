"""Pictures of Sounding Shapes: one anti-aliased shape on a ground, drawn on a canvas that wraps round.

Nothing here knows the label: appearance is drawn without it.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import ConfigurationError

__all__ = ["COLOURS", "NUISANCE_LEVELS", "SHAPES", "Appearance", "draw_appearance", "render"]

NUISANCE_LEVELS = ("low", "mid", "full")
"""`low`: a white disc on dark grey. `mid`: any shape, colour and plain ground. `full`: also a textured ground
and one to three shapes that stand still."""

COLOURS = {
    "red": 0.0,
    "orange": 0.08,
    "yellow": 0.16,
    "green": 0.33,
    "cyan": 0.5,
    "blue": 0.62,
    "purple": 0.76,
    "pink": 0.9,
}
"""Names of the colours and their hues."""

RADII = (0.08, 0.2)  # smallest and largest, in canvas widths
TEXTURE_CELLS, TEXTURE_CONTRAST = 6, 0.35

_Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _disc(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - r


def _square(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85 * r


def _diamond(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return (np.abs(x) + np.abs(y)) * math.sqrt(0.5) - 0.85 * r


def _triangle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(-y, np.abs(x) * math.sqrt(0.75) + y / 2) - 0.6 * r


def _ring(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.75 * r) - 0.3 * r


def _cross(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    across, along = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(across, along) - r, np.minimum(across, along) - 0.35 * r)


SHAPES: dict[str, _Distance] = {
    "disc": _disc,
    "square": _square,
    "diamond": _diamond,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
}
"""Signed distance (negative inside) of each shape at offsets x (rightwards) and y (upwards), radius r."""


@dataclass(frozen=True)
class Appearance:
    """What a clip looks like, whatever moves in it.

    Attributes:
        shape, colour: names out of `SHAPES` and `COLOURS` (or "white").
        rgb: the shape's colour, each in [0, 1].
        ground: the ground's colour.
        texture: (6, 6, 3) values in [0, 1] that are smoothed over the ground, or None.
        bystanders: shapes that stand still, each (shape, rgb, (x, y, size)).
    """

    shape: str
    colour: str
    rgb: tuple[float, float, float]
    ground: tuple[float, float, float]
    texture: np.ndarray | None = None
    bystanders: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float]], ...] = ()


def draw_appearance(nuisance: str, generator: torch.Generator) -> Appearance:
    """Draw shape, colours, ground and bystanders at one of the `NUISANCE_LEVELS`."""
    if nuisance not in NUISANCE_LEVELS:
        raise ConfigurationError(f"nuisance must be one of {', '.join(NUISANCE_LEVELS)}, got {nuisance!r}")
    if nuisance == "low":
        return Appearance("disc", "white", (1.0, 1.0, 1.0), (0.08, 0.08, 0.08))
    shape, colour, rgb = _draw_shape(generator)
    hue, saturation, value = torch.rand(3, generator=generator).tolist()
    ground = colorsys.hsv_to_rgb(hue, saturation, 0.05 + 0.3 * value)
    if nuisance == "mid":
        return Appearance(shape, colour, rgb, ground)
    texture = torch.rand(TEXTURE_CELLS, TEXTURE_CELLS, 3, generator=generator).numpy()
    bystanders = []
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        other, _, other_rgb = _draw_shape(generator)
        x, y, size = torch.rand(3, generator=generator).tolist()
        bystanders.append((other, other_rgb, (x, y, size)))
    return Appearance(shape, colour, rgb, ground, texture, tuple(bystanders))


def _draw_shape(generator: torch.Generator) -> tuple[str, str, tuple[float, float, float]]:
    shape = list(SHAPES)[int(torch.randint(len(SHAPES), (), generator=generator))]
    colour = list(COLOURS)[int(torch.randint(len(COLOURS), (), generator=generator))]
    hue, saturation, value = torch.rand(3, generator=generator).tolist()
    rgb = colorsys.hsv_to_rgb(
        (COLOURS[colour] + 0.04 * (hue - 0.5)) % 1.0, 0.6 + 0.4 * saturation, 0.75 + 0.25 * value
    )
    return shape, colour, rgb


def render(appearance: Appearance, states: np.ndarray, size: int) -> np.ndarray:
    """Draw the frames of a clip.

    Args:
        appearance: what it looks like.
        states: (3, frames) values in [0, 1): x, y (upwards) and size of the shape in each frame.
        size: height and width in pixels.

    Returns:
        uint8 array (frames, size, size, 3), RGB.
    """
    ground = np.empty((size, size, 3), np.float32)
    ground[:] = appearance.ground
    if appearance.texture is not None:
        smooth = _periodic_interpolation(size, TEXTURE_CELLS)
        texture = np.einsum("ia,jb,abc->ijc", smooth, smooth, appearance.texture)
        ground = np.clip(ground + TEXTURE_CONTRAST * (texture - 0.5), 0.0, 1.0).astype(np.float32)
    for shape, rgb, place in appearance.bystanders:
        ground = _paint(ground, shape, rgb, np.array(place)[:, None], size)[0]
    frames = _paint(ground, appearance.shape, appearance.rgb, states, size)
    return np.rint(frames * 255).astype(np.uint8)


def _paint(
    ground: np.ndarray, shape: str, rgb: tuple[float, float, float], states: np.ndarray, size: int
) -> np.ndarray:
    """(frames, size, size, 3): the ground with the shape over it; its edge is one pixel wide."""
    x, y, relative_size = states.astype(np.float32)[:, :, None, None]
    radius = RADII[0] * (RADII[1] / RADII[0]) ** relative_size
    pixels = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = (pixels[None, None, :] - x + 0.5) % 1.0 - 0.5
    upwards = (1.0 - pixels[None, :, None] - y + 0.5) % 1.0 - 0.5
    cover = np.clip(0.5 - size * SHAPES[shape](across, upwards, radius), 0.0, 1.0)[..., None]
    return ground + cover * (np.asarray(rgb, np.float32) - ground)


def _periodic_interpolation(size: int, cells: int) -> np.ndarray:
    """(size, cells) weights that interpolate `cells` values linearly around a circle of `size` pixels."""
    position = (np.arange(size) + 0.5) / size * cells
    distance = np.abs((position[:, None] - np.arange(cells) + cells / 2) % cells - cells / 2)
    return np.clip(1.0 - distance, 0.0, 1.0).astype(np.float32)
