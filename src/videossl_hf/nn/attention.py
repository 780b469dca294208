"""Attention through the transformers interface: `attn_implementation` of a config chooses the kernel.

What a method adds (which tokens see which, what is projected) stays in its own file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .half_attention import half_attention, prefers_products

__all__ = ["attend", "split_heads"]


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """`(..., tokens, heads * head_dim)` to `(..., heads, tokens, head_dim)`."""
    return x.unflatten(-1, (-1, head_dim)).transpose(-3, -2)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention on `(batch, heads, tokens, head_dim)` with the softmax in float32, as the official
    codes have it. Gives `(batch, tokens, heads, head_dim)` and the weights `(batch, heads, tokens, keys)`."""
    scores = query @ key.transpose(-2, -1) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Mix `value` by the likeness of `query` and `key`, with the kernel that `module.config` names.

    Args:
        module: has `config`, `scaling` and `is_causal`; its `training` decides about dropout.
        query: `(batch, heads, tokens, head_dim)`; key and value `(batch, heads, keys, head_dim)`.
        attention_mask: added to the scores, or boolean where the kernel takes that.

    Returns:
        `(batch, tokens, heads * head_dim)`, and the weights where the kernel has them, else None.
    """
    config: Any = module.config
    scaling: Any = module.scaling
    is_bare = attention_mask is None and not module.is_causal and not (dropout and module.training)
    if config._attn_implementation == "sdpa" and is_bare and prefers_products(query, key):
        return half_attention(query, key, value, scaling).flatten(-2), None
    function: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
        config._attn_implementation, eager_attention_forward
    )
    mixed, weights = function(
        module,
        query,
        key,
        value,
        attention_mask,
        is_causal=module.is_causal,
        scaling=scaling,
        dropout=dropout if module.training else 0.0,
    )
    return mixed.flatten(-2), weights
