"""A STiCA that runs in milliseconds, and batches for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videossl_hf.models.stica.configuration_stica import STiCAConfig


def tiny_config(**overrides: Any) -> STiCAConfig:
    settings = {
        "num_frames": 16,
        "image_size": 48,
        "num_mel_bins": 40,
        "audio_seconds": 0.5,
        "video_widths": [8, 12, 16, 24],
        "video_depths": [1, 1, 1, 1],
        "video_stem_width": 5,
        "audio_widths": [8, 8, 12, 16],
        "pooling_heads": 2,
        "pooling_ffn": 32,
        "projection_hidden": 16,
        "projection_dim": 8,
        "projection_dropout": 0.0,
    }
    return STiCAConfig(**(settings | overrides))


def tiny_clips(batch: int = 2, seed: int = 0, frames: int = 16, size: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 3, size, size, generator=generator)


def tiny_sound(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 1, 40, 50, generator=torch.Generator().manual_seed(100 + seed))


def tiny_batch(batch: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """What `STiCAForPreTraining` takes."""
    return {
        "pixel_values_videos": tiny_clips(batch, seed),
        "second_pixel_values_videos": tiny_clips(batch, seed + 1),
        "input_features": tiny_sound(batch, seed),
    }
