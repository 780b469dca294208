from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from videossl_hf.errors import InputError
from videossl_hf.evaluation.bootstrap import bootstrap_interval
from videossl_hf.evaluation.metrics import (
    ClassRetrieval,
    MeanAveragePrecision,
    MeanClassAccuracy,
    PairRetrieval,
    TopK,
)
from videossl_hf.evaluation.scores import (
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    top_k_accuracy,
    top_k_hits,
)


def random_scores(samples: int = 60, classes: int = 7):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return scores, torch.randint(classes, (samples,), generator=generator)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_k_agrees_with_scikit_learn(k):
    scores, labels = random_scores()
    expected = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=range(7))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected, abs=1e-6)


def test_equal_scores_are_ordered_by_label():
    assert top_k_hits(torch.zeros(3, 4), torch.tensor([0, 1, 2]), k=2).tolist() == [True, True, False]


def test_mean_class_accuracy_and_confusion_agree_with_scikit_learn():
    scores, labels = random_scores()
    predictions = scores.argmax(dim=1)
    expected = balanced_accuracy_score(labels.numpy(), predictions.numpy())
    assert mean_class_accuracy(predictions, labels) == pytest.approx(expected, abs=1e-6)
    reference = sklearn_confusion(labels.numpy(), predictions.numpy(), labels=range(7))
    assert confusion_matrix(predictions, labels, 7).tolist() == reference.tolist()


def test_metric_classes_work_offline_batch_by_batch():
    scores, labels = random_scores()
    metric = TopK()
    for batch in range(0, 60, 20):
        metric.add_batch(predictions=scores[batch : batch + 20], references=labels[batch : batch + 20])
    assert metric.compute(k=3) == {"top3": pytest.approx(top_k_accuracy(scores, labels, 3))}
    predictions = scores.argmax(dim=1)
    result = MeanClassAccuracy().compute(predictions=predictions, references=labels)
    assert result == {"mean_class_accuracy": pytest.approx(mean_class_accuracy(predictions, labels))}


def test_mean_average_precision_agrees_with_scikit_learn_also_with_equal_scores():
    scores, labels = random_scores()
    scores = (4 * scores).round() / 4
    targets = torch.nn.functional.one_hot(labels, 7)
    targets[:20, 3] = 1  # any number of classes a sample
    expected = average_precision_score(targets.numpy(), scores.numpy(), average="macro")
    assert mean_average_precision(scores, targets.bool()) == pytest.approx(expected, abs=1e-6)
    computed = MeanAveragePrecision().compute(predictions=scores, references=targets)
    assert computed == {"mAP": pytest.approx(expected, abs=1e-6)}
    by_label = average_precision_score(torch.nn.functional.one_hot(labels, 7).numpy(), scores.numpy())
    assert mean_average_precision(scores, labels) == pytest.approx(by_label, abs=1e-6)


def test_retrieval_by_class_agrees_with_scikit_learn_and_with_counting():
    similarity, _ = random_scores(12, 30)
    right = torch.rand(12, 30, generator=torch.Generator().manual_seed(1)) < 0.2
    right[5] = False
    result = ClassRetrieval().compute(predictions=similarity, references=right.long(), ks=(1, 5))
    rows = [row for row in range(12) if row != 5]
    average = [average_precision_score(right[row].numpy(), similarity[row].numpy()) for row in rows]
    assert result["mAP"] == pytest.approx(100 * sum(average) / len(rows), abs=1e-4)
    hits = [bool(right[row][similarity[row].argsort(descending=True)[:5]].any()) for row in range(12)]
    assert result["R@5"] == pytest.approx(100 * sum(hits) / 12)


def test_the_pair_metric_follows_the_columns_named_by_its_references():
    similarity = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.3, 0.1], [0.4, 0.5, 0.6]])
    result = PairRetrieval().compute(predictions=similarity, references=torch.tensor([1, 0, 2]), ks=(1,))
    assert result == {"R@1": 100.0, "MedR": 1.0, "MeanR": 1.0}


def test_the_interval_of_a_share_is_about_two_standard_errors_wide():
    hits = (torch.arange(400) % 4 == 0).float()
    low, high = bootstrap_interval(hits)
    error = (0.25 * 0.75 / 400) ** 0.5
    assert low == pytest.approx(0.25 - 1.96 * error, abs=0.006)
    assert high == pytest.approx(0.25 + 1.96 * error, abs=0.006)
    assert (low, high) == bootstrap_interval(hits)


def test_the_interval_of_another_statistic():
    low, high = bootstrap_interval(torch.arange(101.0), lambda draws: draws.quantile(0.5, dim=1))
    assert 30 < low < 50 < high < 70


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval(torch.empty(0)),
        lambda: top_k_hits(torch.zeros(3, 2), torch.zeros(2).long()),
        lambda: top_k_hits(torch.zeros(3, 2), torch.zeros(3).long(), k=0),
        lambda: confusion_matrix(torch.zeros(3).long(), torch.zeros(2).long(), 2),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(InputError):
        call()
