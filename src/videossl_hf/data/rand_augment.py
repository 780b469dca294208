"""RandAugment (Cubuk et al., arXiv 1909.13719) of a clip: operations drawn at random, on all frames alike.

The fifteen operations, and what a magnitude means to each, are those of timm's policies that end in `inc1`,
with which video transformers are fine-tuned: the larger the magnitude, the stronger every operation. Each one
that is drawn is skipped half of the time. Drawing is apart from applying: a test can write the draw down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

__all__ = ["LARGEST_MAGNITUDE", "OPERATIONS", "apply_operations", "draw_operations"]

LARGEST_MAGNITUDE = 10
_SKIPPED = 0.5

Colour = tuple[int, int, int]
Operation = Callable[[Image.Image, float, Colour], Image.Image]
"""operation(frame, strength in [-1, 1], colour of what comes in from outside) -> frame."""


def _affine(matrix: Callable[[Image.Image, float], tuple[float, ...]]) -> Operation:
    """Each pixel (x, y) of the new frame comes from (a x + b y + c, d x + e y + f) of the old one."""
    return lambda frame, strength, fill: frame.transform(
        frame.size,
        Image.Transform.AFFINE,
        matrix(frame, strength),
        resample=Image.Resampling.BICUBIC,
        fillcolor=fill,
    )


def _enhance(enhancer: Callable[[Image.Image], Any]) -> Operation:
    return lambda frame, strength, _: enhancer(frame).enhance(1 + 0.9 * strength)


def _posterize(frame: Image.Image, strength: float, _: Colour) -> Image.Image:
    """The upper bits of each value are kept: four, and at full strength none."""
    mask = 0xFF & ~(0xFF >> (4 - int(4 * abs(strength))))
    return frame.point([value & mask for value in range(256)] * 3)


def _brighten_dark(frame: Image.Image, strength: float, _: Colour) -> Image.Image:
    """Values below 128 are raised by up to 110."""
    added = int(110 * abs(strength))
    return frame.point([value + added if value < 128 else value for value in range(256)] * 3)


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda frame, *_: ImageOps.autocontrast(frame),
    "equalize": lambda frame, *_: ImageOps.equalize(frame),
    "invert": lambda frame, *_: ImageOps.invert(frame),
    "rotate": lambda frame, strength, fill: frame.rotate(
        30 * strength, resample=Image.Resampling.BICUBIC, fillcolor=fill
    ),
    "posterize": _posterize,
    "solarize": lambda frame, strength, _: ImageOps.solarize(frame, 256 - int(256 * abs(strength))),
    "solarize_add": _brighten_dark,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _affine(lambda _, strength: (1, 0.3 * strength, 0, 0, 1, 0)),
    "shear_y": _affine(lambda _, strength: (1, 0, 0, 0.3 * strength, 1, 0)),
    "translate_x": _affine(lambda frame, strength: (1, 0, 0.45 * strength * frame.width, 0, 1, 0)),
    "translate_y": _affine(lambda frame, strength: (1, 0, 0, 0, 1, 0.45 * strength * frame.height)),
}
"""Name -> operation. The sign of a strength means nothing to the first three, nor to posterize, solarize and
solarize_add, which go one way only."""


def draw_operations(
    count: int, magnitude: float, spread: float, generator: torch.Generator
) -> tuple[tuple[str, float], ...]:
    """Which operations a clip gets, in order, each with its strength in [-1, 1].

    Args:
        count: operations to draw, with replacement; about half of them are skipped.
        magnitude: mean of the strength, from 0 to 10.
        spread: its standard deviation.
        generator: source of all of it; what it gives depends on `count` alone.
    """
    numbers = torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist()
    deviations = torch.randn(count, generator=generator, dtype=torch.float64).tolist()
    names, chosen = list(OPERATIONS), []
    for (which, skip, sign), deviation in zip(numbers, deviations, strict=True):
        strength = min(max(magnitude + spread * deviation, 0), LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
        if skip >= _SKIPPED:
            chosen.append((names[int(which * len(names))], strength if sign < 0.5 else -strength))
    return tuple(chosen)


def apply_operations(
    frames: np.ndarray, operations: Sequence[tuple[str, float]], fill: Colour = (128, 128, 128)
) -> np.ndarray:
    """The operations, one after the other, on every frame.

    Args:
        frames: (frames, height, width, 3) uint8.
        operations: of `draw_operations`.
        fill: red, green and blue of what a turned, sheared or moved frame uncovers.

    Returns:
        Frames of the same shape; the same array where there is nothing to do.
    """
    if not operations:
        return frames
    changed = []
    for frame in frames:
        image = Image.fromarray(frame)
        for name, strength in operations:
            image = OPERATIONS[name](image, strength, fill)
        changed.append(np.asarray(image))
    return np.stack(changed)
