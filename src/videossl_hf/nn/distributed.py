"""What the losses and norms need of `torch.distributed`, and what it means when there is only one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["all_reduce_sum", "exchange", "gather", "process_count", "process_index"]


def process_count() -> int:
    """Number of processes that train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Rank of this process; 0 without `torch.distributed`."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every process's loss depends on every process's tensor.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def _all_gather(tensor: Tensor) -> Tensor:
    gathered = tensor.new_empty(dist.get_world_size(), *tensor.shape)
    dist.all_gather_into_tensor(gathered.view(-1), tensor.contiguous().view(-1))
    return gathered


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all processes, the same on each, differentiable.

    The gradient is that of the sum of all processes' losses, which is what DistributedDataParallel averages.
    """
    return _AllReduceSum.apply(tensor) if process_count() > 1 else tensor


def gather(tensor: Tensor, with_gradient: bool = False) -> Tensor:
    """The tensors of all processes, in one collective.

    Args:
        tensor: any shape, the same on every process (so a last, smaller batch must be dropped).
        with_gradient: let gradients flow to every process's tensor; by default the result is detached.

    Returns:
        `(processes, *tensor.shape)`, in the order of ranks.
    """
    if process_count() == 1:
        return tensor.unsqueeze(0) if with_gradient else tensor.detach().unsqueeze(0)
    return _Gather.apply(tensor) if with_gradient else _all_gather(tensor.detach())


def exchange(tensor: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
    """Send rows to other processes and receive theirs, in one collective and without gradient.

    Args:
        tensor: `(rows, ...)`; the first `sent[0]` rows go to process 0, and so on.
        sent: number of rows for each process.
        received: number of rows from each process: what it sends to this one.

    Returns:
        `(sum(received), ...)`, in the order of ranks.
    """
    tensor = tensor.detach()
    if process_count() == 1:
        return tensor
    arrived = tensor.new_empty(sum(received), *tensor.shape[1:])
    dist.all_to_all_single(arrived, tensor.contiguous(), list(received), list(sent))
    return arrived
