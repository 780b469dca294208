"""Crops of a few fixed scales and places (Wang et al., Temporal Segment Networks, arXiv 1608.00859)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .spatial_crop import Box

__all__ = ["draw_multi_scale_box", "multi_scale_sizes"]

_NEAR = 3  # pixels; a side this close to the wanted one is taken to be it, so that nothing is resized


def multi_scale_sizes(height: int, width: int, size: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Heights and widths of the boxes: shares of the short side, of neighbouring scales at most.

    Args:
        height, width: of the frame in pixels.
        size: side of the square that the box is resized to.
        scales: shares, in descending order.
    """
    sides = [int(min(height, width) * scale) for scale in scales]
    sides = [size if abs(side - size) < _NEAR and size <= min(height, width) else side for side in sides]
    pairs = [(row, column) for row in range(len(sides)) for column in range(len(sides))]
    return [(sides[row], sides[column]) for row, column in pairs if abs(row - column) <= 1]


def draw_multi_scale_box(
    height: int, width: int, size: int, scales: Sequence[float], generator: torch.Generator
) -> Box:
    """Draw one of the sizes and one of five places: the corners and the centre. Two numbers are drawn."""
    sizes = multi_scale_sizes(height, width, size, scales)
    size_draw, place_draw = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    box_height, box_width = sizes[int(size_draw * len(sizes))]
    down, right = (height - box_height) // 4, (width - box_width) // 4
    places = [(0, 0), (0, 4 * right), (4 * down, 0), (4 * down, 4 * right), (2 * down, 2 * right)]
    top, left = places[int(place_draw * len(places))]
    return top, left, box_height, box_width
