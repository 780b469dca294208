"""STiCA's pooling: a light transformer instead of the average over a feature map, or over crops of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ...errors import InputError
from ...nn.attention import attend, split_heads
from .configuration_stica import STiCAConfig

__all__ = ["STiCAPooling", "STiCAPoolingAttention", "STiCAPoolingLayer"]


class STiCAPoolingAttention(nn.Module):
    """Self-attention whose values are the tokens themselves and whose output is not projected (by
    default)."""

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.head_dim = size // config.pooling_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size) if config.pooling_full_qkv else nn.Identity()
        self.out = nn.Linear(size, size) if config.pooling_full_qkv else nn.Identity()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """`(batch, tokens, hidden)` to the same, and the attention weights where the implementation has
        them."""
        query, key, value = (
            split_heads(layer(tokens), self.head_dim) for layer in (self.query, self.key, self.value)
        )
        mixed, weights = attend(self, query, key, value.to(query.dtype), dropout=self.config.pooling_dropout)
        return self.out(mixed), weights


class STiCAPoolingLayer(GradientCheckpointingLayer):
    """x = norm1(x + attention(x)); x = norm2(x + feed_forward(x))."""

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attention = STiCAPoolingAttention(config)
        self.dropout = nn.Dropout(config.pooling_dropout)
        self.norm1 = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, config.pooling_ffn), nn.GELU(), nn.Linear(config.pooling_ffn, size)
        )
        self.norm2 = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, tokens, hidden)` to the same."""
        tokens = self.norm1(tokens + self.dropout(self.attention(tokens)[0]))
        return self.norm2(tokens + self.feed_forward(tokens))


class STiCAPooling(nn.Module):
    """Turns a feature map, or any number of crops of it, into vectors.

    Each is averaged over space and resampled to a fixed number of tokens over time; the transformer's output
    at the first token is the vector. With no layers it is the plain average.
    """

    def __init__(self, config: STiCAConfig) -> None:
        super().__init__()
        depth = config.pooling_layers or 0
        self.num_tokens = config.pooling_tokens
        self.layers = nn.ModuleList(STiCAPoolingLayer(config) for _ in range(depth))
        has_position = config.pooling_position and depth > 0
        self.position = (
            nn.Embedding(config.pooling_position_size, config.hidden_size) if has_position else None
        )

    def token_count(self, feature_map: Tensor) -> int:
        """Tokens that a map is averaged to."""
        if not self.layers:
            return 1
        return self.num_tokens or feature_map.shape[2]

    def forward(self, feature_map: Tensor) -> Tensor:
        """`(batch, hidden, frames, height, width)` to `(batch, hidden)`."""
        count = self.token_count(feature_map)
        pooled = F.adaptive_avg_pool3d(feature_map, (count, 1, 1))
        return self.attend(pooled.flatten(2).transpose(1, 2))

    def attend(self, tokens: Tensor) -> Tensor:
        """`(..., tokens, hidden)` to `(..., hidden)`."""
        if not self.layers:
            return tokens[..., 0, :]
        leading = tokens.shape[:-2]
        tokens = tokens.reshape(-1, *tokens.shape[-2:]).to(next(self.layers.parameters()).dtype)
        if self.position is not None:
            if tokens.shape[1] > self.position.num_embeddings:
                raise InputError(
                    f"{tokens.shape[1]} tokens, but the position table has {self.position.num_embeddings}"
                    " rows; give fewer frames or set pooling_tokens"
                )
            tokens = tokens + self.position.weight[: tokens.shape[1]]
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, 0].unflatten(0, leading)
