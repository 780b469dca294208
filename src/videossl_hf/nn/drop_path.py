"""Stochastic depth (Huang et al., 2016): a residual branch is left out for some samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Module):
    """In training, zero a branch with probability `rate` for each sample, and scale up what is kept."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """`(batch, ...)` to the same."""
        if not self.training or self.rate == 0:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(1 - self.rate)
        return branch * kept.div_(1 - self.rate)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


def drop_path_rates(largest: float, depth: int) -> list[float]:
    """One rate a block, growing linearly from 0 to `largest`."""
    return [largest * index / max(1, depth - 1) for index in range(depth)]
