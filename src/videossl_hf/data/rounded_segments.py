"""Frames and crops as ILA's official code chooses them (datasets/pipeline.py): rounded segments of the video.

The bounds of segments are rounded half to even. A video with fewer frames than the clip spreads what it has:
frames repeat where they fall, not at the end as elsewhere in this package.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError

__all__ = [
    "offset_clips",
    "random_rounded_clip",
    "rounded_bounds",
    "rounded_clips",
    "step_crop_positions",
]


def rounded_bounds(num_frames: int, length: int) -> np.ndarray:
    """First and last frame of each of `length` equal segments, neighbours sharing theirs.

    Returns:
        int64 array of shape (length, 2).
    """
    if num_frames < 1 or length < 1:
        raise InputError(f"frames and length must be at least 1, got {num_frames} and {length}")
    edges = np.round(np.arange(length + 1) * ((num_frames - 1) / length)).astype(np.int64)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def rounded_clips(num_frames: int, length: int, num_clips: int = 1) -> np.ndarray:
    """The middle frame of each segment; of several clips the frames divide each segment evenly.

    Returns:
        int64 array of shape (num_clips, length).
    """
    if num_clips < 1:
        raise InputError(f"num_clips must be at least 1, got {num_clips}")
    low, high = rounded_bounds(num_frames, length).T
    places = 2 * np.arange(num_clips, dtype=np.int64)[:, None] + 1
    return low + (high - low) * places // (2 * num_clips)


def random_rounded_clip(num_frames: int, length: int, *, generator: torch.Generator) -> np.ndarray:
    """A random frame of each segment, its first and last included: how ILA is trained.

    Returns:
        int64 array of shape (length,).
    """
    low, high = rounded_bounds(num_frames, length).T
    draws = torch.rand(length, generator=generator, dtype=torch.float64).numpy()
    return low + (draws * (high - low + 1)).astype(np.int64)


def offset_clips(num_frames: int, length: int, offsets: np.ndarray) -> np.ndarray:
    """Clips of the official test with several views: each takes a frame at random of each of `length` parts.

    The parts have `num_frames // length` frames; what is left over at the end is not used. A video shorter
    than the clip has only one such clip: frames i * num_frames / length, rounded half to even (the last may
    come round to the first frame).

    Args:
        offsets: places within the parts, (clips, length) in [0, num_frames // length).

    Returns:
        int64 array of shape (clips, length).
    """
    part = num_frames // length
    steps = np.arange(length, dtype=np.int64)
    if part == 0:
        frames = np.round(steps * num_frames / length).astype(np.int64) % num_frames
        return np.broadcast_to(frames, (len(offsets), length)).copy()
    if offsets.shape[1] != length or offsets.min() < 0 or offsets.max() >= part:
        raise InputError(f"offsets must be (clips, {length}) in [0, {part}), got {offsets.shape}")
    return steps * part + offsets


def step_crop_positions(height: int, width: int, size: int) -> np.ndarray:
    """Top-left corners of the three square test crops in the official order: first, last, middle.

    The frame's shorter side is `size`. The last crop lies two whole steps from the first, so of an odd
    remainder one pixel is not seen.

    Returns:
        int64 array of shape (3, 2), rows (top, left).
    """
    if min(height, width) != size:
        raise InputError(f"the shorter side must be {size} pixels, got a frame of {height}x{width}")
    down, right = (height - size) // 2, (width - size) // 2
    return np.array([[0, 0], [2 * down, 2 * right], [down, right]], dtype=np.int64)
