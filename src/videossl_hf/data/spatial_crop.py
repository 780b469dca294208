"""Boxes inside a frame and the resizing that goes with them, the same box for every frame of a clip.

A box is (top, left, height, width) in pixels. Boxes are Python integers: drawing them costs no device
synchronisation, and clips of one batch may come in different sizes until they are cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..errors import InputError

__all__ = [
    "Box",
    "centre_box",
    "draw_crop_box",
    "draw_resized_crop_box",
    "resize_frames",
    "resized_crop",
    "short_side_size",
]

Box = tuple[int, int, int, int]

_TRIES = 10


def draw_resized_crop_box(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Box:
    """Draw the box of a random resized crop (Szegedy et al. 2014, as in torchvision).

    Up to ten times an area share uniform in `area` and a width-to-height ratio log-uniform in `ratio` are
    drawn; the first box that fits is placed uniformly. If none fits, the result is `centre_box`. The number
    of random numbers drawn is always the same.
    """
    draws = torch.rand(_TRIES, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for size_draw, ratio_draw, row_draw, column_draw in draws:
        target = height * width * (area[0] + (area[1] - area[0]) * size_draw)
        shape = math.exp(low + (high - low) * ratio_draw)
        box_width = round(math.sqrt(target * shape))
        box_height = round(math.sqrt(target / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(row_draw * (height - box_height + 1))
            left = int(column_draw * (width - box_width + 1))
            return top, left, box_height, box_width
    return centre_box(height, width, ratio)


def centre_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """The largest centred box whose width-to-height ratio lies in `ratio`."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def draw_crop_box(height: int, width: int, size: int, generator: torch.Generator) -> Box:
    """Place a square of `size` pixels uniformly; two random numbers are drawn.

    Raises:
        InputError: the frame is smaller than the square.
    """
    if min(height, width) < size:
        raise InputError(f"a crop of {size} pixels does not fit into a frame of {height} x {width}")
    row, column = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return int(row * (height - size + 1)), int(column * (width - size + 1)), size, size


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after scaling the short side to `short_side`; the long side is rounded down."""
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def resize_frames(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resize without antialiasing or aligned corners.

    Args:
        frames: (frames, channels, height, width), uint8 or float.
        size: (height, width) of the result.

    Returns:
        (frames, channels, *size) float; integers keep their range 0 to 255.
    """
    if not frames.is_floating_point():
        frames = frames.float()
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return F.interpolate(frames, size=size, mode="bilinear", align_corners=False)


def resized_crop(
    clips: torch.Tensor | Sequence[torch.Tensor], boxes: Sequence[Box], size: tuple[int, int]
) -> torch.Tensor:
    """Cut one box out of every clip and resize all of them to one size.

    The clip is cut first, while it is uint8, so only the pixels that are needed are ever converted.

    Args:
        clips: batch of (frames, channels, height, width); heights and widths may differ between clips.
        boxes: one a clip.
        size: (height, width) of the result.

    Returns:
        (batch, frames, channels, *size) float.

    Raises:
        InputError: a box that leaves its clip, or another number of boxes than clips.
    """
    if len(clips) != len(boxes):
        raise InputError(f"{len(clips)} clips need as many boxes, got {len(boxes)}")
    cut = []
    for clip, (top, left, height, width) in zip(clips, boxes, strict=True):
        rows, columns = clip.shape[-2:]
        if min(top, left) < 0 or min(height, width) < 1 or top + height > rows or left + width > columns:
            raise InputError(
                f"box {(top, left, height, width)} leaves the frame of {rows} x {columns} pixels"
            )
        cut.append(resize_frames(clip[..., top : top + height, left : left + width], size))
    return torch.stack(cut)
