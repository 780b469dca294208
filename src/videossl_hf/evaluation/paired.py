"""Two models on the same clips: how sure is it that one is better?

The clips that both get right, or both wrong, say nothing; the exact test of McNemar (1947) asks how likely
the others would fall so unevenly if each were a fair coin. For values that are no hits (ranks, average
precisions) the sign of every clip's difference is exchanged at random instead. The interval of the difference
is a bootstrap over the clips. None of this covers the seed of a training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .bootstrap import bootstrap_interval

__all__ = ["PairedTest", "compare_pairs", "mcnemar_exact"]


@dataclass(frozen=True)
class PairedTest:
    """What a comparison found.

    Attributes:
        difference: mean of first minus second, in the unit of the values.
        low, high: its bootstrap 95 % interval.
        p: two-sided probability of a difference at least this large if there were none.
        only_first, only_second: clips on which one value is larger.
        samples: clips.
    """

    difference: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int
    samples: int


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p of a fair coin falling at least as unevenly as these two counts; 1 without any."""
    n, k = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def compare_pairs(first: Tensor, second: Tensor, *, seed: int = 0, exchanges: int = 10_000) -> PairedTest:
    """Compare two models, clip by clip.

    Args:
        first, second: (clips,) each, in the same order: hits (two values, such as 0 and 100) or any others.
        seed: of the bootstrap and of the exchanges.
        exchanges: random signs to try where the values are no hits.

    Raises:
        InputError: not the same number of clips, or none.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise InputError(
            f"a paired test needs one value a clip of both models, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}: were both evaluated on the same clips?"
        )
    first, second = first.double().cpu(), second.double().cpu()
    difference = first - second
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if len(torch.cat([first, second]).unique()) <= 2:
        p = mcnemar_exact(wins, losses)
    else:
        p = _exchange_test(difference, exchanges, seed)
    low, high = bootstrap_interval(difference, seed=seed)
    return PairedTest(difference.mean().item(), low, high, p, wins, losses, len(first))


def _exchange_test(difference: Tensor, exchanges: int, seed: int, chunk: int = 500) -> float:
    generator = torch.Generator().manual_seed(seed)
    observed, found = difference.sum().abs() * (1 - 1e-12), 0
    for first in range(0, exchanges, chunk):
        signs = torch.randint(2, (min(chunk, exchanges - first), len(difference)), generator=generator)
        found += int(((2.0 * signs.double() - 1) @ difference).abs().ge(observed).sum())
    return (found + 1) / (exchanges + 1)
