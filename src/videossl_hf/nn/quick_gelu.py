"""CLIP's activation, x * sigmoid(1.702 x), with one tensor kept for the backward pass.

Written out, it keeps its input and the sigmoid, each four times as wide as the block's tokens. Values are
those of the formula to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["QuickGELU"]

SLOPE = 1.702


class _QuickGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x * SLOPE).sigmoid_().mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # With z = 1.702 x this is z * sigmoid(z) / 1.702, and torch has the derivative of z * sigmoid(z).
        return torch.ops.aten.silu_backward(gradients[0], x * SLOPE)


class QuickGELU(nn.Module):
    """Any shape to the same."""

    def forward(self, x: Tensor) -> Tensor:
        """x * sigmoid(1.702 x)."""
        return _QuickGELU.apply(x)
