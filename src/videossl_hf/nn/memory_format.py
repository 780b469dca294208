"""Where convolutions are faster with channels last in memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["prefers_channels_last"]


def prefers_channels_last(x: Tensor) -> bool:
    """Whether `x` is to be convolved on a CPU, or in half precision (by autocast or by its own type)."""
    device = x.device.type
    is_half = x.dtype.itemsize == 2
    if torch.amp.is_autocast_available(device):
        is_half = is_half or torch.is_autocast_enabled(device)
    return device == "cpu" or is_half
