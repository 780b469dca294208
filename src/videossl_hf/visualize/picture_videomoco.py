"""What VideoMoCo's generator drops: the clip with the generator's scores, dropped frames crossed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForPreTraining

from ..errors import InputError
from ..evaluation.loading import quiet_libraries
from ..models.videomoco.generator_videomoco import lowest_frames
from .scored_strip import scored_strip

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXPLANATION", "painter"]

EXPLANATION = "The frames with the generator's scores; those that it drops are crossed out."


def painter(name: str, revision: str | None = None) -> Callable[[np.ndarray, Tensor, Any], Image]:
    """A function that draws clips: frames as they are shown and as the model takes them to a picture.

    Args:
        name: a pre-training folder or Hub id, whose weights include the generator's.
        revision: of a Hub id.

    Raises:
        InputError: the weights hold no generator.
    """
    with quiet_libraries():
        model, info = AutoModelForPreTraining.from_pretrained(
            name, revision=revision, output_loading_info=True
        )
    if model.generator is None or any(key.startswith("generator.") for key in info["missing_keys"]):
        raise InputError(
            f"{name} holds no generator: name a folder of a pre-training with dropped_frames 'generator'"
        )

    def paint(frames: np.ndarray, pixel_values_videos: Tensor, clip: Any) -> Image:
        with torch.no_grad():
            scores = model.generator(pixel_values_videos)
        dropped = lowest_frames(scores, model.config.dropped_frame_count(len(frames)))[0].tolist()
        caption = f"{len(dropped)} of {len(frames)} frames dropped: the lowest scores, in percent"
        return scored_strip(frames, scores[0].tolist(), dropped, caption=caption)

    return paint
