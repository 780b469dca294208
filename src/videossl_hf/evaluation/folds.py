"""Folds: the official ones of a data set, or cross-validation over a small labelled set.

Features are extracted once, of all clips; a fold says which rows are trained on and which are tested. A
figure is the mean of the folds' figures, and its interval comes from drawing clips anew, not folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.datasets import load_videos
from ..data.official import count_folds
from ..errors import DataError, InputError
from .bootstrap import folds_interval
from .protocols import Outcome
from .results import Figure
from .table import FeatureTable

__all__ = ["Fold", "average_folds", "official_folds", "over_folds", "stratified_folds"]


@dataclass(frozen=True)
class Fold:
    """Rows of one table: (rows,) int64 each."""

    train: Tensor
    test: Tensor


def stratified_folds(labels: Sequence[int] | Tensor, count: int, seed: int = 0) -> list[Fold]:
    """Cut rows into folds, each class spread over them as evenly as it goes; every row is tested once.

    Args:
        labels: (samples,), each 0 or more.
        count: of the folds.
        seed: of the draw.

    Raises:
        InputError: fewer than two folds, or more than samples; samples without a label.
        DataError: a class with a single sample, which could not be learned when it is tested.
    """
    labels = torch.as_tensor(labels)
    if not 2 <= count <= len(labels):
        raise InputError(f"cross-validation needs between 2 and {len(labels)} folds, got {count}")
    if labels.min() < 0:
        raise InputError("cross-validation needs a label for every sample")
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.empty(len(labels), dtype=torch.int64)
    next_fold = 0
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        if len(rows) == 1:
            raise DataError(
                f"class {label} has a single clip, which cannot be both learned and tested: add clips, or "
                "leave the class out"
            )
        rows = rows[torch.randperm(len(rows), generator=generator)]
        fold_of[rows] = (next_fold + torch.arange(len(rows))) % count
        next_fold = (next_fold + len(rows)) % count
    numbers = range(count)
    return [Fold((fold_of != n).nonzero().flatten(), (fold_of == n).nonzero().flatten()) for n in numbers]


def official_folds(source: str) -> tuple[Any, list[Fold]]:
    """All videos of all official folds of a data set, each once, and which of them each fold uses.

    Args:
        source: the YAML file of an official data set, see `data.official`.

    Raises:
        DataError: not such a file, or a set with a single fold.
    """
    import datasets as hf

    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise DataError(
            f"{source} has no official folds: name the YAML file of an official data set, or give a number "
            "for cross-validation"
        )
    count = count_folds(path)
    if count == 1:
        raise DataError(f"{source} names a data set with a single official fold: evaluate it without --folds")
    parts: list[Any] = []
    row_of: dict[str, int] = {}
    folds = []
    for number in range(1, count + 1):
        rows = {}
        for split in ("train", "test"):
            dataset = load_videos(source, split, fold=number)
            names = [cell["path"] for cell in dataset["video"]]
            fresh = [row for row, name in enumerate(names) if name not in row_of]
            row_of |= {names[row]: len(row_of) + place for place, row in enumerate(fresh)}
            parts.append(dataset.select(fresh))
            rows[split] = torch.tensor([row_of[name] for name in names])
        folds.append(Fold(rows["train"], rows["test"]))
    return hf.concatenate_datasets(parts), folds


def over_folds(
    score: Callable[[FeatureTable, FeatureTable], Outcome],
    table: FeatureTable,
    folds: Sequence[Fold],
    *,
    seed: int = 0,
) -> tuple[Outcome, Tensor]:
    """A protocol over all folds: its averaged outcome, and the tested rows of all folds in order.

    Args:
        score: from training and test features to an outcome.
        table: of all samples.
        folds: rows of it.
        seed: of the interval.
    """
    outcomes = [score(table.select(fold.train), table.select(fold.test)) for fold in folds]
    return average_folds(outcomes, [fold.test for fold in folds], seed=seed), torch.cat(
        [fold.test for fold in folds]
    )


def average_folds(outcomes: Sequence[Outcome], rows: Sequence[Tensor], *, seed: int = 0) -> Outcome:
    """Means over folds of every figure in percent.

    Args:
        outcomes: one a fold.
        rows: which samples each was tested on, in the order of its values.
        seed: of the interval.

    Raises:
        InputError: outcomes of different protocols or figures.
    """
    names = list(outcomes[0].figures)
    if any(list(outcome.figures) != names for outcome in outcomes):
        raise InputError("the folds have different figures, so that they have no mean")
    figures, values = {}, {}
    samples = len(torch.cat(list(rows)).unique())
    for name in names:
        parts = [(outcome.values[name], own) for outcome, own in zip(outcomes, rows, strict=True)]
        mean = sum(outcome.figures[name].value for outcome in outcomes) / len(outcomes)
        figures[name] = Figure(mean, *folds_interval(parts, seed=seed), samples)
        values[name] = torch.cat([own for own, _ in parts])
    scores = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    protocol = _common([outcome.protocol for outcome in outcomes])
    return Outcome(protocol, figures, values, torch.cat(scores) if scores else None)


def _common(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a protocol; of those that each fold chose for itself the list."""
    merged = {}
    for name in protocols[0]:
        found = [protocol[name] for protocol in protocols]
        merged[name] = found[0] if all(value == found[0] for value in found) else found
    return merged
