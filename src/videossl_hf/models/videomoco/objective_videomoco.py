"""Momentum contrast against a queue of ageing keys (He et al., CVPR 2020, with VideoMoCo's temporal decay).

Official code: github.com/tinapan-pt/VideoMoCo, moco/builder.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...nn.distributed import exchange, process_count, process_index


class KeyQueue(nn.Module):
    """Keys of earlier batches, as a ring. All its state is saved with the model.

    Buffers: `keys` `(dim, size)`, unit columns, random at first; `ages` `(size,)`, the number of batches
    since a key came, from 0 for those of the start; `pointer` `(1,)`, where the next key goes.
    """

    keys: Tensor
    ages: Tensor
    pointer: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.empty(dim, size))
        self.register_buffer("ages", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def check_batch(self, count: int) -> None:
        """Raise InputError for more new keys than the queue holds."""
        size = self.keys.shape[1]
        if count > size:
            raise InputError(
                f"a batch of {count} keys, over all processes, does not fit a queue of {size}: raise"
                " queue_size, or lower the batch size"
            )

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Let all keys age by one, and put `(count, dim)` new ones, of age 1, in place of the oldest."""
        self.check_batch(len(keys))
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % self.keys.shape[1]
        self.keys.index_copy_(1, places, keys.T.to(self.keys.dtype))
        self.ages.add_(1).index_fill_(0, places, 1)
        self.pointer.add_(len(keys)).remainder_(self.keys.shape[1])


def attach_gradient(value: Tensor, source: Tensor, gradient: Tensor) -> Tensor:
    """`value`, through which `gradient` (times the incoming one) flows back to `source`.

    For a scalar whose gradient was computed beforehand. What `value` has of its own is kept.
    """
    return _AttachGradient.apply(value, source, gradient)


class _AttachGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return incoming, incoming.to(gradient.dtype) * gradient, None


class Contrast(NamedTuple):
    """`loss` is a scalar; `logits` are `(batch, 1 + queue size)`, the positive first, detached; accuracies
    are the shares of queries whose key is the best, or among the best five."""

    loss: Tensor
    logits: Tensor
    accuracy_top1: Tensor
    accuracy_top5: Tensor


def contrast(
    queries: Tensor, keys: Tensor, queue: KeyQueue, temperature: float, log_decay: float | Tensor, mode: str
) -> Contrast:
    """Cross-entropy of finding each query's key among those of the queue.

    The gradient for the queries is computed at once: the queue is about to change in place, and copying it
    for a later backward pass would cost as much memory again.

    Args:
        queries, keys: `(batch, dim)`, unit length, float32 or better. Keys receive no gradient.
        log_decay: logarithm of the decay's base.
        mode: "logit" or "exp", see `VideoMoCoConfig.decay_mode`.
    """
    needs_gradient = torch.is_grad_enabled() and queries.requires_grad
    leaf = queries.detach().requires_grad_(needs_gradient)
    # Half precision would round a difference of one percent in the logits away.
    with torch.autocast(queries.device.type, enabled=False):
        decay = queue.ages.to(queries.dtype) * log_decay
        positives = (leaf * keys.detach()).sum(1, keepdim=True)
        negatives = leaf @ queue.keys.to(queries.dtype)
        if mode == "logit":
            logits = torch.cat([positives, negatives * decay.exp()], dim=1) / temperature
        else:
            logits = torch.cat([positives / temperature, negatives / temperature + decay], dim=1)
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    if needs_gradient:
        loss = attach_gradient(loss.detach(), queries, torch.autograd.grad(loss, leaf)[0])
    logits = logits.detach()
    better = (logits[:, 1:] > logits[:, :1]).sum(1)
    top1, top5 = ((better < count).to(logits.dtype).mean() for count in (1, 5))
    return Contrast(loss, logits, top1, top5)


class Shuffle(NamedTuple):
    """Which rows a process sends where.

    Attributes:
        order: `(batch,)` its own rows: those for process 0, for process 1, and so on.
        sent, received: number of rows to, and from, each process.
    """

    order: Tensor
    sent: list[int]
    received: list[int]


def draw_shuffle(batch: int, device: torch.device, generator: torch.Generator | None = None) -> Shuffle:
    """Every process sends as equal shares of its rows to all as there are, which rows is drawn.

    No process needs to know what the others have drawn, and no size is known to the device alone: nothing has
    to be broadcast or waited for.
    """
    count, rank = process_count(), process_index()
    whole, rest = divmod(batch, count)
    sent = [whole + ((other - rank - 1) % count < rest) for other in range(count)]
    received = [whole + ((rank - other - 1) % count < rest) for other in range(count)]
    source = device if generator is None else generator.device
    order = torch.rand(batch, generator=generator, device=source).argsort()
    return Shuffle(order.to(device, non_blocking=True), sent, received)


def shuffle_of(permutation: Tensor, device: torch.device) -> Shuffle:
    """The shuffle in which process r gets rows `permutation[r * batch : (r + 1) * batch]` of all.

    Args:
        permutation: `(processes * batch,)` int64 indices of all rows in the order of ranks, the same on all
            processes; on the CPU, as sizes of messages follow from it.

    Raises:
        InputError: it is no permutation of a multiple of the number of processes.
    """
    count, rank = process_count(), process_index()
    batch = len(permutation) // count
    if permutation.ndim != 1 or not torch.equal(permutation.sort().values, torch.arange(batch * count)):
        raise InputError(
            f"permutation has shape {tuple(permutation.shape)}; give each of the {count} processes'"
            " rows once, counted through all processes"
        )
    own = slice(rank * batch, (rank + 1) * batch)
    place = permutation.argsort()[own]
    sent, received = (
        [int(number) for number in torch.bincount(rows // batch, minlength=count)]
        for rows in (place, permutation[own])
    )
    return Shuffle(place.argsort().to(device), sent, received)


@torch.no_grad()
def encode_shuffled(
    encode: Callable[[Tensor], Tensor], clips: Tensor, shuffle: Shuffle, splits: int = 1
) -> Tensor:
    """Keys of a process's clips, each encoded among the clips of other processes.

    Only what changes places is sent: clips there, keys back.

    Args:
        encode: `(rows, ...)` clips to `(rows, dim)` keys.
        clips: `(batch, ...)`.
        splits: encode in so many parts, one after the other.
    """
    visitors = exchange(clips[shuffle.order], shuffle.sent, shuffle.received)
    keys = torch.cat([encode(part) for part in visitors.chunk(splits)])
    keys = exchange(keys, shuffle.received, shuffle.sent)
    return torch.empty_like(keys).index_copy_(0, shuffle.order, keys)


__all__ = [
    "Contrast",
    "KeyQueue",
    "Shuffle",
    "attach_gradient",
    "contrast",
    "draw_shuffle",
    "encode_shuffled",
    "shuffle_of",
]
