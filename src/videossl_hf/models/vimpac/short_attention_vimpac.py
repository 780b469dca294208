"""VIMPAC's axial attention on a CPU in training: all axes of a step at once, by plain batched products.

Rows of 6 to 33 tokens are too short for the fused kernel of scaled dot-product attention, whose backward
pass in bfloat16 alone takes a third of a training step. Here the rows are laid out once, and kept, as three
runs of small matrices; every product reads and writes those, and gradients go straight to where the
projection wants them, without tensors of zeros for each slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["attend_axes"]

Axis = tuple[int, Tensor | None, Tensor | None]
"""0, 1 or 2; what is added to its scores `(batch * rows, 1, 1, 1 + length)`; and weights of the rows
`(batch, rows, rows')` in the mean of CLS."""


def attend_axes(
    qkv: Tensor, grid: tuple[int, int, int], axes: Sequence[Axis], head_dim: int, dropout: float = 0.0
) -> Tensor:
    """Attention along each axis, every row to itself and to the one CLS token, whose results are averaged.

    Args:
        qkv: `(batch, 1 + places, axes * 3 * size)`, CLS first: queries, keys and values of each axis.
        grid: frames, rows and columns.
        dropout: of the probabilities.

    Returns:
        `(batch, 1 + places, axes * size)`.
    """
    mixed: Tensor = _AttendAxes.apply(qkv, grid, axes, head_dim, dropout)
    return mixed


def _places(x: Tensor, grid: tuple[int, int, int], axis: int) -> Tensor:
    """`(batch, 1 + places, parts, heads, head_dim)` to a view of its places `(parts, batch, rows, rows',
    heads, length, head_dim)`."""
    return x[:, 1:].unflatten(1, grid).movedim(axis + 1, 3).permute(4, 0, 1, 2, 5, 3, 6)


def _cls(x: Tensor) -> Tensor:
    """The same of CLS: a view `(parts, batch, 1, 1, heads, head_dim)`."""
    return x[:, 0].movedim(1, 0)[:, :, None, None]


def _rows(places: Tensor, cls: Tensor) -> Tensor:
    """`(batch, rows, rows', heads, length, head_dim)` with CLS before each row, one behind the other:
    `(batch * rows * rows' * heads, 1 + length, head_dim)`."""
    *outer, length, head_dim = places.shape
    rows = places.new_empty(*outer, 1 + length, head_dim)
    rows[..., 1:, :] = places
    rows[..., 0, :] = cls
    return rows.flatten(0, 3)


class _AttendAxes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, grid: tuple[int, int, int], axes: Sequence[Axis], head_dim: int, dropout: float
    ) -> Tensor:
        batch, tokens = qkv.shape[:2]
        parts = qkv.view(batch, tokens, len(axes), 3, -1, head_dim)
        mixed = qkv.new_empty(batch, tokens, len(axes), 1, parts.shape[4], head_dim)
        saved: list[Tensor | None] = []
        for number, (axis, scores, row_weights) in enumerate(axes):
            source, target = parts[:, :, number], mixed[:, :, number]
            places = _places(source, grid, axis)
            *outer, length, _ = places.shape[1:]
            query, key, value = (_rows(place, cls) for place, cls in zip(places, _cls(source), strict=True))
            found = query.new_empty(len(query), 1 + length, 1 + length)
            torch.baddbmm(found, query, key.transpose(1, 2), beta=0, alpha=head_dim**-0.5, out=found)
            if scores is not None:
                found.view(len(scores), -1, 1 + length, 1 + length).add_(scores)
            weights = found.softmax(-1)
            applied, kept = weights, None
            if dropout:
                applied, kept = torch.native_dropout(weights, dropout, True)
            result = (applied @ value).view(1, *outer, 1 + length, head_dim)
            _places(target, grid, axis).copy_(result[..., 1:, :])
            of_cls = result[..., 0, :]
            if row_weights is None:
                of_cls = of_cls.mean((2, 3), keepdim=True)
            else:
                of_cls = (of_cls * row_weights[None, ..., None, None]).sum((2, 3), keepdim=True)
            _cls(target).copy_(of_cls)
            saved += [query, key, value, weights, kept, row_weights]
        ctx.save_for_backward(*saved)
        ctx.grid, ctx.axes, ctx.dropout, ctx.shape = grid, [axis for axis, *_ in axes], dropout, parts.shape
        return mixed.view(batch, tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        batch, tokens, axes, _, heads, head_dim = ctx.shape
        gradient = gradients[0].reshape(batch, tokens, axes, 1, heads, head_dim)
        result = gradient.new_empty(ctx.shape)
        saved = ctx.saved_tensors
        for number, axis in enumerate(ctx.axes):
            query, key, value, weights, kept, row_weights = saved[6 * number : 6 * number + 6]
            source, target = gradient[:, :, number], result[:, :, number]
            (places,) = _places(source, ctx.grid, axis)
            share = 1 / (places.shape[1] * places.shape[2])
            of_cls = _cls(source)[0] * (share if row_weights is None else row_weights[..., None, None])
            mixed = _rows(places, of_cls)
            of_weights = mixed @ value.transpose(1, 2)
            applied = weights
            if kept is not None:
                scale = 1 / (1 - ctx.dropout) if ctx.dropout < 1 else 0.0
                applied = weights * kept * scale
                of_weights = of_weights.mul_(kept).mul_(scale)
            found = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            found.mul_(head_dim**-0.5)
            products = [(found, key), (found.transpose(1, 2), query), (applied.transpose(1, 2), mixed)]
            shape = (*places.shape[:-2], -1, head_dim)
            parts = zip(products, _places(target, ctx.grid, axis), _cls(target), strict=True)
            for (left, right), of_places, of_cls in parts:
                back = (left @ right).view(shape)
                of_places.copy_(back[..., 1:, :])
                of_cls.copy_(back[..., 0, :].sum((1, 2), keepdim=True))
        return result.view(batch, tokens, -1), None, None, None, None
