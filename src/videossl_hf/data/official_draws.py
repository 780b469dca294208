"""The random numbers of the official STiCA augmentation in the order in which its code draws them.

Training does not need this: it serves to repeat a run of the official code from its seeds. Boxes come from a
torch generator, everything else from a numpy one, as there.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .augment import LEGACY_BLUR_SIGMA, ClipAugmentation
from .clip_draw import ClipDraw
from .spatial_crop import Box, centre_box, short_side_size

__all__ = ["draw_official_box", "draw_official_clip"]


def draw_official_box(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Box:
    """A random resized crop, drawn number by number as torchvision does."""
    logarithms = torch.log(torch.tensor(ratio)).tolist()
    for _ in range(10):
        share = torch.empty(1).uniform_(*area, generator=generator).item()
        shape = torch.exp(torch.empty(1).uniform_(*logarithms, generator=generator)).item()
        box_width = round(math.sqrt(height * width * share * shape))
        box_height = round(math.sqrt(height * width * share / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(torch.randint(0, height - box_height + 1, (1,), generator=generator))
            left = int(torch.randint(0, width - box_width + 1, (1,), generator=generator))
            return top, left, box_height, box_width
    return centre_box(height, width, ratio)


def draw_official_clip(
    augmentation: ClipAugmentation,
    height: int,
    width: int,
    size: int,
    generator: torch.Generator,
    numbers: np.random.RandomState,
) -> ClipDraw:
    """Every choice for one clip; the arguments are those of `draw_clip` and the numpy state `numbers`.

    The official code flips below its threshold, but jitters, grays and blurs above theirs, and it never draws
    the last position of a square crop.
    """
    resize = None
    if augmentation.crop == "resized":
        box = draw_official_box(height, width, augmentation.crop_area, augmentation.crop_ratio, generator)
    else:
        resize = short_side_size(height, width, round(numbers.uniform(*augmentation.short_side)))
        top, left = (numbers.randint(0, side - size) if side > size else 0 for side in resize)
        box = (int(top), int(left), size, size)
    flip = numbers.uniform() < augmentation.flip_probability
    jitter: list[tuple[str, float]] = []
    if augmentation.jitter_probability and numbers.uniform() >= 1 - augmentation.jitter_probability:
        limits = [
            (name, limit)
            for name in ("brightness", "contrast", "saturation")
            if (limit := getattr(augmentation, name))
        ]
        for index in numbers.permutation(len(limits)) if limits else ():
            name, limit = limits[index]
            jitter.append((name, 1 + numbers.uniform(-limit, limit)))
    gray = bool(augmentation.gray_probability and numbers.uniform() >= 1 - augmentation.gray_probability)
    blur = augmentation.blur_probability and numbers.uniform() >= 1 - augmentation.blur_probability
    return ClipDraw(box, resize, bool(flip), tuple(jitter), gray, LEGACY_BLUR_SIGMA if blur else None)
