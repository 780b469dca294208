"""SpecAugment (Park et al. 2019) without time warping: random bands and spans of a spectrogram become 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import ConfigurationError

__all__ = ["SPEC_AUGMENT", "SpecAugmentation", "SpecMask", "draw_spec_masks", "fill_masks"]

SpecMask = tuple[str, int, int]
"""("frequency" or "time", first row or step, how many)."""


@dataclass(frozen=True)
class SpecAugmentation:
    """How many masks of each kind, and the largest width of each."""

    frequency_masks: int
    time_masks: int
    frequency_width: int
    time_width: int


SPEC_AUGMENT = {
    "mild": SpecAugmentation(1, 1, 2, 5),
    "medium": SpecAugmentation(1, 1, 3, 6),
    "heavy": SpecAugmentation(2, 2, 3, 6),
}
"""The strengths of the official GDT code, by name."""


def draw_spec_masks(
    strength: str, rows: int, steps: int, generator: torch.Generator, *, legacy_width: bool = False
) -> list[SpecMask]:
    """Choose the masks of one spectrogram.

    Args:
        strength: a name of `SPEC_AUGMENT`.
        rows: frequency bins of the spectrogram.
        steps: time steps of the spectrogram.
        generator: source of the choices.
        legacy_width: widths as the official code draws them, never the largest one; otherwise uniform over
            0 up to and including it.

    Raises:
        ConfigurationError: an unknown strength.
    """
    if strength not in SPEC_AUGMENT:
        raise ConfigurationError(
            f"unknown SpecAugment strength {strength!r}; choose from {list(SPEC_AUGMENT)}"
        )
    setting = SPEC_AUGMENT[strength]
    masks: list[SpecMask] = []
    for kind, count, bound, size in [
        ("frequency", setting.frequency_masks, setting.frequency_width, rows),
        ("time", setting.time_masks, setting.time_width, steps),
    ]:
        draws = torch.rand(count, 2, generator=generator, dtype=torch.float64).tolist()
        for width_draw, start_draw in draws:
            width = min(int(width_draw * (bound + (not legacy_width))), size)
            masks.append((kind, int(start_draw * (size - width + 1)), width))
    return masks


def fill_masks(spectrograms: torch.Tensor, masks: Sequence[Sequence[SpecMask]]) -> torch.Tensor:
    """Set the masked rows and steps to 0.

    Args:
        spectrograms: (batch, ..., rows, steps); it is left as it is.
        masks: one list a spectrogram.
    """
    result = spectrograms.clone()
    for spectrogram, chosen in zip(result, masks, strict=True):
        for kind, start, width in chosen:
            if kind == "frequency":
                spectrogram[..., start : start + width, :] = 0
            else:
                spectrogram[..., start : start + width] = 0
    return result
