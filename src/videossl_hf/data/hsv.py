"""Hue and saturation of clips in the HSV colour space (Smith, 1978), every clip with its own strength.

Clips are (batch, frames, channels, height, width) float in [0, 1] with channels red, green, blue; a strength
is a (batch,) tensor, or a number for all clips. Nothing is clamped here.
"""

from __future__ import annotations

import torch

__all__ = ["hsv_to_rgb", "rgb_to_hsv", "scale_saturation", "shift_hue"]


def rgb_to_hsv(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue in turns, [0, 1), saturation and value in [0, 1]: each (batch, frames, height, width).

    Hue and saturation of black and gray pixels are 0.
    """
    red, green, blue = clips.unbind(2)
    value = clips.amax(2)
    chroma = value - clips.amin(2)
    # Where chroma is 0 the numerators are 0 too, and so is what they are divided into.
    divisor = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return (sixths / 6).remainder(1), chroma / torch.where(value == 0, 1, value), value


def hsv_to_rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The way back: (batch, frames, 3, height, width). A hue outside [0, 1) is wound round."""
    chroma = value * saturation
    channels = []
    for offset in (5, 3, 1):
        place = (offset + 6 * hue).remainder(6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=2)


def shift_hue(clips: torch.Tensor, turns: torch.Tensor | float) -> torch.Tensor:
    """Turn the hue of every pixel: 0 and 1 change nothing, 0.5 gives complementary colours."""
    hue, saturation, value = rgb_to_hsv(clips)
    return hsv_to_rgb(hue + _per_clip(turns, hue), saturation, value)


def scale_saturation(clips: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """Multiply the saturation, up to 1 at most: `factor` 1 changes nothing, 0 gives gray."""
    hue, saturation, value = rgb_to_hsv(clips)
    return hsv_to_rgb(hue, (saturation * _per_clip(factor, hue)).clamp(0, 1), value)


def _per_clip(strength: torch.Tensor | float, plane: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(strength, dtype=plane.dtype, device=plane.device).reshape(-1, 1, 1, 1)
