"""The smallest STiCA that has all its parts, with inputs and a processor for it."""

from __future__ import annotations

from typing import Any

import torch

from videossl_hf import STiCAConfig, STiCAProcessor

FRAMES, SIZE, MELS, STEPS = 8, 32, 40, 99


def make_config(**overrides: Any) -> STiCAConfig:
    settings: dict[str, Any] = {
        "num_frames": FRAMES,
        "fps": 12.0,
        "image_size": SIZE,
        "num_mel_bins": MELS,
        "audio_seconds": 1.0,
        "video_widths": [8, 12, 16, 24],
        "video_depths": [1, 1, 1, 1],
        "video_stem_width": 6,
        "audio_widths": [8, 8, 12, 16],
        "pooling_layers": 2,
        "pooling_heads": 2,
        "pooling_ffn": 32,
        "projection_hidden": 16,
        "projection_dim": 8,
        "num_labels": 5,
    }
    return STiCAConfig(**(settings | overrides))


def make_processor() -> STiCAProcessor:
    return STiCAProcessor.from_config(make_config())


def clips(batch: int, seed: int = 0) -> torch.Tensor:
    """(batch, frames, 3, height, width); the first samples do not depend on how many there are."""
    return torch.stack(
        [
            torch.randn(FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(100 * seed + i))
            for i in range(batch)
        ]
    )


def sounds(batch: int) -> torch.Tensor:
    """(batch, 1, mel, time)."""
    return torch.stack(
        [torch.randn(1, MELS, STEPS, generator=torch.Generator().manual_seed(900 + i)) for i in range(batch)]
    )


def make_inputs(suffix: str, batch: int = 2) -> dict[str, torch.Tensor]:
    """Arguments of the model with this suffix ("Model", "ForPreTraining", "ForVideoClassification")."""
    inputs = {"pixel_values_videos": clips(batch)}
    if suffix in ("Model", "ForPreTraining"):
        inputs["input_features"] = sounds(batch)
    if suffix == "ForPreTraining":
        inputs["second_pixel_values_videos"] = clips(batch, seed=1)
    return inputs


def processor_arguments(clip: str) -> dict[str, Any]:
    """Arguments of a processor call that uses all of it."""
    return {"videos": clip, "audio": True}
