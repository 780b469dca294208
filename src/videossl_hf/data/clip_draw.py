"""The random choices of one clip, made before its pixels are touched."""

from __future__ import annotations

from dataclasses import dataclass

from .spatial_crop import Box

__all__ = ["ClipDraw"]


@dataclass(frozen=True)
class ClipDraw:
    """What happens to one clip. The defaults change nothing but the size."""

    box: Box
    """(top, left, height, width), in pixels of the frame after `resize`."""
    resize: tuple[int, int] | None = None
    """(height, width) that the frame is scaled to before it is cut; None keeps it."""
    flip: bool = False
    jitter: tuple[tuple[str, float], ...] = ()
    """(name, factor) in the order of application; names are brightness, contrast, saturation and hue. A
    factor of 1 changes nothing, but for hue: it is turned by so many turns."""
    gray: bool = False
    blur: tuple[float, float] | None = None
    """Standard deviation (height, width) in pixels."""
