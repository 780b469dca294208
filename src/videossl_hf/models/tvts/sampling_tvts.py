"""Which frames TVTS trains and tests on, and where its test crops lie.

Official code: `v1/base/base_dataset_yt.py` (sample_frames), `v1/downstream/ssv2.py` (mode "test").
"""

from __future__ import annotations

import numpy as np
import torch

from ...errors import InputError

__all__ = ["segment_frames", "segment_ranges", "span_frames", "test_view_frames"]


def segment_ranges(length: int, count: int) -> np.ndarray:
    """First frame, and end (excluded), of each of `count` equal parts of `length` frames: `(count, 2)` int64.

    As in the official code the last frame of each part is left out, so that a part of one frame is empty.
    """
    if length < 1 or count < 1:
        raise InputError(f"need at least one frame and one part, got {length} and {count}")
    edges = np.linspace(0, length, count + 1).astype(np.int64)
    return np.stack([edges[:-1], edges[1:] - 1], axis=1)


def segment_frames(length: int, count: int, generator: torch.Generator | None = None) -> np.ndarray:
    """One frame of each of `count` parts: a random one, or without generator the middle one.

    A part that is empty gives its first frame. Without generator a video of fewer frames than parts gives
    each of its frames once.

    Returns:
        int64 array of `count` frame numbers, or of `length` if that is less and there is no generator.
    """
    if generator is None:
        first, end = segment_ranges(length, min(count, length)).T
        return (first + end) // 2
    first, end = segment_ranges(length, count).T
    draws = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return np.minimum(first + (draws * np.maximum(end - first, 1)).astype(np.int64), length - 1)


def span_frames(start: float, end: float, fps: float) -> tuple[int, int]:
    """First frame, and number of frames, of a span in seconds; both rounded down."""
    return int(start * fps), int((end - start) * fps)


def test_view_frames(num_frames: int, length: int) -> np.ndarray:
    """Frames of the two test clips of a video, `(2, length)` int64.

    The starts and the middles of `length` equal parts are sorted together; the first clip takes the even
    places, the second the odd ones.
    """
    if num_frames < 1 or length < 1:
        raise InputError(f"need at least one frame and one part, got {num_frames} and {length}")
    tick = num_frames / length
    places = np.arange(length)
    both = np.concatenate([tick / 2 + tick * places, tick * places]).astype(np.int64)
    return np.sort(both).reshape(length, 2).T.copy()
