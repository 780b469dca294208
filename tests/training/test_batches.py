"""Which samples form which batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from videossl_hf.errors import DataError
from videossl_hf.training.batches import (
    AlternatingBatchSampler,
    EndlessStream,
    EpochBatchSampler,
    SkippedBatch,
    SkippingCollator,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_processes_share_an_epoch_without_overlap_and_as_one_process_with_the_whole_batch(
    samples: int, batch: int, processes: int, seed: int, epoch: int
) -> None:
    if samples < batch * processes:
        with pytest.raises(DataError, match=f"has {samples} samples, but one step takes {batch * processes}"):
            EpochBatchSampler(samples, batch, seed, 0, processes)
        return
    samplers = [EpochBatchSampler(samples, batch, seed, rank, processes) for rank in range(processes)]
    whole = EpochBatchSampler(samples, batch * processes, seed)
    for sampler in (*samplers, whole):
        sampler.set_epoch(epoch)
    joined = [list(itertools.chain(*parts)) for parts in zip(*samplers, strict=True)]
    assert joined == list(whole)
    seen = list(itertools.chain(*joined))
    assert len(seen) == len(set(seen)) == len(whole) * batch * processes
    assert set(seen) <= set(range(samples))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochBatchSampler(40, 4, seed)
        sampler.set_epoch(epoch)
        return list(itertools.chain(*sampler))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)


class Counting:
    """Ten samples an epoch, named by epoch and number."""

    def __init__(self, length: int = 10) -> None:
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        return iter([(self.epoch, number) for number in range(self.length)])


def decode(samples: list[Any]) -> list[Any]:
    assert None not in samples
    return samples


def batches(count: int, *, workers: int = 0, first_batch: int = 0) -> list[Any]:
    stream = EndlessStream(Counting(), batch_size=3, first_batch=first_batch)
    loader = DataLoader(stream, batch_size=3, num_workers=workers, collate_fn=SkippingCollator(decode))
    return list(itertools.islice(loader, count))


def test_a_stream_goes_on_across_epochs() -> None:
    assert batches(5)[3] == [(0, 9), (1, 0), (1, 1)]


def test_the_number_of_workers_does_not_change_the_order() -> None:
    assert batches(9, workers=2) == batches(9)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_seen_passes_undecoded_and_the_rest_is_the_same(workers: int) -> None:
    resumed = batches(9, workers=workers, first_batch=5)
    assert all(isinstance(batch, SkippedBatch) and not batch for batch in resumed[:5])
    assert resumed[5:] == batches(9)[5:]


def test_an_empty_stream_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(DataError, match="is empty"):
        next(iter(EndlessStream(Counting(0), batch_size=1)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(4, 30), min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 2),
    st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_data_sets_take_turns_until_the_longest_is_over(
    sizes: list[int], batch: int, processes: int, in_a_row: int, epoch: int
) -> None:
    samplers = [
        AlternatingBatchSampler(sizes, batch, 7, rank, processes, in_a_row) for rank in range(processes)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    steps = [list(itertools.chain(*parts)) for parts in zip(*samplers, strict=True)]
    assert len(steps) == len(samplers[0])
    sources = [{source for source, _, _ in step} for step in steps]
    assert sources == [{step // in_a_row % len(sizes)} for step in range(len(steps))]
    longest = max(range(len(sizes)), key=lambda source: sizes[source] // (batch * processes))
    seen = [place for step in steps for place in step if place[0] == longest]
    whole = sizes[longest] // (batch * processes) * batch * processes
    assert len({index for _, _, index in seen[:whole]}) == whole, "the longest is passed over once"
    every = [place for step in steps for place in step]
    assert len(set(every)) == len(every), "what is seen again is seen in another pass, with another seed"


def test_one_data_set_among_others_comes_in_the_order_that_it_has_alone() -> None:
    alone, among = EpochBatchSampler(12, 3, seed=5), AlternatingBatchSampler([12, 5], 3, seed=5)
    for epoch in range(2):
        alone.set_epoch(epoch)
        among.set_epoch(epoch)
        found = [[index for _, _, index in batch] for batch in among if batch[0][0] == 0]
        assert found == list(alone)
