"""Sizes of a STiCA that saves, loads and runs in a moment."""

from __future__ import annotations

TINY = {
    "num_frames": 8,
    "image_size": 32,
    "num_mel_bins": 16,
    "audio_seconds": 0.25,
    "video_widths": [8, 8, 16, 16],
    "video_depths": [1, 1, 1, 1],
    "video_stem_width": 4,
    "audio_widths": [8, 8, 16, 16],
    "pooling_ffn": 32,
    "projection_hidden": 16,
    "projection_dim": 8,
}
