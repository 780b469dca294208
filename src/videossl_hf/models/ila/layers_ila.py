"""CLIP's transformer layer, and attention as ILA's text tower, vision tower, MIT and prompts share it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ...nn.attention import attend, split_heads
from ...nn.mlp import Mlp
from ...nn.onednn_linear import OneDNNLinear
from .configuration_ila import ILAConfig

__all__ = ["ILAAttention", "ILATransformerLayer", "interpolate_positions", "started"]


def started(layer: Any, std: float | None = None, bound: float | None = None) -> Any:
    """The layer, with a note for the model's initialisation: weights normal with `std`, or uniform within
    `bound`, and no biases. Layers without a note start as torch has them."""
    layer.initial_std, layer.initial_bound = std, bound
    return layer


class ILAAttention(nn.Module):
    """Multi-head attention with CLIP's names; on another sequence if one is given.

    Args:
        config: says which kernel computes it.
        width: of the tokens.
        heads: number of heads.
        qkv_bias: whether the projections in front have biases.
        is_causal: whether a token sees only those up to itself.
    """

    def __init__(
        self, config: ILAConfig, width: int, heads: int, qkv_bias: bool = True, is_causal: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = is_causal
        self.q_proj = OneDNNLinear(width, width, bias=qkv_bias)
        self.k_proj = OneDNNLinear(width, width, bias=qkv_bias)
        self.v_proj = OneDNNLinear(width, width, bias=qkv_bias)
        self.out_proj = OneDNNLinear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, tokens, width)` that look at `context` `(batch, keys, width)`, by default at themselves;
        with the weights where the kernel has them."""
        device = x.device.type
        is_cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if is_cast and x.dtype == torch.float32:
            x = x.to(torch.get_autocast_dtype(device))  # once for the three projections
        context = x if context is None else context
        query = split_heads(self.q_proj(x), self.head_dim)
        key = split_heads(self.k_proj(context), self.head_dim)
        value = split_heads(self.v_proj(context), self.head_dim)
        mixed, weights = attend(self, query, key, value, attention_mask)
        return self.out_proj(mixed), weights


class ILATransformerLayer(GradientCheckpointingLayer):
    """Pre-norm layer of CLIP: attention and MLP, each with a residual.

    Args:
        config: of the model.
        width, heads, intermediate, activation, eps: sizes.
        is_causal: for text.
        layers: of the tower, which CLIP's initialisation depends on; None leaves that to the caller.
    """

    def __init__(
        self,
        config: ILAConfig,
        width: int,
        heads: int,
        intermediate: int,
        activation: str = "quick_gelu",
        eps: float = 1e-5,
        is_causal: bool = False,
        layers: int | None = None,
    ) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.self_attn = ILAAttention(config, width, heads, is_causal=is_causal)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, intermediate, activation, OneDNNLinear)
        if layers is not None:
            inner = width**-0.5 * (2 * layers) ** -0.5
            for linear in (self.self_attn.q_proj, self.self_attn.k_proj, self.self_attn.v_proj, self.mlp.fc2):
                started(linear, inner)
            started(self.self_attn.out_proj, width**-0.5)
            started(self.mlp.fc1, (2 * width) ** -0.5)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`(batch, tokens, width)` to the same."""
        x = x + self.self_attn(self.layer_norm1(x), attention_mask=attention_mask)[0]
        return x + self.mlp(self.layer_norm2(x))


def interpolate_positions(positions: Tensor, size: tuple[int, ...]) -> Tensor:
    """Position embeddings `(1, width, *old)` at another `size` (one or two numbers)."""
    mode = "linear" if len(size) == 1 else "bicubic"
    wide = positions.to(torch.promote_types(positions.dtype, torch.float32))
    return nn.functional.interpolate(wide, size=size, mode=mode, align_corners=False).to(positions.dtype)
