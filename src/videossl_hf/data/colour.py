"""Colour and blur on batches of clips, every clip with its own strength.

Clips are (batch, frames, channels, height, width) float with channels red, green, blue; a strength is a
(batch,) tensor, or a number for all clips. Nothing is clamped here: the caller knows the range of its values.
"""

from __future__ import annotations

import torch

from ..errors import InputError

__all__ = [
    "RGB_LUMA",
    "SWAPPED_LUMA",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "gaussian_blur",
    "luminance",
    "shift_brightness",
]

Luma = tuple[float, float, float]

RGB_LUMA: Luma = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in ITU-R BT.601."""
SWAPPED_LUMA: Luma = (0.114, 0.587, 0.299)
"""The same for blue first: what the official STiCA and GDT code applies to its red-first frames."""


def _per_clip(strength: torch.Tensor | float, clips: torch.Tensor) -> torch.Tensor:
    strength = torch.as_tensor(strength, dtype=clips.dtype, device=clips.device)
    return strength.reshape(-1, 1, 1, 1, 1)


def luminance(clips: torch.Tensor, luma: Luma = RGB_LUMA) -> torch.Tensor:
    """Gray value of every pixel: (batch, frames, 1, height, width)."""
    red, green, blue = (clips[:, :, channel : channel + 1] for channel in range(3))
    return luma[0] * red + luma[1] * green + luma[2] * blue


def adjust_brightness(clips: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """Blend with zero: `factor` 1 changes nothing, 0 gives zeros."""
    return clips * _per_clip(factor, clips)


def shift_brightness(clips: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """Add `factor` - 1 to every value: `factor` 1 changes nothing, 0 takes white to black."""
    return clips + (_per_clip(factor, clips) - 1)


def adjust_contrast(clips: torch.Tensor, factor: torch.Tensor | float, luma: Luma = RGB_LUMA) -> torch.Tensor:
    """Blend every frame with its mean gray value: `factor` 1 changes nothing, 0 gives a flat frame."""
    mean = luminance(clips, luma).mean(dim=(-3, -2, -1), keepdim=True)
    return torch.lerp(mean, clips, _per_clip(factor, clips))


def adjust_saturation(
    clips: torch.Tensor, factor: torch.Tensor | float, luma: Luma = RGB_LUMA
) -> torch.Tensor:
    """Blend every pixel with its gray value: `factor` 1 changes nothing, 0 gives gray frames."""
    return torch.lerp(luminance(clips, luma), clips, _per_clip(factor, clips))


def gaussian_blur(
    clips: torch.Tensor,
    sigma_height: torch.Tensor | float,
    sigma_width: torch.Tensor | float,
    kernel_size: int = 11,
) -> torch.Tensor:
    """Separable Gaussian blur with reflected borders (the border pixel itself is not repeated).

    Both directions are one matrix product: kernel and border are folded into a (side, side) matrix a clip, so
    clips of different strength go through together.

    Args:
        clips: (batch, frames, channels, height, width) float.
        sigma_height: standard deviation along the height in pixels, above 0.
        sigma_width: standard deviation along the width in pixels, above 0.
        kernel_size: odd number of taps; less than twice each side of the frame.
    """
    rows = _blur_matrix(clips.shape[-2], sigma_height, kernel_size, clips)
    columns = _blur_matrix(clips.shape[-1], sigma_width, kernel_size, clips)
    return rows[:, None, None] @ clips @ columns[:, None, None].transpose(-1, -2)


def _blur_matrix(
    side: int, sigma: torch.Tensor | float, kernel_size: int, like: torch.Tensor
) -> torch.Tensor:
    """(batch or 1, side, side): row i holds the weight of every source pixel in pixel i."""
    radius = kernel_size // 2
    if kernel_size % 2 == 0 or radius >= side:
        raise InputError(
            f"a blur kernel needs an odd size below {2 * side} for {side} pixels, got {kernel_size}"
        )
    strength = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).reshape(-1, 1)
    taps = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-taps.square() / (2 * strength.square()))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    source = torch.arange(side, device=like.device)[:, None] + taps.long()
    source = (side - 1 - (side - 1 - source.abs()).abs()).expand(len(kernel), -1, -1)
    matrix = torch.zeros(len(kernel), side, side, dtype=like.dtype, device=like.device)
    return matrix.scatter_add_(2, source, kernel[:, None].expand(-1, side, -1))
