"""A spectrogram as a small picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["spectrogram_image"]


def spectrogram_image(spectrogram: Tensor) -> np.ndarray:
    """(mel, time, 3) uint8 of a spectrogram (mel, time): low notes at the bottom, dark to light."""
    values = spectrogram.flip(0)
    low, high = values.quantile(0.05), values.quantile(0.995)
    strength = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)[..., None]
    dark, light = torch.tensor([22.0, 27.0, 45.0]), torch.tensor([255.0, 196.0, 96.0])
    return (dark + strength * (light - dark)).round().to(torch.uint8).numpy()
