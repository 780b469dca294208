"""How far a figure could have come out otherwise: percentile bootstrap over the samples of the test split.

The interval covers the choice of test samples, not the seed of the training: that takes several runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["bootstrap_interval", "crossed_interval", "folds_interval"]


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
    return _bounds(torch.cat(drawn), confidence)


def crossed_interval(values: Tensor, *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bounds of the mean over a table whose rows and columns both were drawn.

    Args:
        values: (draws, samples), e.g. hits of each few-shot draw on each test clip.
        confidence: share of resampled means between the bounds.
        seed: of the resampling.

    Raises:
        InputError: no values, or not two-dimensional.
    """
    if values.ndim != 2 or values.numel() == 0:
        raise InputError(f"a crossed interval needs (draws, samples) values, got {tuple(values.shape)}")
    generator = torch.Generator().manual_seed(seed)
    rows, columns = values.shape
    values = values.double().cpu()
    drawn = [
        ((of_rows @ values) * of_columns).sum(dim=1) / (rows * columns)
        for of_rows, of_columns in zip(_counts(rows, generator), _counts(columns, generator), strict=True)
    ]
    return _bounds(torch.cat(drawn), confidence)


def folds_interval(
    folds: Sequence[tuple[Tensor, Tensor]], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bounds of the mean over folds of each fold's mean.

    Samples are drawn, not folds: one that is tested in several of them is drawn into all or none.

    Args:
        folds: (values, sample numbers) of each, both (samples of the fold,).
        confidence: share of resampled means between the bounds.
        seed: of the resampling.

    Raises:
        InputError: no folds, or an empty one.
    """
    if not folds or any(len(values) == 0 for values, _ in folds):
        raise InputError("an interval over folds needs at least one sample in every fold")
    generator = torch.Generator().manual_seed(seed)
    samples = 1 + max(int(numbers.max()) for _, numbers in folds)
    drawn = []
    for counts in _counts(samples, generator):
        means = []
        for values, numbers in folds:
            weight = counts[:, numbers]
            # A fold of which a draw has no sample says nothing in that draw.
            means.append(
                (weight @ values.double().cpu()) / weight.sum(dim=1).where(weight.any(dim=1), torch.nan)
            )
        drawn.append(torch.stack(means).nanmean(dim=0))
    found = torch.cat(drawn)
    return _bounds(found[found.isfinite()], confidence)


def _counts(
    items: int, generator: torch.Generator, resamples: int = 2000, chunk: int = 200
) -> Iterator[Tensor]:
    """How often each item is drawn, (chunk, items) at a time."""
    for _ in range(0, resamples, chunk):
        rows = torch.randint(items, (chunk, items), generator=generator)
        ones = torch.ones_like(rows, dtype=torch.float64)
        yield torch.zeros(chunk, items, dtype=torch.float64).scatter_add_(1, rows, ones)


def _bounds(drawn: Tensor, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = drawn.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
