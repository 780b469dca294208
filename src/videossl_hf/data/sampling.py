"""Which frames of a video make a clip, and where the test crops lie: pure functions, no decoding.

Every function takes the number of frames of the video and returns an int64 array of frame numbers in
ascending order, each in [0, num_frames). What is drawn at random is drawn from the `torch.Generator` that the
caller hands in.

One rule for all of them: **a video that is too short repeats its last frame**, so the array always has the
length that was asked for.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..errors import InputError

__all__ = [
    "dense_clip",
    "evenly_spaced_clips",
    "segment_middle_clip",
    "segment_random_clip",
    "sliding_windows",
    "source_stride",
    "span_indices",
    "stica_clip_length",
    "stica_clip_span",
    "stica_frame_indices",
    "three_crop_positions",
    "uniform_clip",
]


def source_stride(fps: float, target_fps: float, stride: float = 1.0) -> float:
    """Source frames from one frame of a clip to the next when it takes every `stride`-th at `target_fps`.

    A 60 fps video read at 15 fps has a stride of 4.0, a 25 fps one 1.67: the policies below accept fractions.
    """
    if fps <= 0 or target_fps <= 0 or stride <= 0:
        raise InputError(f"fps, target_fps and stride must be positive, got {fps}, {target_fps} and {stride}")
    return stride * fps / target_fps


def dense_clip(
    num_frames: int, length: int, stride: float = 1.0, *, generator: torch.Generator | None = None
) -> np.ndarray:
    """Frames at a fixed distance from a random start (of the centre when `generator` is None).

    Args:
        num_frames: frames of the video.
        length: frames of the clip.
        stride: source frames between two frames of the clip; a fraction is rounded down frame by frame.
        generator: source of the start, uniform over all starts whose clip fits into the video.

    Returns:
        int64 array of shape (length,).
    """
    offsets = _offsets(num_frames, length, stride)
    room = max(num_frames - 1 - int(offsets[-1]), 0)
    start = room // 2 if generator is None else _draw(room + 1, generator)
    return np.minimum(start + offsets, num_frames - 1)


def uniform_clip(num_frames: int, length: int) -> np.ndarray:
    """Frames evenly spread over the whole video, first and last included (of one frame: the middle one).

    Returns:
        int64 array of shape (length,).
    """
    _check(num_frames, length)
    if num_frames <= length:
        return _short(num_frames, length)
    if length == 1:
        return np.array([(num_frames - 1) // 2], dtype=np.int64)
    return np.arange(length, dtype=np.int64) * (num_frames - 1) // (length - 1)


def segment_random_clip(num_frames: int, length: int, *, generator: torch.Generator) -> np.ndarray:
    """One random frame of each of `length` equal segments.

    This is how Temporal Segment Networks (arXiv 1608.00859) are trained. The segments cover the whole video;
    where `length` does not divide `num_frames` they differ by one frame.

    Returns:
        int64 array of shape (length,).
    """
    _check(num_frames, length)
    if num_frames <= length:
        return _short(num_frames, length)
    edges = np.arange(length + 1, dtype=np.int64) * num_frames // length
    draws = torch.rand(length, generator=generator, dtype=torch.float64).numpy()
    return edges[:-1] + (draws * np.diff(edges)).astype(np.int64)


def segment_middle_clip(num_frames: int, length: int) -> np.ndarray:
    """The middle frame of each of `length` equal segments (testing of Temporal Segment Networks).

    Returns:
        int64 array of shape (length,).
    """
    _check(num_frames, length)
    if num_frames <= length:
        return _short(num_frames, length)
    return (2 * np.arange(length, dtype=np.int64) + 1) * num_frames // (2 * length)


def evenly_spaced_clips(
    num_frames: int, length: int, stride: float = 1.0, *, num_clips: int = 10
) -> np.ndarray:
    """Clips whose starts are evenly spread, the first at frame 0 and the last ending with the video.

    One clip is the centre one. The views of the usual protocol are these clips times `three_crop_positions`.

    Returns:
        int64 array of shape (num_clips, length).
    """
    if num_clips < 1:
        raise InputError(f"num_clips must be at least 1, got {num_clips}")
    offsets = _offsets(num_frames, length, stride)
    room = max(num_frames - 1 - int(offsets[-1]), 0)
    if num_clips == 1:
        starts = np.array([room // 2], dtype=np.int64)
    else:
        starts = np.arange(num_clips, dtype=np.int64) * room // (num_clips - 1)
    return np.minimum(starts[:, None] + offsets, num_frames - 1)


def three_crop_positions(height: int, width: int, size: int) -> np.ndarray:
    """Top-left corners of the three square test crops along the longer side.

    Args:
        height: rows of the frame, at least `size`.
        width: columns of the frame, at least `size`.
        size: side of a crop in pixels.

    Returns:
        int64 array of shape (3, 2), rows (top, left): left, centre, right of a wide or square frame; top,
        centre, bottom of a tall one. The other side is always centred; halves are rounded up.
    """
    if size < 1 or height < size or width < size:
        raise InputError(f"a crop of {size} does not fit into a frame of {height}x{width}")
    top, left = (height - size + 1) // 2, (width - size + 1) // 2
    if height > width:
        return np.array([[0, left], [top, left], [height - size, left]], dtype=np.int64)
    return np.array([[top, 0], [top, left], [top, width - size]], dtype=np.int64)


def stica_clip_length(num_samples: int, fps: float, *, stride: int = 1, target_fps: float = 30.0) -> float:
    """Source frames that a STiCA clip of `num_samples` frames at `target_fps` spans: a real number."""
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    return num_samples * source_stride(fps, target_fps, stride)


def stica_clip_span(
    num_frames: int,
    clip_length: float,
    *,
    generator: torch.Generator | None = None,
    clip_index: int | None = None,
    num_clips: int = 10,
) -> tuple[float, float]:
    """First and last position, in source frames, of a clip as the official STiCA code places it.

    With a `generator` the start is uniform over the real numbers in [0, num_frames - clip_length]. With a
    `clip_index` in [0, num_clips) it is int((num_frames - clip_length) * clip_index / num_clips): the last
    test clip does not reach the end of the video. Exactly one of the two is given.
    """
    if (generator is None) == (clip_index is None):
        raise InputError("give either a generator (a random clip) or a clip_index (a test clip)")
    if num_frames < 1 or clip_length <= 0:
        raise InputError(f"num_frames and clip_length must be positive, got {num_frames} and {clip_length}")
    room = max(num_frames - clip_length, 0.0)
    if clip_index is None:
        start = float(torch.rand((), generator=generator, dtype=torch.float64)) * room
    elif not 0 <= clip_index < num_clips:
        raise InputError(f"clip_index must lie in [0, {num_clips}), got {clip_index}")
    else:
        start = float(int(room * clip_index / num_clips))
    return start, start + clip_length - 1


def stica_frame_indices(
    num_frames: int, clip_length: float, num_samples: int, *, start: float = 0.0
) -> np.ndarray:
    """Frame numbers of the clip that begins at `start`, a position of `stica_clip_span`.

    They are floor(linspace(0, clip_length - 1, num_samples)) after the first frame at or after `start`;
    positions past the end repeat the last frame.

    Returns:
        int64 array of shape (num_samples,).
    """
    _check(num_frames, num_samples)
    if clip_length <= 0 or start < 0:
        raise InputError(
            f"clip_length must be positive and start not negative, got {clip_length} and {start}"
        )
    # The official code decodes from `start` on and counts inside what it decoded.
    offsets = span_indices(math.ceil(clip_length) + 1, 0.0, max(clip_length - 1, 0.0), num_samples)
    return np.minimum(math.ceil(start) + offsets, num_frames - 1)


def sliding_windows(num_frames: int, fps: float, seconds: float, stride: float | None = None) -> np.ndarray:
    """Windows over a whole video: the first begins with it, the last ends with it, none is shorter.

    Args:
        num_frames: frames of the video.
        fps: its frames a second.
        seconds: length of a window; a video that is shorter is one window.
        stride: seconds from one window to the next; None: one follows the other.

    Returns:
        int64 array (windows, 2): the first frame, and the one after the last.
    """
    for name, value in (("length", seconds), ("stride", seconds if stride is None else stride)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise InputError(f"the {name} of a window must be a positive number of seconds, got {value!r}")
    length = min(max(round(seconds * fps), 1), num_frames)
    step = float(length) if stride is None else max(stride * fps, 1.0)
    count = max(math.ceil((num_frames - length) / step), 0)
    starts = [min(int(number * step + 1e-6), num_frames - length) for number in range(count + 1)]
    return np.array([(start, start + length) for start in dict.fromkeys(starts)], dtype=np.int64)


def span_indices(num_frames: int, first: float, last: float, num_samples: int) -> np.ndarray:
    """`num_samples` positions evenly spread from `first` to `last`, each rounded down to a frame.

    Positions outside the video become its first or last frame. The spacing is computed in float32, as the
    official STiCA code does (`temporal_sampling`).

    Returns:
        int64 array of shape (num_samples,).
    """
    _check(num_frames, num_samples)
    positions = torch.linspace(first, last, num_samples, dtype=torch.float32)
    return positions.clamp(0, num_frames - 1).long().numpy()


def _check(num_frames: int, length: int) -> None:
    if num_frames < 1:
        raise InputError(f"a video needs at least one frame to take a clip from, got {num_frames}")
    if length < 1:
        raise InputError(f"a clip needs at least one frame, got {length}")


def _offsets(num_frames: int, length: int, stride: float) -> np.ndarray:
    _check(num_frames, length)
    if stride <= 0:
        raise InputError(f"stride must be positive, got {stride}")
    # Fractions such as 5/3 fall a hair short of whole numbers; the frame is meant, not the one before it.
    return np.floor(np.arange(length) * stride + 1e-6).astype(np.int64)


def _short(num_frames: int, length: int) -> np.ndarray:
    return np.minimum(np.arange(length, dtype=np.int64), num_frames - 1)


def _draw(upper: int, generator: torch.Generator) -> int:
    return int(torch.randint(upper, (), generator=generator))
