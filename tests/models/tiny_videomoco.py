"""The smallest VideoMoCo that has all its parts, with inputs and a processor for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videossl_hf import VideoMoCoConfig, VideoMoCoForPreTraining, VideoMoCoProcessor

FRAMES, SIZE, DROPPED = 8, 32, 2


def make_config(**overrides: Any) -> VideoMoCoConfig:
    settings: dict[str, Any] = {
        "num_frames": FRAMES,
        "image_size": SIZE,
        "widths": [8, 12, 16, 24],
        "depths": [1, 1, 1, 1],
        "stem_width": 6,
        "dim": 8,
        "queue_size": 24,
        "adversarial_start_epoch": 0,
        "generator_hidden": 16,
        "num_labels": 5,
    }
    return VideoMoCoConfig(**(settings | overrides))


def make_model(**overrides: Any) -> VideoMoCoForPreTraining:
    """In training mode."""
    torch.manual_seed(0)
    return VideoMoCoForPreTraining(make_config(**overrides)).train()


def make_processor() -> VideoMoCoProcessor:
    return VideoMoCoProcessor.from_config(make_config())


def clips(batch: int, seed: int = 0, frames: int = FRAMES, size: int = SIZE) -> Tensor:
    """(batch, frames, 3, height, width); the first samples do not depend on how many there are."""
    return torch.stack(
        [
            torch.randn(frames, 3, size, size, generator=torch.Generator().manual_seed(100 * seed + i))
            for i in range(batch)
        ]
    )


def make_batch(batch: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """What `VideoMoCoForPreTraining` takes; which frames are dropped is left to it."""
    return {
        "pixel_values_videos": clips(batch, seed),
        "second_pixel_values_videos": clips(batch, seed + 1),
    }


def make_inputs(suffix: str, batch: int = 2) -> dict[str, Tensor]:
    """Arguments of the model with this suffix ("Model", "ForPreTraining", "ForVideoClassification").

    The frames to drop are given: whose score is lowest may depend on rounding.
    """
    if suffix != "ForPreTraining":
        return {"pixel_values_videos": clips(batch)}
    return make_batch(batch) | {"dropped_frames": torch.tensor([[1, 4]]).repeat(batch, 1)}


def processor_arguments(clip: str) -> dict[str, Any]:
    """Arguments of a processor call that uses all of it."""
    return {"videos": clip}
