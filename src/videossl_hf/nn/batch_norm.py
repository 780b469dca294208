"""BatchNorm over the batches of all processes.

torch's SyncBatchNorm needs a GPU. These layers take their statistics from all processes on any device and
backend, with batches that may differ in size, and keep the state keys of torch's BatchNorm. In one process,
or in evaluation, they are torch's BatchNorm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .distributed import process_count

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupedBatchNorm1d"]


def _is_recomputing() -> bool:
    """Whether a backward pass is running: activation checkpointing then repeats a forward pass, whose
    running statistics are already counted."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _count_sum_squares(x: Tensor, dims: list[int]) -> Tensor:
    """`(1 + 2 * channels,)` float64: number of values a channel, their sums, the sums of their squares.

    Made of mean and variance, because the plain sum of squares in float32 loses small variances.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    total = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=x.device)
    if count > 0:
        variance, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), dims, correction=0)
        mean = mean.double()
        total[0] = count
        total[1 : 1 + channels] = mean * count
        total[1 + channels :] = (variance.double() + mean.square()) * count
    return total


class _NormalizeOverProcesses(torch.autograd.Function):
    """Normalise `(batch, channels, ...)` with the statistics of all processes' batches.

    Returns the result, and for the running statistics the mean, the variance and the number of values.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        dims = [0, *range(2, x.dim())]
        total = _count_sum_squares(x, dims)
        dist.all_reduce(total)
        count, sums, squares = total.split([1, x.shape[1], x.shape[1]])
        mean = sums / count
        variance = (squares / count - mean.square()).clamp_min(0)
        dtype = weight.dtype
        y = F.batch_norm(x, mean.to(dtype), variance.to(dtype), weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        statistics = mean.to(dtype), variance.to(dtype), count.to(dtype)
        ctx.mark_non_differentiable(*statistics)
        return y, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        dims = [0, *range(2, x.dim())]
        dtype = torch.promote_types(x.dtype, torch.float32)

        def along_channels(vector: Tensor) -> Tensor:
            return vector.to(dtype).view(1, -1, *[1] * (x.dim() - 2))

        gradient = gradient.to(dtype)
        normalized = (x.to(dtype) - along_channels(mean)) * along_channels(inverse_std)
        bias_gradient = gradient.sum(dims)
        weight_gradient = (gradient * normalized).sum(dims)
        total = torch.stack([bias_gradient, weight_gradient]).double()
        dist.all_reduce(total)
        mean_gradient, mean_product = total / count
        x_gradient = gradient - along_channels(mean_gradient) - normalized * along_channels(mean_product)
        x_gradient = x_gradient * along_channels(inverse_std * weight)
        return x_gradient.to(x.dtype), weight_gradient.to(weight.dtype), bias_gradient.to(weight.dtype), None


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

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels, ...)`."""
        self._check_input_dim(x)
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        keep = not _is_recomputing()
        if self.synchronized and process_count() > 1:
            y, mean, variance, count = _NormalizeOverProcesses.apply(x, self.weight, self.bias, self.eps)
            if keep:
                self._update(mean[None], variance[None], count)
            return y
        if keep:
            self.num_batches_tracked.add_(1)
        running: tuple[Tensor | None, Tensor | None] = (None, None)
        if x.numel() > x.shape[1]:  # a single value a channel has no unbiased variance to keep
            running = self.running_mean, self.running_var
            if not keep:  # checkpointing wants the repeated pass to save as many tensors as the first
                running = self.running_mean.clone(), self.running_var.clone()
        return torch.batch_norm(
            x, self.weight, self.bias, *running, True, self.momentum, self.eps, torch.backends.cudnn.enabled
        )

    @torch.no_grad()
    def _update(self, means: Tensor, variances: Tensor, count: Tensor | float) -> None:
        """Move the running statistics towards those of one or more batches, `(batches, channels)`, in
        turn."""
        batches = means.shape[0]
        keep = 1 - self.momentum
        shares = [self.momentum * keep ** (batches - 1 - index) for index in range(batches)]
        correction = count / (count - 1) if isinstance(count, Tensor) else count / max(count - 1, 1)
        self.running_mean.mul_(keep**batches)
        self.running_var.mul_(keep**batches)
        for share, mean, variance in zip(shares, means.unbind(), variances.unbind(), strict=True):
            self.running_mean.add_(mean.to(self.running_mean.dtype), alpha=share)
            self.running_var.add_((variance * correction).to(self.running_var.dtype), alpha=share)
        self.num_batches_tracked.add_(batches)


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
        if self.synchronized and process_count() > 1:
            y, mean, variance, count = _NormalizeOverProcesses.apply(wide, weight, bias, self.eps)
        else:
            y = torch.batch_norm(wide, weight, bias, None, None, True, 0.0, self.eps, False)
            count = batch
            variance, mean = torch.var_mean(wide.detach().to(weight.dtype), 0, correction=0)
        if not _is_recomputing():
            self._update(mean.view(groups, channels), variance.view(groups, channels), count)
        return y.view(batch, groups, channels).transpose(0, 1)
