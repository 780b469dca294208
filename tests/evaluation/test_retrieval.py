from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from videossl_hf.errors import InputError
from videossl_hf.evaluation.retrieval import (
    class_average_precisions,
    class_ranks,
    pair_ranks,
    pair_ranks_from_similarity,
    recall_at,
    retrieval_figures,
)


def brute_force_recall(queries, query_labels, gallery, gallery_labels, k, same_items=False):
    hits = 0
    for row, query in enumerate(queries):
        scored = [
            (torch.nn.functional.cosine_similarity(query, item, dim=0).item(), gallery_labels[column].item())
            for column, item in enumerate(gallery)
            if not (same_items and row == column)
        ]
        scored.sort(key=lambda pair: -pair[0])
        hits += any(label == query_labels[row] for _, label in scored[:k])
    return hits / len(queries)


@given(seed=st.integers(0, 10_000), k=st.sampled_from([1, 3, 5]))
def test_recall_within_a_modality_agrees_with_brute_force(seed, k):
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (9, 15))
    query_labels, gallery_labels = (torch.randint(4, (n,), generator=generator) for n in (9, 15))
    ranks = class_ranks(queries, query_labels, gallery, gallery_labels, chunk_size=4)
    expected = brute_force_recall(queries, query_labels, gallery, gallery_labels, k)
    assert recall_at(ranks, k) == pytest.approx(expected, abs=1e-6)


def test_an_item_does_not_find_itself_when_queries_and_gallery_are_one_list():
    items = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(12) % 4
    ranks = class_ranks(items, labels, items, labels, same_items=True, chunk_size=5)
    assert recall_at(ranks, 1) == pytest.approx(brute_force_recall(items, labels, items, labels, 1, True))
    assert recall_at(class_ranks(items, labels, items, labels), 1) == 1


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_agrees_with_scikit_learn(seed, same):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(15, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(15) % 4
    found = class_average_precisions(items, labels, items, labels, same_items=same, chunk_size=4)
    cosine = torch.nn.functional.cosine_similarity(items[:, None], items[None], dim=2)
    for row in range(15):
        others = [column for column in range(15) if not (same and column == row)]
        right = (labels[others] == labels[row]).numpy()
        expected = average_precision_score(right, cosine[row, others].numpy())
        assert found[row].item() == pytest.approx(expected, abs=1e-6)


def test_a_class_that_the_gallery_lacks_is_never_found():
    ranks = class_ranks(torch.eye(2), torch.tensor([0, 7]), torch.eye(2), torch.tensor([0, 1]))
    assert ranks.tolist() == [0, math.inf]


@given(seed=st.integers(0, 10_000))
def test_pair_ranks_agree_with_sorting(seed):
    generator = torch.Generator().manual_seed(seed)
    video, sound = (torch.randn(11, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    similarity = torch.nn.functional.cosine_similarity(video[:, None], sound[None], dim=2)
    expected = [similarity[row].argsort(descending=True).tolist().index(row) for row in range(11)]
    assert pair_ranks(video, sound).tolist() == expected


def test_figures_count_median_and_mean_rank_from_one():
    figures = retrieval_figures(torch.tensor([0.0, 1.0, 2.0, 9.0]), ks=(1, 5))
    assert figures == {"R@1": 25.0, "R@5": 75.0, "MedR": 2.5, "MeanR": 4.0}


def test_a_model_that_scores_everything_alike_is_at_chance():
    ranks = pair_ranks_from_similarity(torch.zeros(101, 101))
    assert ranks.tolist() == [50.0] * 101
    assert recall_at(ranks, 50) == 0
    labels = torch.arange(100) % 10
    same = torch.ones(100, 3)
    assert class_ranks(same, labels, same, labels).tolist() == [45.0] * 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_ranks(torch.ones(3, 4), torch.ones(3, 5)), "not the same space"),
        (lambda: pair_ranks(torch.ones(3, 4), torch.ones(2, 4)), "one gallery item a query"),
        (lambda: pair_ranks(torch.full((3, 4), torch.nan), torch.ones(3, 4)), "query features hold NaN"),
        (lambda: recall_at(torch.zeros(3), 0), "at least 1"),
        (
            lambda: class_ranks(
                torch.ones(3, 4),
                torch.zeros(3).long(),
                torch.ones(2, 4),
                torch.zeros(2).long(),
                same_items=True,
            ),
            "equal lists",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
