"""A linear layer whose matrix products oneDNN computes on CPUs, also in float32.

torch gives products of float32 matrices to MKL, which is about a tenth slower than oneDNN on AMD's cores.
Where the weight is frozen nothing of the input is kept, and under autocast the copies of the weights in half
precision are made once more for the backward pass instead of being kept for it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .multiply import onednn_product

__all__ = ["OneDNNLinear", "linear", "pointwise", "weighed_linear"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `F.linear` computes: `(..., in_features)` to `(..., out_features)`."""
    dtype = _dtype(x, weight)
    if dtype is None:
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return onednn_product(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    return _Linear.apply(x, None, weight, bias, dtype)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1 x 1 convolution: `(batch, channels, height, width)`, weight `(out_channels, channels, 1, 1)`."""
    return linear(x.permute(0, 2, 3, 1), weight.flatten(1), None).permute(0, 3, 1, 2)


class OneDNNLinear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return linear(x, self.weight, self.bias)


def weighed_linear(x: Tensor, weights: Tensor, layer: nn.Linear) -> Tensor:
    """`layer(x * weights[..., None])`, keeping `x` and the weights and not their product.

    Args:
        x: `(..., in_features)`.
        weights: `(...)`, of x's type.
        layer: anything but a plain `OneDNNLinear` is called as it is.
    """
    dtype = _dtype(x, layer.weight) if type(layer) is OneDNNLinear else None
    if dtype is None or not torch.is_grad_enabled():
        return layer(x * weights[..., None])
    return _Linear.apply(x, weights, layer.weight, layer.bias, dtype)


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """In which type oneDNN multiplies; None where torch does."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() == 0 or x.ndim < 2:
        return None
    dtype = weight.dtype
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    if dtype == weight.dtype and x.dtype != dtype:
        return None
    return dtype if _multiplies(dtype) else None


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and fast in this type."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    is_half = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or is_half


class _Linear(torch.autograd.Function):
    """Of `x`, or of `x` times weights of its rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor | None, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        ctx.dtype, ctx.x_dtype = dtype, x.dtype
        if weights is None:
            x = x.to(dtype)
        keeps_x = weight.requires_grad or weights is not None
        ctx.save_for_backward(x if keeps_x else None, weights, weight)
        x = _weighed(x, weights).to(dtype)
        return onednn_product(x, weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, weight = ctx.saved_tensors
        wants_x, wants_weights, wants_weight, wants_bias, _ = ctx.needs_input_grad
        gradient = gradients[0]
        rows = gradient.flatten(0, -2)
        x_gradient = weights_gradient = weight_gradient = bias_gradient = None
        if wants_weight:
            weight_gradient = (rows.T @ _weighed(x, weights).flatten(0, -2).to(ctx.dtype)).to(weight.dtype)
        if wants_bias:
            bias_gradient = rows.sum(0).to(weight.dtype)
        if wants_x or wants_weights:
            x_gradient = onednn_product(rows, weight.to(ctx.dtype).T).view(*gradient.shape[:-1], -1)
            x_gradient = x_gradient.to(ctx.x_dtype)
        if wants_weights:
            weights_gradient = (x_gradient * x).sum(-1)
        if weights is not None and x_gradient is not None:
            x_gradient = x_gradient.mul_(weights[..., None])
        return x_gradient, weights_gradient, weight_gradient, bias_gradient, None


def _weighed(x: Tensor, weights: Tensor | None) -> Tensor:
    return x if weights is None else x * weights[..., None]
