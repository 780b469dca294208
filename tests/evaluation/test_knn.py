from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from videossl_hf.errors import InputError
from videossl_hf.evaluation.knn import knn_classify, knn_votes, nearest_neighbours


def random_split(seed: int, samples: int = 120, width: int = 16, classes: int = 5):
    generator = torch.Generator().manual_seed(seed)
    train = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    test = torch.randn(40, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (samples,), generator=generator)
    labels[:classes] = torch.arange(classes)
    return train, labels, test


@given(seed=st.integers(0, 10_000), k=st.integers(1, 25))
def test_equal_votes_agree_with_scikit_learn(seed, k):
    train, labels, test = random_split(seed)
    reference = KNeighborsClassifier(k, metric="cosine").fit(train.numpy(), labels.numpy())
    votes = knn_votes(train, labels, test, k)
    torch.testing.assert_close(
        votes, torch.from_numpy(reference.predict_proba(test.numpy())), rtol=0, atol=1e-6
    )
    assert knn_classify(train, labels, test, k).tolist() == reference.predict(test.numpy()).tolist()


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_a_temperature_weighs_votes_by_the_exponential_of_similarity(temperature):
    train, labels, test = random_split(3)
    votes = knn_votes(train, labels, test, k=7, temperature=temperature)
    cosine = torch.nn.functional.cosine_similarity(test[:, None], train[None], dim=2)
    for row in range(len(test)):
        nearest = cosine[row].argsort(descending=True)[:7]
        weight = torch.zeros(5, dtype=torch.float64)
        for item in nearest:
            weight[labels[item]] += torch.exp(cosine[row, item] / temperature)
        torch.testing.assert_close(votes[row], weight / weight.sum(), rtol=0, atol=1e-6)


def test_a_small_temperature_leaves_only_the_nearest():
    train, labels, test = random_split(5)
    assert torch.equal(knn_classify(train, labels, test, 20, 1e-4), knn_classify(train, labels, test, 1))


def test_comparing_in_chunks_changes_nothing():
    train, _, test = random_split(1)
    whole = nearest_neighbours(train, test, 5)
    pieces = nearest_neighbours(train, test, 5, chunk_size=7)
    assert torch.equal(whole[1], pieces[1])
    torch.testing.assert_close(whole[0], pieces[0])


def test_the_length_of_a_feature_does_not_matter():
    train, labels, test = random_split(2)
    lengths = torch.rand(len(train), 1, dtype=torch.float64) + 0.1
    assert torch.equal(knn_classify(train * lengths, labels, test), knn_classify(train, labels, test))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 121}, "number of training samples"),
        ({"k": 0}, "number of training samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"train_features": torch.full((120, 16), torch.nan)}, "NaN"),
        ({"test_features": torch.full((4, 16), torch.inf)}, "test features hold NaN or infinite"),
        ({"test_features": torch.ones(4, 15)}, "different models"),
        ({"train_labels": torch.zeros(3, dtype=torch.int64)}, "labels of shape"),
        ({"train_labels": torch.full((120,), -1)}, "without a label"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(change, message):
    train, labels, test = random_split(0)
    arguments = {"train_features": train, "train_labels": labels, "test_features": test} | change
    with pytest.raises(InputError, match=message):
        knn_classify(**arguments)
