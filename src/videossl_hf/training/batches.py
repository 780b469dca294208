"""Which samples form which batch: a function of seed, epoch and step only, so that a run can go on anywhere.

Map-style data: every epoch is a permutation; step `n` of it takes the next `world * batch` samples, and each
process its own `batch` of them, so that W processes of batch b see what one process of batch W * b sees.
Several data sets take turns, step by step.

Streams: the stream is read again and again without an end. A run that goes on replays it, but what was seen
before passes undecoded (decoding is the collator's work), as `None`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import IterableDataset, Sampler, get_worker_info

from ..data.alternating import Place
from ..data.seeds import mix_seeds
from ..errors import DataError

__all__ = [
    "AlternatingBatchSampler",
    "EndlessStream",
    "EpochBatchSampler",
    "EpochStream",
    "SkippedBatch",
    "SkippingCollator",
]


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of sample indices of one process, in an order that depends on seed and epoch alone.

    Every process has equally many batches; the rest of an epoch that fills no whole step is left out (another
    one each epoch).

    Args:
        num_samples: length of the dataset.
        batch_size: samples per batch and process.
        seed: of the permutations.
        rank, world_size: this process among all.

    Raises:
        DataError: fewer samples than one step takes.
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        if len(self) == 0:
            raise DataError(
                f"the training set has {num_samples} samples, but one step takes {batch_size * world_size} "
                f"({batch_size} in each of {world_size} processes): add data or lower training.batch_size"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        order = torch.randperm(self.num_samples, generator=generator).tolist()
        for step in range(len(self)):
            start = (step * self.world_size + self.rank) * self.batch_size
            yield order[start : start + self.batch_size]


class AlternatingBatchSampler(Sampler[list[Place]]):
    """Batches of several data sets in turn: one step on the first, one on the second, and so on.

    An epoch ends when the longest data set has been passed over; shorter ones start again meanwhile, each
    time in another order.

    Args:
        sizes: samples of each data set.
        batch_size: samples per batch and process.
        seed: of the permutations.
        rank, world_size: this process among all.
        batches_per_step: batches that make one optimiser step, all of the same data set.

    Raises:
        DataError: a data set has fewer samples than one step takes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batches_per_step: int = 1,
    ) -> None:
        self.samplers = [
            EpochBatchSampler(size, batch_size, seed + source, rank, world_size)
            for source, size in enumerate(sizes)
        ]
        self.batches_per_step = batches_per_step
        self.rounds = -(-max(map(len, self.samplers)) // batches_per_step)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the orders."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rounds * self.batches_per_step * len(self.samplers)

    def __iter__(self) -> Iterator[list[Place]]:
        sources = [self._endless(source) for source in range(len(self.samplers))]
        for _ in range(self.rounds):
            for batches in sources:
                yield from itertools.islice(batches, self.batches_per_step)

    def _endless(self, source: int) -> Iterator[list[Place]]:
        sampler = self.samplers[source]
        passes = -(-self.rounds * self.batches_per_step // len(sampler))  # in an epoch
        for passed in itertools.count(self.epoch * passes):
            sampler.set_epoch(passed)
            for batch in sampler:
                yield [(source, passed, index) for index in batch]


class EpochStream(Protocol):
    """One process's share of a stream of undecoded samples; the same ones whenever the same epoch is set.

    `data.datasets.SeededStream` is one. Iterating in a worker process must give all of the share, too.
    """

    def set_epoch(self, epoch: int) -> None:
        """Choose the order."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...


class EndlessStream(IterableDataset[Any]):
    """A stream again and again, epoch after epoch, with the samples before `first_batch` replaced by None.

    Workers take turns, batch by batch: each reads all of it and passes on every `num_workers`-th batch.
    Reading undecoded bytes is cheap beside decoding them, and the order does not depend on the number of
    workers.

    Args:
        samples: this process's share.
        batch_size: samples per batch.
        first_batch: batches that were seen before.
    """

    def __init__(self, samples: EpochStream, batch_size: int, first_batch: int = 0) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.first_batch = first_batch

    def _all_samples(self) -> Iterator[dict[str, Any]]:
        for epoch in itertools.count():
            self.samples.set_epoch(epoch)
            empty = True
            for sample in self.samples:
                empty = False
                yield sample
            if empty:
                raise DataError(
                    "the stream of training samples is empty (or too short for every process to get one)"
                )

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for position, sample in enumerate(self._all_samples()):
            batch = position // self.batch_size
            if batch % num_workers == worker_id:
                yield None if batch < self.first_batch else sample


class SkippedBatch(dict[str, Any]):
    """Stands for a batch that an earlier run has already trained on."""


class SkippingCollator:
    """A collator that leaves batches of None alone."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collator = collator

    def __call__(self, samples: Iterable[dict[str, Any] | None]) -> Any:
        """The collator's batch, or a `SkippedBatch`."""
        samples = list(samples)
        if samples[0] is None:
            return SkippedBatch()
        return self.collator(samples)  # type: ignore[arg-type]
