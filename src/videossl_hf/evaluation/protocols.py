"""The protocols: features of train and test in, figures with intervals out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError
from .bootstrap import bootstrap_interval
from .knn import knn_votes
from .linear import DEFAULT_L2_GRID, select_linear_probe
from .results import Figure
from .retrieval import class_ranks, pair_ranks
from .scores import top_k_hits
from .table import FeatureTable, check_features, check_same_classes

__all__ = [
    "Outcome",
    "classify_protocol",
    "cross_modal_protocol",
    "knn_protocol",
    "linear_protocol",
    "retrieval_protocol",
    "sorting_protocol",
    "zero_shot_protocol",
]


@dataclass(frozen=True)
class Outcome:
    """What a protocol found.

    Attributes:
        protocol: its name and all its settings, those it chose itself included.
        figures: by name.
        scores: (test samples, classes), larger is better; None for retrieval.
    """

    protocol: dict[str, Any]
    figures: dict[str, Figure]
    scores: Tensor | None = None


def knn_protocol(
    train: FeatureTable, test: FeatureTable, *, k: int = 10, temperature: float | None = None, seed: int = 0
) -> Outcome:
    """Top-1 (and top-5) of the k-nearest-neighbour vote of train on test.

    Raises:
        DataError: the classes of the splits do not agree.
        InputError: NaN features, fewer training samples than k.
    """
    check_same_classes(train, test)
    classes = _num_classes(train)
    votes = knn_votes(train.features, train.labels, test.features, k, temperature, classes)
    protocol = {"name": "knn", "k": k, "temperature": temperature}
    return Outcome(protocol, _top_k(votes, test.labels, seed), votes)


def linear_protocol(
    train: FeatureTable,
    test: FeatureTable,
    validation: FeatureTable | None = None,
    *,
    l2_grid: Sequence[float] = DEFAULT_L2_GRID,
    seed: int = 0,
) -> Outcome:
    """Top-1 (and top-5) of a linear probe whose penalty was chosen on validation, or on a part of train.

    Raises:
        DataError: the classes of the splits do not agree.
        InputError: NaN features.
    """
    check_same_classes(train, test)
    check_features(test.features, test.labels, name="test features")
    if validation is not None:
        check_same_classes(train, validation)
    held = None if validation is None else (validation.features, validation.labels)
    probe = select_linear_probe(
        train.features, train.labels, held, l2_grid=l2_grid, num_classes=_num_classes(train), seed=seed
    )
    protocol = {
        "name": "linear",
        "l2": probe.l2,
        "l2_grid": sorted(l2_grid),
        "chosen_on": "a fifth of train" if validation is None else "validation",
    }
    scores = probe.logits(test.features)
    return Outcome(protocol, _top_k(scores, test.labels, seed), scores)


def retrieval_protocol(
    gallery: FeatureTable, queries: FeatureTable, *, ks: Sequence[int] = (1, 5, 20), seed: int = 0
) -> Outcome:
    """R@k within a modality: a query is right when one of its k nearest in the gallery has its class.

    Raises:
        DataError: the class names differ, or the gallery lacks a class.
        InputError: NaN features, or more neighbours asked for than the gallery has items.
    """
    check_same_classes(gallery, queries)
    _check_ks(ks, len(gallery))
    ranks = class_ranks(queries.features, queries.labels, gallery.features, gallery.labels)
    return Outcome({"name": "retrieval", "ks": list(ks)}, _recalls(ranks, ks, seed))


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
    low, high = bootstrap_interval(ranks, lambda draws: draws.quantile(0.5, dim=1), seed=seed)
    median = Figure(ranks.quantile(0.5).item() + 1, low + 1, high + 1, len(ranks), "rank")
    return Outcome({"name": name, "ks": list(ks)}, _recalls(ranks, ks, seed) | {"MedR": median})


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
    figures = _top_k(test.features, columns[test.labels], seed)
    return Outcome({"name": "classify", "classes": len(names)}, figures, test.features)


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
    return Outcome({"name": "zero_shot", "prompts": list(prompts)}, _top_k(scores, test.labels, seed), scores)


def sorting_protocol(found: Tensor, places: Tensor, *, seed: int = 0) -> Outcome:
    """Shares of scripts that were put in their place, and of clips with all scripts in place.

    Args:
        found: (clips, scripts), the place that the model gives to the script in each slot.
        places: the same, its true place.
        seed: of the interval.
    """
    right = found == places
    figures = {"slot": _share(right.double().mean(dim=1), seed), "all": _share(right.all(dim=1), seed)}
    return Outcome({"name": "script_sorting", "scripts": places.shape[1]}, figures)


def _num_classes(train: FeatureTable) -> int:
    return len(train.label_names) if train.label_names else int(train.labels.max()) + 1


def _check_ks(ks: Sequence[int], items: int) -> None:
    if not ks or min(ks) < 1 or max(ks) > items:
        raise DataError(f"R@k needs k between 1 and the {items} items of the gallery, got {list(ks)}")


def _share(hits: Tensor, seed: int) -> Figure:
    percent = 100 * hits.double().cpu()
    return Figure(percent.mean().item(), *bootstrap_interval(percent, seed=seed), len(percent))


def _top_k(scores: Tensor, labels: Tensor, seed: int) -> dict[str, Figure]:
    ks = [k for k in (1, 5) if k == 1 or k < scores.shape[1]]
    return {f"top{k}": _share(top_k_hits(scores, labels, k), seed) for k in ks}


def _recalls(ranks: Tensor, ks: Sequence[int], seed: int) -> dict[str, Figure]:
    return {f"R@{k}": _share(torch.as_tensor(ranks < k), seed) for k in ks}
