"""The check of every convolutional video encoder's input."""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError

__all__ = ["check_clips"]


def check_clips(clips: Tensor, channels: int, name: str = "pixel_values_videos") -> None:
    """Raise InputError unless these are clips `(batch, frames, channels, height, width)` of floats."""
    shape = tuple(clips.shape)
    if len(shape) != 5 or shape[2] != channels or 0 in shape:
        raise InputError(f"{name} has shape {shape}; give (batch, frames, {channels}, height, width)")
    if not clips.is_floating_point():
        raise InputError(f"{name} is {clips.dtype}; give normalised floating point values")
