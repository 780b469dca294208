"""The table of features that every protocol reads: one row a sample, with its label and its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, InputError

__all__ = ["FeatureTable", "check_features", "check_same_classes"]


@dataclass
class FeatureTable:
    """Features of a split.

    Attributes:
        features: (samples, width) float32, or of tokens (samples, tokens, width).
        labels: (samples,) int64, indices into `label_names`; -1 where a sample has none.
        keys: one name a sample, in the order of the rows (file name, or the sample's number).
        label_names: the names of the classes, or None where the data has no labels.
        info: what the features were made from (model, data, views), as the cache's manifest has it.
    """

    features: Tensor
    labels: Tensor
    keys: list[str]
    label_names: list[str] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {len(self.features), len(self.labels), len(self.keys)}
        if len(rows) != 1:
            raise InputError(
                f"a feature table needs one label and one key a row, got {len(self.features)} features, "
                f"{len(self.labels)} labels and {len(self.keys)} keys"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Tensor | Sequence[int]) -> FeatureTable:
        """The table of these rows, in their order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return FeatureTable(
            self.features[index],
            self.labels[index],
            [self.keys[row] for row in index.tolist()],
            self.label_names,
            self.info,
        )


def check_features(features: Tensor, labels: Tensor | None = None, *, name: str = "features") -> None:
    """Refuse what no protocol can score.

    Args:
        features: (samples, width).
        labels: (samples,), each 0 or more, or None.
        name: how the message calls them ("train features").

    Raises:
        InputError: wrong rank, no rows, NaN or infinite values, labels missing or of another length.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"{name} must be (samples, width) with at least one row, got {tuple(features.shape)}"
        )
    bad = ~torch.isfinite(features).all(dim=1)
    if bad.any():
        rows = bad.nonzero().flatten()
        raise InputError(
            f"{name} hold NaN or infinite values in {len(rows)} of {len(features)} rows "
            f"(first: row {rows[0]}): the model has diverged, or its input was not finite"
        )
    if labels is None:
        return
    if labels.shape != (len(features),):
        raise InputError(f"{name} have {len(features)} rows but labels of shape {tuple(labels.shape)}")
    if labels.min() < 0:
        raise InputError(f"{name} have samples without a label (negative ones): this protocol needs labels")


def check_same_classes(train: FeatureTable, test: FeatureTable) -> None:
    """Refuse a pair of splits whose labels do not mean the same.

    Raises:
        DataError: the class names differ, or test has a class of which train has no sample.
    """
    if train.label_names != test.label_names:
        ours, theirs = set(train.label_names or ()), set(test.label_names or ())
        difference = sorted(ours ^ theirs)[:5]
        what = f"differ in {difference}" if difference else "stand in another order"
        raise DataError(
            f"the class names of the train split and the test split {what}: "
            "label 3 would not mean the same in both; give both splits the same list of classes"
        )
    absent = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
    if absent:
        names = [test.label_names[label] if test.label_names else label for label in absent]
        raise DataError(
            f"{len(absent)} class(es) of the test split have no sample in the train split: {names[:5]}; "
            "no classifier could name them: add samples, or drop these classes from the test split"
        )
