"""Small media files that tests make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from videossl_hf.data.writer import write_video


def moving_frames(count: int = 24, height: int = 48, width: int = 64) -> np.ndarray:
    """(count, height, width, 3) uint8: a smooth pattern that wanders; no two frames are equal."""
    rows = np.arange(height)[None, :, None] / height * 2 * np.pi
    columns = np.arange(width)[None, None, :] / width * 2 * np.pi
    time = np.arange(count)[:, None, None] * 0.3
    channels = [np.sin(rows + time) * np.cos(columns), np.cos(rows - time), np.sin(columns + 2 * time) * 0.5]
    return np.stack([127 + 100 * np.broadcast_to(c, (count, height, width)) for c in channels], -1).astype(
        np.uint8
    )


def tone(seconds: float, rate: int = 24000, hertz: float = 440.0) -> np.ndarray:
    """(samples,) int16: a rising tone."""
    time = np.arange(round(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * hertz * (1 + 0.2 * time) * time)).astype(np.int16)


def make_clip(path: Path, *, fps: float = 12.0, count: int = 24, sound: bool = True) -> Path:
    """An MP4 file of `count` frames, with sound of the same length or without."""
    options = {"sound": tone(count / fps), "sample_rate": 24000} if sound else {}
    write_video(path, moving_frames(count), fps, **options)
    return path
