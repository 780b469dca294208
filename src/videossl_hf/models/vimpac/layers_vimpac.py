"""VIMPAC's transformer blocks, its embeddings and the two heads of pre-training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ...errors import InputError
from ...nn.attention import attend, split_heads
from ...nn.batch_norm import BatchNorm1d
from ...nn.lean_linear import activation_linear, lean_norm, norm_and_linear, plain_linear
from ...nn.mlp import Mlp
from .configuration_vimpac import AXES, VIMPACConfig
from .positions_vimpac import VIMPACPositions
from .short_attention_vimpac import attend_axes


class AxisPadding(NamedTuple):
    """What padding means for the attention along one axis.

    Attributes:
        scores: `(batch * rows, 1, 1, 1 + length)`, added to the scores: -inf at padding, never at CLS.
        row_weights: `(batch, rows, rows')`, weight of each row in the mean of CLS; None weighs all the same.
    """

    scores: Tensor
    row_weights: Tensor | None


def axis_padding(is_padding: Tensor, axis: int, dtype: torch.dtype, ignore_rows: bool) -> AxisPadding:
    """From `is_padding` `(batch, frames, rows, columns)`; `axis` is 0, 1 or 2."""
    rows = is_padding.movedim(axis + 1, -1)
    scores = torch.zeros_like(rows, dtype=dtype).masked_fill(rows, -torch.inf)
    # Padded as scores: of a padded boolean mask, torch 2.13's inductor makes C++ that does not compile.
    scores = F.pad(scores, (1, 0)).flatten(0, 2)[:, None, None]
    if not ignore_rows:
        return AxisPadding(scores, None)
    weights = (~rows.all(-1)).to(dtype)
    return AxisPadding(scores, weights / weights.sum((1, 2), keepdim=True).clamp_min(1))


class VIMPACAxialAttention(nn.Module):
    """Attention along one axis: every row of the clip attends to itself and to the one CLS token.

    CLS takes part in every row; what it becomes is the mean over the rows.
    """

    def __init__(self, config: VIMPACConfig, axis: int, size: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.axis = axis
        self.grid = config.grid
        self.head_dim = size // heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False

    def forward(self, qkv: Tensor, padding: AxisPadding | None = None) -> tuple[Tensor, Tensor | None]:
        """Queries, keys and values `(batch, 1 + places, 3 * size)`, CLS first, to
        `(batch, 1 + places, size)` and the weights."""
        tokens = qkv[:, 1:].unflatten(1, self.grid).movedim(self.axis + 1, 3)
        cls = qkv[:, :1, None, None].expand(-1, tokens.shape[1], tokens.shape[2], -1, -1)
        rows = torch.cat([cls, tokens], dim=3)
        query, key, value = (split_heads(x, self.head_dim) for x in rows.flatten(0, 2).chunk(3, dim=-1))
        scores = None if padding is None else padding.scores
        mixed, weights = attend(self, query, key, value, scores, self.config.attention_dropout)
        mixed = mixed.unflatten(0, (-1, *rows.shape[1:3]))
        cls, tokens = mixed[..., 0, :], mixed[..., 1:, :]
        if padding is None or padding.row_weights is None:
            cls = cls.mean((1, 2))
        else:
            cls = (cls * padding.row_weights[..., None]).sum((1, 2))
        return torch.cat([cls[:, None], tokens.movedim(3, self.axis + 1).flatten(1, 3)], dim=1), weights


class VIMPACAttentionStep(nn.Module):
    """One step of the layout: its axes side by side, each with its share of the heads, and their mixture."""

    def __init__(self, config: VIMPACConfig, axes: list[str]) -> None:
        super().__init__()
        size, heads = config.attention_size // len(axes), config.num_attention_heads // len(axes)
        self.config = config
        self.qkv = nn.Linear(config.hidden_size, 3 * config.attention_size)
        self.axes = [AXES.index(name) for name in axes]
        self.attentions = nn.ModuleList(VIMPACAxialAttention(config, axis, size, heads) for axis in self.axes)
        self.output = nn.Linear(config.attention_size, config.hidden_size)
        self.output.ends_branch = True  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_norm = config.pre_norm

    def forward(
        self,
        hidden: Tensor,
        before: nn.Module,
        padding: dict[int, AxisPadding] | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """`(batch, 1 + places, hidden)` to the same, or with `wanted`, flat positions, to `(wanted, hidden)`.

        `before` norms what comes in: with `pre_norm` for this step alone, else it is the norm that the step
        before has left to be done, since here what it gives need not be kept for the backward pass.
        """
        normed, qkv = norm_and_linear(hidden, before, self.qkv)
        residual = hidden if self.pre_norm else normed
        joined = self._attend_briefly(qkv, padding) if self._is_short(qkv) else self._attend(qkv, padding)
        if wanted is not None:
            residual, joined = residual.flatten(0, 1)[wanted], joined.flatten(0, 1)[wanted]
        return self.dropout(plain_linear(joined, self.output)) + residual

    def _attend(self, qkv: Tensor, padding: dict[int, AxisPadding] | None) -> Tensor:
        mixed = [
            attention(part, None if padding is None else padding[axis])[0]
            for axis, attention, part in zip(
                self.axes, self.attentions, qkv.chunk(len(self.axes), dim=-1), strict=True
            )
        ]
        return torch.cat(mixed, dim=-1)

    def _is_short(self, qkv: Tensor) -> bool:
        """Whether plain products are the faster choice: in training on a CPU, with no kernel asked for."""
        is_default = self.config._attn_implementation == "sdpa"
        trains = qkv.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return is_default and trains and qkv.device.type == "cpu"

    def _attend_briefly(self, qkv: Tensor, padding: dict[int, AxisPadding] | None) -> Tensor:
        axes = [(axis, *(padding[axis] if padding is not None else (None, None))) for axis in self.axes]
        dropout = self.config.attention_dropout if self.training else 0.0
        axial: Any = self.attentions[0]
        return attend_axes(qkv, axial.grid, axes, axial.head_dim, float(dropout))


class VIMPACLayer(GradientCheckpointingLayer):
    """Block: the steps of the layout, then the MLP, each with a residual connection and a layer norm."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.steps = nn.ModuleList(VIMPACAttentionStep(config, axes) for axes in config.steps)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size)
        self.mlp.fc2.ends_branch = True  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.nothing = nn.Identity()
        self.pre_norm = config.pre_norm

    def forward(
        self,
        hidden: Tensor,
        padding: dict[int, AxisPadding] | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """`(batch, 1 + places, hidden)` to the same, or with `wanted`, flat positions, to
        `(wanted, hidden)`: what others need of the rest is computed, and no more."""
        before: nn.Module = self.nothing
        step: Any
        for place, step in enumerate(self.steps):
            is_last = place == len(self.steps) - 1
            hidden = step(
                hidden,
                step.norm if self.pre_norm else before,
                padding=padding,
                wanted=wanted if is_last else None,
            )
            before = step.norm
        normed, inner = norm_and_linear(hidden, self.norm if self.pre_norm else before, self.mlp.fc1)
        output = self.dropout(activation_linear(inner, self.mlp.activation, self.mlp.fc2))
        return hidden + output if self.pre_norm else lean_norm(normed + output, self.norm)


class VIMPACEmbeddings(nn.Module):
    """Codes to vectors, with CLS before them and positions added."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.codes = nn.Embedding(config.vocab_size or 0, config.hidden_size)
        self.cls = nn.Parameter(torch.empty(config.hidden_size))
        self.positions = VIMPACPositions(config)
        self.norm: nn.Module = nn.Identity()
        if not config.pre_norm:
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, codes: Tensor) -> Tensor:
        """`(batch, frames, rows, columns)` to `(batch, 1 + frames * rows * columns, hidden)`."""
        try:
            embedded = self.codes(codes.flatten(1))
        except IndexError as error:  # a GPU would stop with an assertion
            raise InputError(
                f"input_codes reach beyond the vocabulary of {self.codes.num_embeddings} codes: were they"
                " made by another tokeniser?"
            ) from error
        cls = self.cls.expand(codes.shape[0], 1, -1)
        return self.dropout(self.norm(torch.cat([cls, embedded], dim=1) + self.positions()))


class VIMPACTokenHead(nn.Module):
    """Scores of all codes for a place; the output matrix is the embedding of the codes."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.empty(config.vocab_size or 0))

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """`(places, hidden)` and `(vocabulary, hidden)` to `(places, vocabulary)`."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class VIMPACProjection(nn.Module):
    """Head of the contrastive loss: hidden layers with a norm, and a last linear layer without bias."""

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        widths = [config.hidden_size, *[config.projection_hidden] * (config.projection_layers - 1)]
        widths.append(config.projection_dim)
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=place < config.projection_layers - 1)
            for place, (before, after) in enumerate(pairwise(widths))
        )
        self.norm_first = config.projection_norm == "batch"
        self.norms = nn.ModuleList(
            BatchNorm1d(width, synchronized=config.synchronize_batch_norm)
            if self.norm_first
            else nn.LayerNorm(width, eps=config.layer_norm_eps)
            for width in widths[1:-1]
        )
        self.activation = ACT2FN[config.projection_activation]
        self.final_norm: nn.Module = nn.Identity()
        if config.projection_final_norm:
            self.final_norm = BatchNorm1d(config.projection_dim, synchronized=config.synchronize_batch_norm)

    def forward(self, cls: Tensor) -> Tensor:
        """`(clips, hidden)` to `(clips, projection_dim)`."""
        x = cls
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            x = self.activation(norm(layer(x))) if self.norm_first else norm(self.activation(layer(x)))
        return self.final_norm(self.layers[-1](x))


__all__ = [
    "AxisPadding",
    "VIMPACAttentionStep",
    "VIMPACAxialAttention",
    "VIMPACEmbeddings",
    "VIMPACLayer",
    "VIMPACProjection",
    "VIMPACTokenHead",
    "axis_padding",
]
