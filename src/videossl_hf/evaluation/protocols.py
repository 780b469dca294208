"""The protocols: features of train and test in, figures with intervals out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError, InputError
from .attentive import make_attentive_head
from .bootstrap import bootstrap_interval
from .knn import knn_votes
from .linear import DEFAULT_L2_GRID, select_linear_probe
from .results import Figure
from .retrieval import class_average_precisions, class_ranks, pair_ranks
from .scores import top_k_hits
from .table import FeatureTable, check_features, check_same_classes
from .trained_probe import ProbeTraining, StandardisedLinear, select_trained_probe

__all__ = [
    "Outcome",
    "attentive_protocol",
    "classify_protocol",
    "cross_modal_protocol",
    "knn_protocol",
    "linear_protocol",
    "num_classes",
    "outcome_of",
    "retrieval_protocol",
    "sorting_protocol",
    "top_k_values",
    "zero_shot_protocol",
]


@dataclass(frozen=True)
class Outcome:
    """What a protocol found.

    Attributes:
        protocol: its name and all its settings, those it chose itself included.
        figures: by name.
        values: by figure, what it is the mean (of ranks the median) of: one number a test sample, so that
            two models can be compared clip by clip.
        scores: (test samples, classes), larger is better; None for retrieval.
    """

    protocol: dict[str, Any]
    figures: dict[str, Figure]
    values: dict[str, Tensor]
    scores: Tensor | None = None


def outcome_of(
    protocol: dict[str, Any], values: dict[str, Tensor], seed: int, scores: Tensor | None = None
) -> Outcome:
    """An outcome from its values: means in percent, and of "MedR" the median rank."""
    figures = {}
    for name, own in values.items():
        if name == "MedR":
            low, high = bootstrap_interval(own, lambda draws: draws.quantile(0.5, dim=1), seed=seed)
            figures[name] = Figure(own.quantile(0.5).item(), low, high, len(own), "rank")
        else:
            figures[name] = Figure(own.mean().item(), *bootstrap_interval(own, seed=seed), len(own))
    return Outcome(protocol, figures, values, scores)


def knn_protocol(
    train: FeatureTable, test: FeatureTable, *, k: int = 10, temperature: float | None = None, seed: int = 0
) -> Outcome:
    """Top-1 (and top-5) of the k-nearest-neighbour vote of train on test.

    Raises:
        DataError: the classes of the splits do not agree.
        InputError: NaN features, fewer training samples than k.
    """
    check_same_classes(train, test)
    classes = num_classes(train)
    votes = knn_votes(train.features, train.labels, test.features, k, temperature, classes)
    protocol = {"name": "knn", "k": k, "temperature": temperature}
    return outcome_of(protocol, top_k_values(votes, test.labels), seed, votes)


def linear_protocol(
    train: FeatureTable,
    test: FeatureTable,
    validation: FeatureTable | None = None,
    *,
    l2_grid: Sequence[float] = DEFAULT_L2_GRID,
    training: ProbeTraining | None = None,
    seed: int = 0,
) -> Outcome:
    """Top-1 (and top-5) of a linear probe whose settings were chosen on validation, or on a part of train.

    Args:
        train, test: features with labels.
        validation: to choose on; None: a fifth of every class of train.
        l2_grid: penalties of the probe that is fitted to convergence.
        training: train it by SGD or AdamW instead, see `trained_probe`.
        seed: of what is drawn.

    Raises:
        DataError: the classes of the splits do not agree.
        InputError: NaN features.
    """
    _check_splits(train, test, validation)
    if training is not None:
        return _trained_protocol("linear", train, test, validation, training, StandardisedLinear, seed)
    held = None if validation is None else (validation.features, validation.labels)
    probe = select_linear_probe(
        train.features, train.labels, held, l2_grid=l2_grid, num_classes=num_classes(train), seed=seed
    )
    protocol = {
        "name": "linear",
        "l2": probe.l2,
        "l2_grid": sorted(l2_grid),
        "chosen_on": _chosen_on(validation),
    }
    scores = probe.logits(test.features)
    return outcome_of(protocol, top_k_values(scores, test.labels), seed, scores)


def attentive_protocol(
    train: FeatureTable,
    test: FeatureTable,
    validation: FeatureTable | None = None,
    *,
    training: ProbeTraining | None = None,
    seed: int = 0,
) -> Outcome:
    """Top-1 (and top-5) of an attentive probe on tokens, see `attentive`.

    Args:
        train, test: tokens (samples, tokens, width) with labels.
        validation: to choose on; None: a fifth of every class of train.
        training: the grid, and how long.
        seed: of what is drawn.

    Raises:
        DataError: the classes of the splits do not agree.
        InputError: pooled features, NaN among them, or training diverged.
    """
    _check_splits(train, test, validation)
    if train.features.ndim != 3:
        raise InputError(
            f"an attentive probe needs tokens (samples, tokens, width), got {tuple(train.features.shape)}: "
            'extract them with space="tokens"'
        )
    settings = training or ProbeTraining()
    return _trained_protocol("attentive", train, test, validation, settings, make_attentive_head, seed)


def _trained_protocol(
    name: str,
    train: FeatureTable,
    test: FeatureTable,
    validation: FeatureTable | None,
    training: ProbeTraining,
    make_head: Callable[[Tensor, int], nn.Module],
    seed: int,
) -> Outcome:
    held = None if validation is None else (validation.features, validation.labels)
    probe = select_trained_probe(
        train.features, train.labels, held, training, make_head, num_classes=num_classes(train), seed=seed
    )
    protocol = {
        "name": name,
        **asdict(training),
        "learning_rates": list(training.learning_rates),
        "weight_decays": list(training.weight_decays),
        "lr": probe.learning_rate,
        "weight_decay": probe.weight_decay,
        "chosen_on": _chosen_on(validation),
    }
    scores = probe.logits(test.features)
    return outcome_of(protocol, top_k_values(scores, test.labels), seed, scores)


def _check_splits(train: FeatureTable, test: FeatureTable, validation: FeatureTable | None) -> None:
    check_same_classes(train, test)
    check_features(test.features.flatten(1), test.labels, name="test features")
    if validation is not None:
        check_same_classes(train, validation)


def _chosen_on(validation: FeatureTable | None) -> str:
    return "a fifth of train" if validation is None else "validation"


def retrieval_protocol(
    gallery: FeatureTable,
    queries: FeatureTable,
    *,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    among_each_other: bool = False,
    seed: int = 0,
) -> Outcome:
    """R@k within a modality: a query is right when one of its k nearest in the gallery has its class; and the
    mean average precision of the rankings.

    Args:
        gallery: features with labels.
        queries: likewise.
        ks: of R@k.
        among_each_other: queries and gallery are the same clips, as TVTS is scored on Something-Something V2:
            none finds itself, and one whose class no other has is never right.
        seed: of the intervals.

    Raises:
        DataError: the class names differ, or the gallery lacks a class.
        InputError: NaN features, or more neighbours asked for than the gallery has items.
    """
    check_same_classes(gallery, queries)
    _check_ks(ks, len(gallery) - among_each_other)
    compared = queries.features, queries.labels, gallery.features, gallery.labels
    ranks = class_ranks(*compared, same_items=among_each_other)
    precisions = class_average_precisions(*compared, same_items=among_each_other).nan_to_num()
    values = _recalls(ranks, ks) | {"mAP": 100 * precisions}
    protocol: dict[str, Any] = {"name": "retrieval", "ks": list(ks)}
    if among_each_other:
        protocol["among_each_other"] = True
    return outcome_of(protocol, values, seed)


def cross_modal_protocol(
    queries: Tensor,
    gallery: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    seed: int = 0,
    name: str = "cross-modal",
) -> Outcome:
    """R@k and median rank of each query's own pair, both (pairs, width) in the shared space."""
    _check_ks(ks, len(gallery))
    ranks = pair_ranks(queries, gallery)
    return outcome_of({"name": name, "ks": list(ks)}, _recalls(ranks, ks) | {"MedR": ranks + 1}, seed)


