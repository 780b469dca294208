"""Strengths of a colour jitter: which changes a clip gets, how strong, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigurationError

__all__ = ["COLOURS", "check_jitter", "jitter_factors"]

COLOURS = ("brightness", "contrast", "saturation", "hue")


def check_jitter(augmentation: Any) -> None:
    """Refuse limits that mean nothing.

    Raises:
        ConfigurationError: brightness, contrast or saturation outside [0, 1], or hue outside [0, 0.5].
    """
    for name in COLOURS:
        largest = 0.5 if name == "hue" else 1
        if not 0 <= getattr(augmentation, name) <= largest:
            raise ConfigurationError(f"{name} must lie in [0, {largest}], got {getattr(augmentation, name)}")


def jitter_factors(
    augmentation: Any, strengths: Sequence[float], priorities: Sequence[float]
) -> tuple[tuple[str, float], ...]:
    """`ClipDraw.jitter` out of numbers drawn before.

    Args:
        augmentation: has a limit of each of `COLOURS`; 0 leaves that one out.
        strengths: one of each in [0, 1): 0 is the weakest factor, `1 - limit` (a turn of `-limit` for hue).
        priorities: one of each; they are applied from the smallest to the largest.
    """
    factors = []
    for _, name, strength in sorted(zip(priorities, COLOURS, strengths, strict=True)):
        if limit := getattr(augmentation, name):
            factors.append((name, (0 if name == "hue" else 1) + limit * (2 * strength - 1)))
    return tuple(factors)
