"""VIMPAC's axial attention on a CPU in training: all axes of a step at once, by plain batched products.

Rows of 6 to 33 tokens are too short for the fused kernel of scaled dot-product attention, whose backward
pass in bfloat16 alone takes a third of a training step. Here the rows are laid out as runs of small matrices;
every product reads and writes those, and gradients go straight to where the projection wants them, without
tensors of zeros for each slice. Kept are the projections and the probabilities: the rows are laid out again
in the backward pass, and one product gives the result again, so that the next linear layer need not keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...nn.lean_linear import saved_once

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


def _rows(x: Tensor, grid: tuple[int, int, int], axis: int) -> Iterator[Tensor]:
    """Of each part of `(batch, 1 + places, parts, heads, head_dim)` the rows along an axis, each with CLS
    before it, one behind the other: `(batch * rows * rows' * heads, 1 + length, head_dim)`."""
    for places, cls in zip(_places(x, grid, axis), _cls(x), strict=True):
        yield _join(places, cls)


def _join(places: Tensor, cls: Tensor) -> Tensor:
    """Rows of the places `(batch, rows, rows', heads, length, head_dim)` and of what stands before each."""
    *outer, length, head_dim = places.shape
    rows = places.new_empty(*outer, 1 + length, head_dim)
    rows[..., 1:, :] = places
    rows[..., 0, :] = cls
    return rows.flatten(0, 3)


def _applied(weights: Tensor, kept: Tensor | None, dropout: float) -> Tensor:
    """Weights of which some have been dropped, as `native_dropout` has scaled them."""
    if kept is None:
        return weights
    return weights * kept * (1 / (1 - dropout) if dropout < 1 else 0.0)


def _mix(
    weights: Tensor,
    value: Tensor,
    row_weights: Tensor | None,
    target: Tensor,
    grid: tuple[int, int, int],
    axis: int,
) -> None:
    """Products of weights and values, and the mean of CLS over all rows, written into `target`
    `(batch, 1 + places, 1, heads, head_dim)`."""
    places = _places(target, grid, axis)
    result = (weights @ value).view(*places.shape[:-2], -1, places.shape[-1])
    places.copy_(result[..., 1:, :])
    of_cls = result[..., 0, :]
    if row_weights is None:
        of_cls = of_cls.mean((2, 3), keepdim=True)
    else:
        of_cls = (of_cls * row_weights[None, ..., None, None]).sum((2, 3), keepdim=True)
    _cls(target).copy_(of_cls)


def _mix_again(ctx: Any) -> Tensor:
    """The result once more."""
    qkv, *saved = saved_once(ctx, for_more=True)
    parts = qkv.view(ctx.shape)
    mixed = qkv.new_empty(parts[:, :, :, :1].shape)
    for number, axis in enumerate(ctx.axes):
        weights, kept, row_weights = saved[3 * number : 3 * number + 3]
        (value,) = _rows(parts[:, :, number, 2:], ctx.grid, axis)
        _mix(_applied(weights, kept, ctx.dropout), value, row_weights, mixed[:, :, number], ctx.grid, axis)
    return mixed.view(*qkv.shape[:2], -1)


class _AttendAxes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, grid: tuple[int, int, int], axes: Sequence[Axis], head_dim: int, dropout: float
    ) -> Tensor:
        parts = qkv.view(*qkv.shape[:2], len(axes), 3, -1, head_dim)
        mixed = qkv.new_empty(parts[:, :, :, :1].shape)
        saved: list[Tensor | None] = []
        for number, (axis, scores, row_weights) in enumerate(axes):
            query, key, value = _rows(parts[:, :, number], grid, axis)
            length = query.shape[1]
            found = query.new_empty(len(query), length, length)
            torch.baddbmm(found, query, key.transpose(1, 2), beta=0, alpha=head_dim**-0.5, out=found)
            if scores is not None:
                found.view(len(scores), -1, length, length).add_(scores)
            applied = weights = found.softmax(-1)
            kept = None
            if dropout:
                applied, kept = torch.native_dropout(weights, dropout, True)
            _mix(applied, value, row_weights, mixed[:, :, number], grid, axis)
            saved += [weights, kept, row_weights]
        ctx.save_for_backward(qkv, *saved)
        ctx.again = _mix_again
        ctx.grid, ctx.axes, ctx.dropout, ctx.shape = grid, [axis for axis, *_ in axes], dropout, parts.shape
        return mixed.view(*qkv.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, *saved = saved_once(ctx)
        parts = qkv.view(ctx.shape)
        head_dim = ctx.shape[-1]
        gradient = gradients[0].reshape(parts[:, :, :, :1].shape)
        result = gradient.new_empty(ctx.shape)
        for number, axis in enumerate(ctx.axes):
            weights, kept, row_weights = saved[3 * number : 3 * number + 3]
            source, target = gradient[:, :, number], result[:, :, number]
            (places,) = _places(source, ctx.grid, axis)
            share = 1 / (places.shape[1] * places.shape[2])
            of_cls = _cls(source)[0] * (share if row_weights is None else row_weights[..., None, None])
            mixed = _join(places, of_cls)
            query, key, value = _rows(parts[:, :, number], ctx.grid, axis)
            of_weights = _applied(mixed @ value.transpose(1, 2), kept, ctx.dropout)
            applied = _applied(weights, kept, ctx.dropout)
            found = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            found.mul_(head_dim**-0.5)
            products = [(found, key), (found.transpose(1, 2), query), (applied.transpose(1, 2), mixed)]
            shape = (*places.shape[:-2], -1, head_dim)
            targets = zip(products, _places(target, ctx.grid, axis), _cls(target), strict=True)
            for (left, right), of_places, of_cls in targets:
                back = (left @ right).view(shape)
                of_places.copy_(back[..., 1:, :])
                of_cls.copy_(back[..., 0, :].sum((1, 2), keepdim=True))
        return result.view(qkv.shape), None, None, None, None
