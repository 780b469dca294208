from __future__ import annotations

import pytest
import torch

from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.few_shot import draw_shots, few_shot_protocol
from videossl_hf.evaluation.table import FeatureTable

NAMES = ["a", "b", "c"]


def blobs(seed: int, per_class: int = 20) -> FeatureTable:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3 * per_class) % 3
    centres = torch.randn(3, 10, generator=torch.Generator().manual_seed(9))
    features = centres[labels] + 0.8 * torch.randn(len(labels), 10, generator=generator)
    return FeatureTable(features, labels, list(map(str, range(len(labels)))), NAMES)


def test_as_many_of_every_class_are_drawn_and_never_twice():
    labels = torch.tensor([0] * 5 + [2] * 3 + [1] * 9)
    rows = draw_shots(labels, 3, torch.Generator().manual_seed(0))
    assert labels[rows].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(rows.tolist())) == 9


def test_more_clips_a_class_are_better_and_the_interval_covers_the_draws():
    outcome = few_shot_protocol(blobs(0), blobs(1), draws=6)
    assert outcome.protocol["shots"] == [1, 5, 10]
    figures = outcome.figures
    for name in ("knn", "linear"):
        assert figures[f"{name}@10"].value > figures[f"{name}@1"].value
        one, ten = figures[f"{name}@1"], figures[f"{name}@10"]
        assert one.low <= one.value <= one.high
        assert one.high - one.low > ten.high - ten.low
    assert outcome.values["knn@1"].mean().item() == pytest.approx(figures["knn@1"].value)
    assert few_shot_protocol(blobs(0), blobs(1), draws=6).figures == figures


def test_one_shot_is_the_nearest_of_one_clip_a_class():
    train, test = blobs(0), blobs(1)
    outcome = few_shot_protocol(train, test, shots=[1], draws=1, seed=4)
    few = train.select(draw_shots(train.labels, 1, torch.Generator().manual_seed(4)))
    cosine = torch.nn.functional.cosine_similarity(test.features[:, None], few.features[None], dim=2)
    hits = (few.labels[cosine.argmax(dim=1)] == test.labels).double().mean().item()
    assert outcome.figures["knn@1"].value == pytest.approx(100 * hits)


def test_shots_are_those_that_the_smallest_class_has_unless_more_are_asked_for():
    assert few_shot_protocol(blobs(0, 6), blobs(1), draws=1).protocol["shots"] == [1, 5]
    with pytest.raises(DataError, match=r"class 0 has 6 training clip\(s\), 10"):
        few_shot_protocol(blobs(0, 6), blobs(1), shots=[10])


@pytest.mark.parametrize("settings", [{"shots": []}, {"shots": [0]}, {"draws": 0}])
def test_no_shots_and_no_draws_are_refused(settings):
    with pytest.raises(InputError, match="at least one"):
        few_shot_protocol(blobs(0), blobs(1), **settings)
