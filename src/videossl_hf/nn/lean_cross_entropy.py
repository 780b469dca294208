"""Cross-entropy over many classes that keeps the scores and nothing else of their size.

torch's keeps log-probabilities beside the scores, in its backward pass makes two more tensors of their size,
and under autocast one in float32. With thousands of classes these are the largest tensors of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["summed_cross_entropy"]

_PART = 2**21
"""Scores that are looked at together."""


def summed_cross_entropy(scores: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """The sum of the cross-entropies of all rows, a scalar, at least in float32.

    Args:
        scores: `(rows, classes)`.
        labels: `(rows,)`; rows with the label `ignored` add nothing. A mean of the rows is the caller's.
    """
    if torch.compiler.is_compiling():  # the compiler chooses what is kept
        return F.cross_entropy(scores.to(_dtype(scores)), labels, ignore_index=ignored, reduction="sum")
    return _CrossEntropy.apply(scores, labels, ignored)


def _dtype(scores: Tensor) -> torch.dtype:
    return torch.promote_types(scores.dtype, torch.float32)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, ignored: int) -> Tensor:
        parts = scores.split(max(_PART // scores.shape[1], 1))
        totals = torch.cat([part.to(_dtype(scores)).logsumexp(1) for part in parts])
        asked = labels != ignored
        chosen = labels.masked_fill(~asked, 0)[:, None]
        ctx.save_for_backward(scores, chosen, asked, totals)
        own = scores.gather(1, chosen)[:, 0]
        return (totals - own).masked_fill(~asked, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scores, chosen, asked, totals = ctx.saved_tensors
        size = max(_PART // scores.shape[1], 1)
        of_rows = (gradients[0] * asked)[:, None]
        result = torch.empty_like(scores)
        each = zip(*(x.split(size) for x in (scores, chosen, of_rows, totals, result)), strict=True)
        for part, labels, weights, total, target in each:
            found = (part - total[:, None]).exp_().mul_(weights)
            target.copy_(found.scatter_add_(1, labels, -weights))
        return result, None, None
