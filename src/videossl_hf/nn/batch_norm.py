"""BatchNorm over the batches of all processes, precise on CPUs too.

torch's SyncBatchNorm needs a GPU. These layers take their statistics from all processes on any device and
backend, with batches that may differ in size, and keep the state keys of torch's BatchNorm. In one process,
or in evaluation, they compute what torch's BatchNorm computes. Statistics of float32 tensors on a CPU are
summed here as well: with channels last in memory torch adds up all values of a channel one by one, and the
rounding errors of that (1e-5 after 100,000 values) show in the gradients of a network this deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .distributed import process_count

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupedBatchNorm1d"]

_CHUNK_VALUES = 2**17  # half a MB in float32: intermediate results stay in the cache


def _is_recomputing() -> bool:
    """Whether a backward pass is running: activation checkpointing then repeats a forward pass, whose
    running statistics are already counted."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of tensors `(..., channels)`, on a CPU some at a time."""
    channels = tensors[0].shape[-1]
    rows = [tensor.view(-1, channels) for tensor in tensors]
    size = max(1, _CHUNK_VALUES // channels if rows[0].device.type == "cpu" else len(rows[0]))
    return zip(*(tensor.split(size) for tensor in rows), strict=True)


def _count_sums_squares(x: Tensor) -> Tensor:
    """Number of values, sums and sums of squares of `(..., channels)`: `(1 + 2 * channels,)` float64.

    The squares are summed around the mean, because float32 loses small variances otherwise.
    """
    channels = x.shape[-1]
    count = x.numel() // channels
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean = x.view(-1, channels).sum(0, dtype=dtype) / max(count, 1)
    centred = torch.zeros(channels, dtype=torch.float64, device=x.device)
    for (part,) in _chunks(x):
        centred += (part - mean).square().sum(0)
    mean = mean.double()
    return torch.cat([torch.full_like(mean[:1], count), mean * count, centred + mean.square() * count])


class BatchStatistics(NamedTuple):
    """Mean and variance of every channel, `(channels,)`, and the number of values behind them, `(1,)`."""

    mean: Tensor
    variance: Tensor
    number: Tensor


def batch_statistics(x: Tensor, joined: bool) -> BatchStatistics:
    """Statistics of `(..., channels)`, of all processes together where `joined`."""
    channels = x.shape[-1]
    total = _count_sums_squares(x)
    if joined:
        dist.all_reduce(total)
    count, sums, squares = total.split([1, channels, channels])
    mean = sums / count
    variance = (squares / count - mean.square()).clamp_min(0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return BatchStatistics(mean.to(dtype), variance.to(dtype), count)


def normalize(x: Tensor, statistics: BatchStatistics, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`(..., channels)` normalised, scaled and shifted: `(batch, channels, ...)`."""
    mean, variance = statistics.mean.to(weight.dtype), statistics.variance.to(weight.dtype)
    return F.batch_norm(x.movedim(-1, 1), mean, variance, weight, bias, False, 0.0, eps)


def normalize_backward(
    x: Tensor,
    gradient: Tensor,
    statistics: BatchStatistics,
    weight: Tensor,
    eps: float,
    joined: bool,
    in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `normalize` for `x`, weight and bias, with the statistics' own dependence on `x`.

    Takes `x` as `(..., channels)`, and the gradient as `(batch, channels, ...)`; it is lost where `in_place`.
    """
    mean, variance, count = statistics
    inverse_std = (variance + eps).rsqrt()
    gradient = gradient.movedim(1, -1).contiguous()
    weight_gradient, bias_gradient = torch.zeros(2, len(mean), dtype=torch.float64, device=x.device)
    for part, part_gradient in _chunks(x, gradient):
        bias_gradient += part_gradient.sum(0, dtype=mean.dtype)
        weight_gradient += ((part - mean) * part_gradient).sum(0)
    weight_gradient *= inverse_std
    total = torch.stack([weight_gradient, bias_gradient])
    if joined:
        dist.all_reduce(total)
    mean_product, mean_gradient = (total / count).to(mean.dtype)
    scale = inverse_std * weight
    slope = -scale * inverse_std * mean_product
    x_gradient = gradient if in_place else torch.empty_like(x)
    for part, part_gradient, out in _chunks(x, gradient, x_gradient):
        out.copy_(((part_gradient - mean_gradient) * scale).addcmul_(part - mean, slope))
    return x_gradient.movedim(-1, 1), weight_gradient.to(weight.dtype), bias_gradient.to(weight.dtype)


class _NormalizeBatch(torch.autograd.Function):
    """Normalise `(batch, channels, ...)` with the statistics of the batch, or of all processes' batches.

    Returns the result, and the statistics for the running ones.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, joined: bool
    ) -> tuple[Tensor, ...]:
        last = x.movedim(1, -1).contiguous()
        statistics = batch_statistics(last, joined)
        ctx.eps, ctx.joined = eps, joined
        ctx.save_for_backward(last, weight, *statistics)
        ctx.mark_non_differentiable(*statistics)
        return normalize(last, statistics, weight, bias, eps), *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *statistics = ctx.saved_tensors
        gradients = normalize_backward(x, gradient, BatchStatistics(*statistics), weight, ctx.eps, ctx.joined)
        return *gradients, None, None


class _CrossProcessBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Common part; `synchronized=False` keeps each process's statistics to itself."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, synchronized: bool = True
    ) -> None:
        super().__init__(num_features, eps, momentum)
        self.synchronized = synchronized

    @property
    def is_joined(self) -> bool:
        """Whether statistics are those of several processes now."""
        return self.synchronized and process_count() > 1

    def computes_here(self, x: Tensor) -> bool:
        """Whether this batch is normalised by the functions of this file, and not by torch."""
        if not self.training:
            return False
        on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
        has_one_value = x.numel() == x.shape[1]  # which torch refuses
        return self.is_joined or on_cpu or has_one_value

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels, ...)`."""
        self._check_input_dim(x)
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """The same, whatever the number of axes."""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        if self.computes_here(x):
            y, *statistics = _NormalizeBatch.apply(x, self.weight, self.bias, self.eps, self.is_joined)
            self.track(BatchStatistics(*statistics))
            return y
        mean, variance = self.running_mean, self.running_var
        if _is_recomputing():  # checkpointing wants the second pass to save as many tensors as the first
            mean, variance = mean.clone(), variance.clone()
        else:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)

    @torch.no_grad()
    def track(self, statistics: BatchStatistics) -> None:
        """Move the running statistics towards those of a batch, `(channels,)`, or of several batches one
        after the other, `(batches, channels)`."""
        if _is_recomputing():
            return
        means, variances = torch.atleast_2d(statistics.mean), torch.atleast_2d(statistics.variance)
        unbiased = variances * (statistics.number / (statistics.number - 1).clamp_min(1))
        for mean, variance in zip(means.unbind(), unbiased.unbind(), strict=True):
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(len(means))


class BatchNorm1d(_CrossProcessBatchNorm, nn.BatchNorm1d):
    """BatchNorm of `(batch, channels)` or `(batch, channels, length)` over all processes."""


class BatchNorm2d(_CrossProcessBatchNorm, nn.BatchNorm2d):
    """BatchNorm of `(batch, channels, height, width)` over all processes."""


class BatchNorm3d(_CrossProcessBatchNorm, nn.BatchNorm3d):
    """BatchNorm of `(batch, channels, frames, height, width)` over all processes."""


class GroupedBatchNorm1d(_CrossProcessBatchNorm, nn.BatchNorm1d):
    """BatchNorm of several batches at once, `(groups, batch, channels)`, each with its own statistics.

    Equal to calling BatchNorm1d on the groups one after the other, also in the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(groups, batch, channels)`."""
        if not self.training:
            return super().forward(x.flatten(0, 1)).view_as(x)
        groups, batch, channels = x.shape
        wide = x.transpose(0, 1).reshape(batch, groups * channels)
        weight, bias = self.weight.repeat(groups), self.bias.repeat(groups)
        y, mean, variance, count = _NormalizeBatch.apply(wide, weight, bias, self.eps, self.is_joined)
        self.track(BatchStatistics(mean.view(groups, channels), variance.view(groups, channels), count))
        return y.view(batch, groups, channels).transpose(0, 1)
