"""Attention in bfloat16 on a CPU, by plain matrix products.

torch's fused kernel multiplies small tiles there, which without matrix units takes twice the time of whole
products, and more in the backward pass. Here the scores of a few heads at a time are made as one product,
small enough to stay in the cache, and once more in the backward pass: nothing of their size is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["half_attention", "prefers_products"]

_SCORES = 2**19  # values, 1 MB
_LONGEST = 1024  # above, the fused kernel's tiles win


def prefers_products(query: Tensor, key: Tensor) -> bool:
    """Whether `half_attention` is the faster kernel for `(batch, heads, tokens, head_dim)`."""
    is_half = query.dtype == key.dtype == torch.bfloat16
    is_short = max(query.shape[-2], key.shape[-2]) <= _LONGEST
    return query.device.type == "cpu" and is_half and is_short and not torch.compiler.is_compiling()


def half_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention without mask and dropout.

    Args:
        query: `(batch, heads, tokens, head_dim)`; key and value `(batch, heads, keys, head_dim)`.
        scaling: of the scores.

    Returns:
        `(batch, tokens, heads, head_dim)`.
    """
    return _HalfAttention.apply(query, key, value, scaling)


def _parts(query: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, some batch entries at a time, those and the heads as one axis."""
    tokens, keys = query.shape[-2], others[0].shape[-2]
    size = max(1, _SCORES // (query.shape[1] * tokens * keys))
    parts = zip(*(tensor.split(size) for tensor in (query, *others)), strict=True)
    return (tuple(part.flatten(0, 1) for part in some) for some in parts)


def _weights(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """`(batch * heads, tokens, keys)`."""
    nothing = query.new_empty(1, 1, 1)
    return torch.baddbmm(nothing, query, key.transpose(-2, -1), beta=0, alpha=scaling).softmax(-1)


def _tokens_first(query: Tensor) -> Tensor:
    """An empty tensor of the shape `(batch, heads, tokens, head_dim)`, in memory with the tokens first."""
    batch, heads, tokens, head_dim = query.shape
    return query.new_empty(batch, tokens, heads, head_dim).transpose(1, 2)


class _HalfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value)
        mixed = _tokens_first(query)
        start = 0
        for q, k, v in _parts(query, key, value):
            part = (_weights(q, k, scaling) @ v).unflatten(0, (-1, query.shape[1]))
            mixed[start : start + len(part)] = part
            start += len(part)
        return mixed.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        results = [_tokens_first(tensor) for tensor in (query, key, value)]
        start = 0
        for q, k, v, gradient in _parts(query, key, value, gradients[0].transpose(1, 2)):
            weights = _weights(q, k, ctx.scaling)
            slope = torch.ops.aten._softmax_backward_data(
                gradient @ v.transpose(-2, -1), weights, -1, weights.dtype
            )
            slope = slope.mul_(ctx.scaling)
            parts = (slope @ k, slope.transpose(-2, -1) @ q, weights.transpose(-2, -1) @ gradient)
            for result, part in zip(results, parts, strict=True):
                part = part.unflatten(0, (-1, query.shape[1]))
                result[start : start + len(part)] = part
            start += len(part)
        return *results, None
