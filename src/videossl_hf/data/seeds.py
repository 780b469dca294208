"""Seeds that depend on what is seeded, not on who draws: equal for any number of workers and processes."""

from __future__ import annotations

import torch

__all__ = ["mix_seeds", "seeded_generator"]

_MASK = (1 << 64) - 1


def mix_seeds(*parts: int) -> int:
    """One well-mixed number in [0, 2**63) out of several integers; their order counts.

    Neighbouring inputs, such as the indices of a dataset, give unrelated outputs. Each part goes through the
    finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    """
    state = 0
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seeded_generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded with `mix_seeds(*parts)`."""
    return torch.Generator().manual_seed(mix_seeds(*parts))
