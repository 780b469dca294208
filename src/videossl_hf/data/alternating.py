"""Several data sets in one training: every batch is of one of them, and they take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from .datasets import tag_sample

__all__ = ["AlternatingCollator", "AlternatingDataset", "Place"]

Place = tuple[int, int, int]
"""Of a sample: which data set, the pass over it, the index in it."""


class AlternatingDataset(Dataset[dict[str, Any]]):
    """Undecoded samples of several data sets, found by their `Place`.

    The seed of a sample is a function of run seed and place, so that a short data set that is passed over
    more than once in an epoch is drawn differently each time.

    Args:
        datasets: map-style, of `load_videos`.
        seed: of the run.
    """

    def __init__(self, datasets: Sequence[Any], seed: int = 0) -> None:
        self.datasets = list(datasets)
        self.seed = seed

    def __len__(self) -> int:
        """Samples of all data sets together."""
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """The undecoded sample with `sample_source`, `sample_index`, `sample_seed` and `sample_epoch`."""
        source, passed, index = place
        # The first data set has the seeds that it would have alone.
        seed = self.seed + source
        return tag_sample(self.datasets[source][index], seed, passed, index) | {"sample_source": source}


class AlternatingCollator:
    """Hands a batch to the collator of its data set.

    Args:
        collators: one a data set, in their order.
    """

    def __init__(self, collators: Sequence[Callable[[list[dict[str, Any]]], Any]]) -> None:
        self.collators = list(collators)

    def __call__(self, samples: list[dict[str, Any]]) -> Any:
        """What that collator makes of the samples, which are all of one data set."""
        return self.collators[samples[0]["sample_source"]](samples)