def classify_protocol(test: FeatureTable, names: Sequence[str], *, seed: int = 0) -> Outcome:
    """Top-1 (and top-5) of a classifier's own answers.

    Args:
        test: its probabilities or logits, averaged over the views of each video, one column a class.
        names: of its classes, in the order of the columns; the data's may stand in another order.
        seed: of the interval.

    Raises:
        DataError: the data has no labels, or a class that the classifier does not know.
        InputError: NaN among them.
    """
    if not test.label_names:
        raise DataError("the test videos have no names of classes to compare with those of the classifier")
    if unknown := [name for name in test.label_names if name not in names]:
        raise DataError(
            f"the classifier does not know {len(unknown)} of the {len(test.label_names)} classes of the data,"
            f" such as {unknown[0]!r}; it knows {', '.join(list(names)[:5])}{' ...' * (len(names) > 5)}"
        )
    check_features(test.features, test.labels, name="answers on test")
    columns = torch.tensor([list(names).index(name) for name in test.label_names])
    values = top_k_values(test.features, columns[test.labels])
    return outcome_of({"name": "classify", "classes": len(names)}, values, seed, test.features[:, columns])


def zero_shot_protocol(
    test: FeatureTable, classes: Tensor, prompts: Sequence[str], *, seed: int = 0
) -> Outcome:
    """Top-1 (and top-5) of the class whose text is nearest to a clip.

    Args:
        test: clips in the space of texts, with labels.
        classes: (classes, width), the directions of the classes' texts.
        prompts: what the names were put into, for the record.
        seed: of the interval.

    Raises:
        InputError: NaN features, or clips without labels.
    """
    check_features(test.features, test.labels, name="test features")
    scores = F.normalize(test.features, dim=1) @ classes.T
    values = top_k_values(scores, test.labels)
    return outcome_of({"name": "zero_shot", "prompts": list(prompts)}, values, seed, scores)


def sorting_protocol(found: Tensor, places: Tensor, *, seed: int = 0) -> Outcome:
    """Shares of scripts that were put in their place, and of clips with all scripts in place.

    Args:
        found: (clips, scripts), the place that the model gives to the script in each slot.
        places: the same, its true place.
        seed: of the interval.
    """
    right = found == places
    values = {"slot": _percent(right.double().mean(dim=1)), "all": _percent(right.all(dim=1))}
    return outcome_of({"name": "script_sorting", "scripts": places.shape[1]}, values, seed)


def num_classes(train: FeatureTable) -> int:
    """Classes that a protocol tells apart: those of the data, whether or not train has samples of all."""
    return len(train.label_names) if train.label_names else int(train.labels.max()) + 1


def _check_ks(ks: Sequence[int], items: int) -> None:
    if not ks or min(ks) < 1 or max(ks) > items:
        raise DataError(f"R@k needs k between 1 and the {items} items of the gallery, got {list(ks)}")


def _percent(shares: Tensor) -> Tensor:
    return 100 * shares.double().cpu()


def top_k_values(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Hits of every sample in percent: top1, and top5 where there are more than five classes."""
    ks = [k for k in (1, 5) if k == 1 or k < scores.shape[1]]
    return {f"top{k}": _percent(top_k_hits(scores, labels, k)) for k in ks}


def _recalls(ranks: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    return {f"R@{k}": _percent(ranks < k) for k in ks}
