"""Which frames of a video's stored codes make a clip; a clip that runs over the end is padded, not looped.

Frame numbers count the stored frames; `PADDING` stands for a frame of padding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import InputError

__all__ = ["PADDING", "frame_step", "random_clips", "take_clips", "uniform_clips"]

PADDING = -1


def frame_step(stored_fps: float, fps: float) -> int:
    """Stored frames from one frame of a clip to the next: the whole part of the ratio, at least 1."""
    return max(int(stored_fps / fps + 1e-9), 1)


def uniform_clips(num_frames: int, length: int, step: int = 1, num_clips: int = 1) -> np.ndarray:
    """Clips whose starts are evenly spread from the first frame to the last start that fits.

    One clip alone starts at the first frame, as the official evaluation has it.

    Args:
        num_frames: stored frames of the video.
        length: frames of a clip.
        step: stored frames from one frame of the clip to the next.

    Returns:
        int64 array (num_clips, length).
    """
    last = _last_start(num_frames, length, step)
    starts = [int(last * clip / max(num_clips - 1, 1)) for clip in range(num_clips)]
    return _frames(np.array(starts, dtype=np.int64), num_frames, length, step)


def random_clips(
    num_frames: int,
    length: int,
    step: int,
    num_clips: int,
    draw: Callable[[int, int], int],
    largest_distance: int | None = None,
) -> np.ndarray:
    """Clips with random starts, independent of each other.

    Args:
        num_frames: stored frames of the video.
        length: frames of a clip.
        step: stored frames from one frame of the clip to the next.
        num_clips: how many.
        draw: `draw(low, high)` gives a whole number, both ends included.
        largest_distance: every clip after the first starts at most so many stored frames away from it; its
            start is drawn from that interval within the video.

    Returns:
        int64 array (num_clips, length).
    """
    last = _last_start(num_frames, length, step)
    starts = [draw(0, last)]
    for _ in range(num_clips - 1):
        low, high = 0, last
        if largest_distance is not None:
            low, high = max(starts[0] - largest_distance, 0), min(starts[0] + largest_distance, last)
        starts.append(draw(low, high))
    return _frames(np.array(starts, dtype=np.int64), num_frames, length, step)


def take_clips(codes: np.ndarray, frames: np.ndarray, pad_code: int) -> np.ndarray:
    """Codes `(clips, length, rows, columns)` of the stored ones `(frames, rows, columns)`, padded."""
    taken = codes[np.maximum(frames, 0)].astype(np.int64)
    taken[frames == PADDING] = pad_code
    return taken


def _last_start(num_frames: int, length: int, step: int) -> int:
    if num_frames < 1 or length < 1 or step < 1:
        raise InputError(f"frames, length and step must be at least 1, got {num_frames}, {length} and {step}")
    return max(num_frames + step - 1 - length * step, 0)


def _frames(starts: np.ndarray, num_frames: int, length: int, step: int) -> np.ndarray:
    frames = starts[:, None] + step * np.arange(length, dtype=np.int64)
    return np.where(frames < num_frames, frames, PADDING)
