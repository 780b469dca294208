from __future__ import annotations

import pytest
import torch

from videossl_hf.errors import ConfigurationError, DataError, InputError
from videossl_hf.evaluation.attentive import AttentiveHead
from videossl_hf.evaluation.linear import select_linear_probe
from videossl_hf.evaluation.protocols import attentive_protocol, knn_protocol, linear_protocol
from videossl_hf.evaluation.scores import top_k_accuracy
from videossl_hf.evaluation.table import FeatureTable
from videossl_hf.evaluation.trained_probe import (
    LINEAR_SETTINGS,
    ProbeTraining,
    StandardisedLinear,
    select_trained_probe,
)


def blobs(seed: int, samples: int = 160, classes: int = 4, width: int = 8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return 30 * (centres[labels] + torch.randn(samples, width, generator=generator)) + 7, labels


def marked_tokens(seed: int, samples: int = 120, tokens: int = 9) -> FeatureTable:
    """Every token names a class at random; the one with a mark names that of the sample."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    named = torch.randint(3, (samples, tokens), generator=generator)
    marked = torch.randint(tokens, (samples,), generator=generator)
    named[torch.arange(samples), marked] = labels
    features = torch.zeros(samples, tokens, 8)
    features[..., 1:4] = 3.0 * torch.nn.functional.one_hot(named, 3)
    features[torch.arange(samples), marked, 0] = 3.0
    return FeatureTable(features, labels, list(map(str, range(samples))), ["a", "b", "c"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trained_probe_comes_near_the_one_that_is_fitted_to_convergence(optimizer):
    train, test, validation = blobs(0), blobs(1, 800), blobs(2, 800)
    settings = LINEAR_SETTINGS[optimizer]
    trained = select_trained_probe(*train, validation, settings, StandardisedLinear, num_classes=4)
    fitted = select_linear_probe(*train, validation)
    ours, reference = (top_k_accuracy(probe.logits(test[0]), test[1]) for probe in (trained, fitted))
    assert ours == pytest.approx(reference, abs=0.03)
    pairs = {(lr, wd) for lr in settings.learning_rates for wd in settings.weight_decays}
    assert trained.validation.keys() == pairs


def test_the_settings_are_chosen_on_validation_samples_and_the_run_repeats_by_seed():
    train, validation = blobs(0), blobs(2)
    training = ProbeTraining("sgd", (1e-6, 0.1), (0.0,), epochs=5)
    first, second = (
        select_trained_probe(*train, validation, training, StandardisedLinear, num_classes=4, seed=3)
        for _ in range(2)
    )
    assert first.learning_rate == 0.1
    assert first.validation[1e-6, 0.0] < first.validation[0.1, 0.0]
    assert torch.equal(first.logits(validation[0]), second.logits(validation[0]))
    state = torch.random.get_rng_state()
    select_trained_probe(*train, validation, training, StandardisedLinear, num_classes=4)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_rate_that_diverges_is_not_chosen():
    train, validation = blobs(0), blobs(2)
    training = ProbeTraining("sgd", (1e38, 0.1), (0.0,), epochs=2)
    probe = select_trained_probe(*train, validation, training, StandardisedLinear, num_classes=4)
    assert probe.learning_rate == 0.1
    with pytest.raises(InputError, match="diverged with every"):
        select_trained_probe(
            *train, validation, ProbeTraining("sgd", (1e38,), (0.0,)), StandardisedLinear, num_classes=4
        )


def test_an_attentive_probe_finds_the_token_that_matters():
    train, test = marked_tokens(0), marked_tokens(1)
    training = ProbeTraining(learning_rates=(1e-2,), weight_decays=(0.01,), epochs=40, batch_size=32)
    outcome = attentive_protocol(train, test, training=training)
    pooled = [
        FeatureTable(table.features.mean(dim=1), table.labels, table.keys, table.label_names)
        for table in (train, test)
    ]
    assert outcome.figures["top1"].value > knn_protocol(*pooled).figures["top1"].value + 20
    assert outcome.figures["top1"].value > 80
    assert outcome.protocol["lr"] == 1e-2


def test_the_probe_is_multi_head_attention_of_one_query():
    """Answers and gradients are those of torch's module, in float64, with weights of any size."""
    generator = torch.Generator().manual_seed(0)
    head = AttentiveHead(width=12, classes=3, heads=4).double()
    plain = torch.nn.MultiheadAttention(12, 4, batch_first=True).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=generator)
        parts = head.to_query, head.to_key, head.to_value
        plain.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        plain.in_proj_bias.normal_(generator=generator)  # the keys' part of it has no effect
        plain.in_proj_bias[:12].copy_(head.to_query.bias)
        plain.in_proj_bias[24:].copy_(head.to_value.bias)
        plain.out_proj.weight.copy_(torch.eye(12))
    tokens = torch.randn(5, 7, 12, generator=generator, dtype=torch.float64)

    def reference():
        known, query = head.norm_tokens(tokens), head.query.expand(5, 1, 12)
        pooled = (query + plain(query, known, known)[0])[:, 0]
        return head.classifier(pooled + head.mlp(head.norm(pooled)))

    shared = [head.query, *head.norm_tokens.parameters(), *head.mlp.parameters()]
    ours, theirs = head(tokens), reference()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    own = torch.autograd.grad(ours.square().sum(), [*shared, *(part.weight for part in parts)])
    expected = torch.autograd.grad(theirs.square().sum(), [*shared, plain.in_proj_weight])
    for found, wanted in zip(own[: len(shared)], expected, strict=False):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.cat(own[len(shared) :]), expected[-1], rtol=1e-9, atol=1e-9)


def test_the_order_of_tokens_does_not_matter_to_the_probe():
    head = AttentiveHead(width=12, classes=3, heads=4).eval()
    tokens = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(tokens), head(tokens[:, torch.randperm(7)]))
    assert AttentiveHead(width=12, classes=3, heads=5).heads == 4


def test_a_probe_by_sgd_says_how_it_was_trained():
    names = ["a", "b", "c", "d"]
    train, test = (FeatureTable(*blobs(seed), [str(n) for n in range(160)], names) for seed in (0, 1))
    training = ProbeTraining("sgd", (0.1, 0.3), (0.0,), epochs=5)
    protocol = linear_protocol(train, test, training=training).protocol
    assert (protocol["name"], protocol["optimizer"], protocol["epochs"]) == ("linear", "sgd", 5)
    assert protocol["lr"] in protocol["learning_rates"] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, y: ProbeTraining("rmsprop"), ConfigurationError, "sgd or adamw"),
        (lambda f, y: ProbeTraining(learning_rates=()), ConfigurationError, "learning rates"),
        (lambda f, y: ProbeTraining(weight_decays=(-1.0,)), ConfigurationError, "weight decays"),
        (lambda f, y: ProbeTraining(epochs=0), ConfigurationError, "epoch"),
        (lambda f, y: probe(f * torch.nan, y), InputError, "NaN"),
        (lambda f, y: probe(f, torch.zeros_like(y)), DataError, "two classes"),
        (lambda f, y: attentive_protocol(table(f, y), table(f, y)), InputError, "space=.tokens"),
    ],
)
def test_what_cannot_be_trained_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(*blobs(0))


def probe(features, labels):
    return select_trained_probe(features, labels, None, ProbeTraining(), StandardisedLinear, num_classes=4)


def table(features, labels):
    return FeatureTable(features, labels, list(map(str, labels.tolist())), ["a", "b", "c", "d"])
