from __future__ import annotations

import pytest
import torch

from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.protocols import (
    cross_modal_protocol,
    knn_protocol,
    linear_protocol,
    retrieval_protocol,
)
from videossl_hf.evaluation.table import FeatureTable

NAMES = [f"class {number}" for number in range(8)]


def blobs(seed: int, samples: int = 160, names=NAMES) -> FeatureTable:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % len(names)
    centres = torch.randn(len(names), 10, generator=torch.Generator().manual_seed(99))
    features = 2 * centres[labels] + torch.randn(samples, 10, generator=generator)
    return FeatureTable(features, labels, [str(row) for row in range(samples)], list(names))


@pytest.mark.parametrize("protocol", [knn_protocol, linear_protocol])
def test_separable_classes_are_named_and_the_figure_lies_in_its_interval(protocol):
    outcome = protocol(blobs(0), blobs(1))
    top1 = outcome.figures["top1"]
    assert top1.value > 80
    assert top1.low <= top1.value <= top1.high
    assert top1.samples == 160
    assert outcome.figures["top5"].value >= top1.value
    assert outcome.scores.shape == (160, 8)
    hits = (outcome.scores.argmax(dim=1) == blobs(1).labels).double().mean().item()
    assert top1.value == pytest.approx(100 * hits)


def test_the_probe_says_what_it_chose_and_on_what():
    held = linear_protocol(blobs(0), blobs(1)).protocol
    assert held["chosen_on"] == "a fifth of train"
    chosen = linear_protocol(blobs(0), blobs(1), blobs(2), l2_grid=(1e-3, 1.0)).protocol
    assert (chosen["chosen_on"], chosen["l2_grid"]) == ("validation", [1e-3, 1.0])
    assert chosen["l2"] in (1e-3, 1.0)


def test_a_clip_that_is_alone_in_its_class_finds_nothing_among_the_others():
    clips = blobs(0, samples=9)
    clips = FeatureTable(clips.features, torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 7]), clips.keys, NAMES)
    outcome = retrieval_protocol(clips, clips, ks=(1, 8), among_each_other=True)
    assert outcome.values["R@8"].tolist() == [100.0] * 8 + [0.0]
    assert outcome.values["mAP"][-1] == 0
    with pytest.raises(DataError, match="the 8 items"):
        retrieval_protocol(clips, clips, ks=(9,), among_each_other=True)


def test_retrieval_grows_with_k_and_finds_what_is_there():
    outcome = retrieval_protocol(blobs(0), blobs(1), ks=(1, 5, 160))
    recalls = [outcome.figures[f"R@{k}"].value for k in (1, 5, 160)]
    assert recalls == sorted(recalls)
    assert recalls[0] > 80
    assert recalls[-1] == 100


def test_cross_modal_pairs_are_found_when_both_sides_agree():
    video = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    outcome = cross_modal_protocol(video, video + 0.01, ks=(1, 5))
    assert outcome.figures["R@1"].value > 95
    assert outcome.figures["MedR"].value == 1
    assert outcome.figures["MedR"].unit == "rank"


@pytest.mark.parametrize("protocol", [knn_protocol, linear_protocol, retrieval_protocol])
def test_no_protocol_scores_splits_that_do_not_fit_together(protocol):
    train, test = blobs(0), blobs(1)
    with pytest.raises(DataError, match="class names"):
        protocol(train, blobs(1, names=[*NAMES[:-1], "other"]))
    with pytest.raises(DataError, match="no sample in the train split"):
        protocol(train.select((train.labels != 3).nonzero().flatten()), test)
    test.features[5] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        protocol(train, test)


def test_more_neighbours_than_there_are_is_an_error():
    with pytest.raises(InputError, match="number of training samples"):
        knn_protocol(blobs(0), blobs(1), k=161)
    with pytest.raises(DataError, match="160 items"):
        retrieval_protocol(blobs(0), blobs(1), ks=(1, 161))
