"""How far a figure could have come out otherwise: percentile bootstrap over the samples of the test split.

The interval covers the choice of test samples, not the seed of the training: that takes several runs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["bootstrap_interval"]


def bootstrap_interval(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    chunk: int = 200,
) -> tuple[float, float]:
    """Lower and upper bound of a statistic of the values, by resampling them with replacement.

    Args:
        values: (samples,), e.g. hits as 0 and 1, or ranks.
        statistic: maps (resamples, samples) to (resamples,); the mean by default.
        confidence: share of resampled statistics between the bounds.
        resamples: how often to draw.
        seed: of the draws.
        chunk: draws held in memory at a time.

    Raises:
        InputError: no values, or not one-dimensional.
    """
    if values.ndim != 1 or len(values) == 0:
        raise InputError(f"a bootstrap interval needs (samples,) values, got {tuple(values.shape)}")
    compute = statistic or (lambda draws: draws.mean(dim=1))
    generator = torch.Generator().manual_seed(seed)
    values = values.double().cpu()
    drawn = []
    for first in range(0, resamples, chunk):
        rows = torch.randint(len(values), (min(chunk, resamples - first), len(values)), generator=generator)
        drawn.append(compute(values[rows]))
    tail = (1 - confidence) / 2
    low, high = torch.cat(drawn).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
