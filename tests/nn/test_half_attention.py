"""Attention by matrix products in bfloat16 is as near to float32 as torch's fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videossl_hf.nn import half_attention as kernel


def heads(tokens: int, seed: int) -> Tensor:
    """`(batch, heads, tokens, head_dim)`, as projections leave it."""
    x = torch.randn(5, tokens, 3 * 16, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return x.unflatten(-1, (3, 16)).transpose(1, 2).requires_grad_()


def test_values_and_gradients_are_those_of_attention(monkeypatch) -> None:
    monkeypatch.setattr(kernel, "_SCORES", 2 * 3 * 9 * 11)  # two batch entries at a time, then one
    query, key, value = heads(9, 0), heads(11, 1), heads(11, 2)
    assert kernel.prefers_products(query, key)
    mixed = kernel.half_attention(query, key, value, 0.25)
    wide = [tensor.detach().float().requires_grad_() for tensor in (query, key, value)]
    expected = F.scaled_dot_product_attention(*wide, scale=0.25).transpose(1, 2)
    assert (mixed - expected).norm() < 0.01 * expected.norm()
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(mixed, (query, key, value), slope.bfloat16())
    for one, other in zip(found, torch.autograd.grad(expected, wide, slope), strict=True):
        assert (one - other).norm() < 0.015 * other.norm()


def test_long_sequences_and_other_types_are_left_to_torch() -> None:
    short, long = heads(9, 0), heads(kernel._LONGEST + 1, 0)
    assert not kernel.prefers_products(long, long)
    assert not kernel.prefers_products(short.float(), short.float())
