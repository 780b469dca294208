from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.linear import fit_linear_probe, hold_out, select_linear_probe


def blobs(seed: int = 0, samples: int = 200, width: int = 12, classes: int = 4, spread: float = 1.5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = centres[labels] + spread * torch.randn(samples, width, generator=generator)
    return 5 * features + 3, labels


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_the_fit_agrees_with_scikit_learn(l2):
    features, labels = blobs()
    scaler = StandardScaler().fit(features.double().numpy())
    inputs = scaler.transform(features.double().numpy())
    reference = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-10, max_iter=10_000).fit(
        inputs, labels.numpy()
    )

    probe = fit_linear_probe(features, labels, l2=l2, tolerance=1e-10)

    ours = probe.logits(features).softmax(dim=1)
    torch.testing.assert_close(ours, torch.from_numpy(reference.predict_proba(inputs)), rtol=0, atol=1e-6)
    torch.testing.assert_close(probe.weight, torch.from_numpy(reference.coef_), rtol=0, atol=1e-5)


def test_features_wider_than_the_number_of_samples_agree_with_scikit_learn():
    features, labels = blobs(samples=40, width=150)
    inputs = StandardScaler().fit_transform(features.double().numpy())
    reference = LogisticRegression(C=1 / (1e-3 * 40), tol=1e-10, max_iter=10_000).fit(inputs, labels.numpy())
    probe = fit_linear_probe(features, labels, l2=1e-3, tolerance=1e-10)
    torch.testing.assert_close(probe.weight, torch.from_numpy(reference.coef_), rtol=0, atol=1e-6)


def test_a_constant_feature_is_harmless():
    features, labels = blobs()
    with_constant = torch.cat([features, torch.full((len(features), 1), 7.0)], dim=1)
    probe = fit_linear_probe(with_constant, labels, l2=1e-2)
    plain = fit_linear_probe(features, labels, l2=1e-2)
    torch.testing.assert_close(probe.logits(with_constant), plain.logits(features), rtol=0, atol=1e-6)


def test_fitting_works_where_gradients_are_switched_off():
    features, labels = blobs()
    with torch.no_grad():
        assert not fit_linear_probe(features, labels, l2=1e-2).weight.requires_grad


def test_the_penalty_is_chosen_on_the_validation_split_only():
    features, labels = blobs(seed=0)
    validation = blobs(seed=0, samples=400)
    probe = select_linear_probe(features, labels, validation, l2_grid=(1e-4, 1e-1, 10.0))
    scores = {
        l2: (fit_linear_probe(features, labels, l2=l2).predict(validation[0]) == validation[1])
        .double()
        .mean()
        .item()
        for l2 in (1e-4, 1e-1, 10.0)
    }
    assert probe.validation == pytest.approx(scores)
    assert scores[probe.l2] == max(scores.values())


def test_without_a_validation_split_the_chosen_probe_is_fitted_on_all_of_train():
    features, labels = blobs()
    probe = select_linear_probe(features, labels, seed=3)
    again = fit_linear_probe(features, labels, l2=probe.l2)
    torch.testing.assert_close(probe.logits(features), again.logits(features), rtol=0, atol=1e-5)
    assert len(probe.validation) == 4


def test_holding_out_takes_a_share_of_every_class_and_repeats_by_seed():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    kept, held = hold_out(labels, share=0.2, seed=1)
    assert sorted(kept.tolist() + held.tolist()) == list(range(16))
    assert labels[held].bincount(minlength=3).tolist() == [2, 1, 0]
    assert torch.equal(held, hold_out(labels, share=0.2, seed=1)[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, y: fit_linear_probe(f, y, l2=0.0), InputError, "l2 must be positive"),
        (lambda f, y: fit_linear_probe(f * torch.nan, y, l2=1.0), InputError, "NaN"),
        (lambda f, y: fit_linear_probe(f, torch.zeros_like(y), l2=1.0), DataError, "two classes"),
        (lambda f, y: fit_linear_probe(f, y, l2=1.0, num_classes=2), InputError, "label 3"),
        (lambda f, y: fit_linear_probe(f, y, l2=1.0).predict(f[:, 1:]), InputError, "12 wide"),
        (lambda f, y: select_linear_probe(f, y, l2_grid=()), InputError, "empty"),
        (lambda f, y: hold_out(torch.arange(5)), DataError, "second sample"),
    ],
)
def test_what_cannot_be_fitted_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(*blobs())
