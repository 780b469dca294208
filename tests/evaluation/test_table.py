from __future__ import annotations

import pytest
import torch

from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.table import FeatureTable, check_features, check_same_classes


def table(labels, names=("a", "b", "c")):
    keys = [f"clip {row}" for row in range(len(labels))]
    return FeatureTable(torch.ones(len(labels), 2), torch.tensor(labels), keys, list(names))


def test_selecting_rows_keeps_features_labels_and_keys_together():
    chosen = table([0, 1, 2]).select([2, 0])
    assert (chosen.labels.tolist(), chosen.keys) == ([2, 0], ["clip 2", "clip 0"])


def test_a_table_with_a_label_missing_is_refused():
    with pytest.raises(InputError, match="2 features, 1 labels and 2 keys"):
        FeatureTable(torch.ones(2, 3), torch.zeros(1), ["x", "y"])


def test_splits_whose_classes_agree_pass():
    check_same_classes(table([0, 1, 2]), table([2, 2]))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (table([0, 1]), table([0, 1], names=("a", "b", "d")), r"differ in \['c', 'd'\]"),
        (table([0, 1]), table([0, 1], names=("b", "a", "c")), "another order"),
        (table([0, 1]), table([0, 2]), r"no sample in the train split: \['c'\]"),
    ],
)
def test_splits_whose_labels_do_not_mean_the_same_are_refused(train, test, message):
    with pytest.raises(DataError, match=message):
        check_same_classes(train, test)


def test_bad_rows_are_counted_and_the_first_is_named():
    features = torch.ones(4, 3)
    features[2, 1] = torch.nan
    with pytest.raises(InputError, match=r"1 of 4 rows \(first: row 2\)"):
        check_features(features)
    with pytest.raises(InputError, match="at least one row"):
        check_features(torch.empty(0, 3))
