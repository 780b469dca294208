"""Random erasing (Zhong et al., arXiv 1708.04896): the same box of all frames is blanked."""

from __future__ import annotations

import math

import torch

from .spatial_crop import Box

__all__ = ["draw_erased_box"]

_TRIES = 10


def draw_erased_box(
    height: int,
    width: int,
    generator: torch.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Box | None:
    """The box to blank, None if none of ten fits; the number of random numbers drawn is always the same.

    Args:
        height, width: of the frame in pixels.
        generator: source of all of it.
        area: share of the frame, uniform.
        ratio: height over width, log-uniform.
    """
    draws = torch.rand(_TRIES, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area_draw, ratio_draw, row_draw, column_draw in draws:
        target = height * width * (area[0] + (area[1] - area[0]) * area_draw)
        shape = math.exp(low + (high - low) * ratio_draw)
        box_height, box_width = round(math.sqrt(target * shape)), round(math.sqrt(target / shape))
        if 0 < box_height < height and 0 < box_width < width:
            top, left = int(row_draw * (height - box_height + 1)), int(column_draw * (width - box_width + 1))
            return top, left, box_height, box_width
    return None
