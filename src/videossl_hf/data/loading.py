"""Decodes the samples of a batch, and says what happens to those that cannot be decoded.

There is never a substitute for a bad sample that looks like data (a black frame, silence): either the run
stops at the first one, or another sample takes its place and the ledger says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..errors import ConfigurationError, DataError, DecodeError, InputError
from .cache import CachedVideo, MediaCache, fetched
from .datasets import SeededDataset, sample_key
from .ledger import Ledger
from .reader import read_audio
from .seeds import seeded_generator

__all__ = ["BAD_SAMPLE_ERRORS", "SampleLoader"]

logger = logging.getLogger(__name__)
Decoded = TypeVar("Decoded")

BAD_SAMPLE_ERRORS = (DecodeError, InputError, DataError)
"""What counts as the sample's own fault; anything else is a fault of the program and always raised."""


class SampleLoader:
    """Decodes samples one by one with each sample's own random numbers.

    With the policy "skip" a bad sample is replaced. The replacement is a function of the bad sample's seed,
    so a resumed run finds the same one: another index of `replacements`, or without that (streams) another
    sample of the same batch, which then is in it twice, with other random choices.

    Args:
        policy: "raise" or "skip".
        max_bad_share: "skip" stops the run once more than this share of all samples tried was bad. Counted in
            every data-loading worker by itself.
        min_count: the share is taken of at least so many samples.
        max_tries: replacements tried for one sample before the run stops.
        ledger: file that lists every bad sample: key, index, reason, epoch, replaced_by, worker, rank.
        cache: "none", "memory" or "disk", see `MediaCache`.
        cache_dir: folder of the disk cache.
        replacements: map-style samples that replace bad ones.

    Raises:
        ConfigurationError: settings out of range.
        OutputError: ledger or cache folder cannot be written.
    """

    def __init__(
        self,
        policy: str = "raise",
        *,
        max_bad_share: float = 0.1,
        min_count: int = 50,
        max_tries: int = 10,
        ledger: str | Path | None = None,
        cache: str = "none",
        cache_dir: str | Path | None = None,
        replacements: SeededDataset | None = None,
    ) -> None:
        if policy not in ("raise", "skip"):
            raise ConfigurationError(f"the policy for bad samples must be 'raise' or 'skip', got {policy!r}")
        if not 0 <= max_bad_share <= 1 or max_tries < 1 or min_count < 1:
            raise ConfigurationError(
                "max_bad_share must lie in [0, 1], max_tries and min_count must be at least 1, "
                f"got {max_bad_share}, {max_tries}, {min_count}"
            )
        self.policy = policy
        self.max_bad_share = max_bad_share
        self.min_count = min_count
        self.max_tries = max_tries
        self.ledger = None if ledger is None else Ledger(ledger)
        self.cache = MediaCache(cache, cache_dir)
        self.replacements = replacements
        self.num_tried = 0
        self.num_bad = 0

    @contextmanager
    def open(self, sample: dict[str, Any], short_side: int | None = None) -> Iterator[CachedVideo]:
        """The video of a sample, through the cache; for use inside `decode`."""
        with self.cache.open(sample["video"], short_side) as video:
            yield video

    def audio(
        self, sample: dict[str, Any], video: CachedVideo, start: float, seconds: float, sample_rate: int
    ) -> np.ndarray:
        """Sound of a sample: of its `audio` file where it has one, else of its video's own track.

        Returns:
            (round(seconds * sample_rate),) int16, from `start` seconds after the first frame.

        Raises:
            NoAudioError: there is no sound.
        """
        if sample.get("audio") is not None:
            return read_audio(fetched(sample["audio"]), start, seconds, sample_rate)
        return video.audio(start, seconds, sample_rate)

    def load_batch(
        self, samples: Sequence[dict[str, Any]], decode: Callable[[dict[str, Any], torch.Generator], Decoded]
    ) -> list[Decoded]:
        """Decode every sample.

        Args:
            samples: of a `SeededDataset` or `SeededStream`.
            decode: called as decode(sample, generator), with a generator seeded for this sample.

        Returns:
            one result a sample, in their order; replaced where they were bad and the policy is "skip".

        Raises:
            DataError: too many bad samples.
            DecodeError, InputError, DataError: a bad sample, with the policy "raise".
        """
        results: dict[int, Decoded] = {}
        errors: dict[int, Exception] = {}
        for position, sample in enumerate(samples):
            try:
                results[position] = self._decode(sample, decode, seeded_generator(_seed(sample)))
            except BAD_SAMPLE_ERRORS as error:
                if self.policy == "raise":
                    error.add_note(f"while loading {sample_key(sample)}")
                    raise
                errors[position] = error
        good = [samples[position] for position in results]
        for position, reason in errors.items():
            results[position] = self._replace(samples[position], reason, good, decode)
        return [results[position] for position in range(len(samples))]

    def _decode(
        self,
        sample: dict[str, Any],
        decode: Callable[[dict[str, Any], torch.Generator], Decoded],
        generator: torch.Generator,
    ) -> Decoded:
        self.num_tried += 1
        try:
            return decode(sample, generator)
        except BAD_SAMPLE_ERRORS:
            self.num_bad += 1
            raise

    def _replace(
        self,
        sample: dict[str, Any],
        error: Exception,
        good: Sequence[dict[str, Any]],
        decode: Callable[[dict[str, Any], torch.Generator], Decoded],
    ) -> Decoded:
        """Try other samples until one is good; all bad ones met on the way go into the ledger."""
        bad = [(sample, error)]
        for attempt in range(1, self.max_tries + 1):
            generator = seeded_generator(_seed(sample), attempt)
            candidate = self._candidate(good, generator)
            if candidate is None:
                break
            try:
                result = self._decode(candidate, decode, generator)
            except BAD_SAMPLE_ERRORS as further:
                bad.append((candidate, further))
                continue
            self._record(bad, replaced_by=sample_key(candidate))
            self._check_share(error)
            return result
        self._record(bad, replaced_by=None)
        raise DataError(
            f"{sample_key(sample)} is bad and no replacement was found among {len(bad) - 1} samples tried: "
            f"the data set seems to be broken. {error}"
        ) from error

    def _candidate(self, good: Sequence[dict[str, Any]], generator: torch.Generator) -> dict[str, Any] | None:
        pool: Any = good if self.replacements is None else self.replacements
        if len(pool) == 0:
            return None
        return pool[int(torch.randint(len(pool), (), generator=generator))]

    def _record(self, bad: Sequence[tuple[dict[str, Any], Exception]], replaced_by: str | None) -> None:
        worker = get_worker_info()
        entries = [
            {
                "key": sample_key(sample),
                "index": sample.get("sample_index"),
                "reason": f"{type(error).__name__}: {error}",
                "epoch": sample.get("sample_epoch"),
                "replaced_by": replaced_by,
                "worker": 0 if worker is None else worker.id,
                "rank": int(os.environ.get("RANK", 0)),
            }
            for sample, error in bad
        ]
        for entry in entries:
            level = logging.WARNING if self.ledger is None else logging.INFO
            logger.log(level, "bad sample %s (%s)", entry["key"], entry["reason"])
        if self.ledger is not None:
            self.ledger.append(entries)

    def _check_share(self, error: Exception) -> None:
        if self.num_bad > self.max_bad_share * max(self.num_tried, self.min_count):
            where = f", listed in {self.ledger.path}" if self.ledger else ""
            raise DataError(
                f"{self.num_bad} of {self.num_tried} samples were bad{where}: more than the share "
                f"{self.max_bad_share} that max_bad_share allows. The last one: {error}"
            ) from error


def _seed(sample: dict[str, Any]) -> int:
    if "sample_seed" not in sample:
        raise ConfigurationError("samples need a seed: wrap the dataset in SeededDataset or SeededStream")
    return sample["sample_seed"]
