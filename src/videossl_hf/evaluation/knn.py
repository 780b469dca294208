"""k nearest neighbours: the label of a clip is voted by the k training clips most similar to it (cosine).

With a temperature the votes are weighted by exp(similarity / temperature), as in Wu et al., "Unsupervised
Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018); without one every neighbour counts
the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .table import check_features

__all__ = ["knn_classify", "knn_votes", "nearest_neighbours"]


def nearest_neighbours(
    gallery: Tensor, queries: Tensor, k: int, *, chunk_size: int = 4096
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of every query, by cosine.

    Args:
        gallery: (samples, width).
        queries: (queries, width).
        k: how many, at most the number of samples.
        chunk_size: queries compared at a time; bounds the memory to chunk_size * samples.

    Returns:
        Similarities (queries, k), descending, and rows of the gallery (queries, k).

    Raises:
        InputError: NaN features, other widths, k out of range.
    """
    check_features(gallery, name="train features")
    check_features(queries, name="test features")
    if gallery.shape[1] != queries.shape[1]:
        raise InputError(
            f"train features are {gallery.shape[1]} wide and test features {queries.shape[1]}: "
            "they come from different models"
        )
    if not 1 <= k <= len(gallery):
        raise InputError(f"k must lie between 1 and the number of training samples ({len(gallery)}), got {k}")
    gallery = F.normalize(gallery, dim=1)
    queries = F.normalize(queries.to(gallery), dim=1)
    found = [(chunk @ gallery.T).topk(k, dim=1) for chunk in queries.split(chunk_size)]
    return torch.cat([values for values, _ in found]), torch.cat([rows for _, rows in found])


def knn_votes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 10,
    temperature: float | None = None,
    num_classes: int | None = None,
) -> Tensor:
    """The share of the votes that each class gets, (test samples, classes), rows summing to 1.

    Args:
        train_features: (train samples, width).
        train_labels: (train samples,) int64.
        test_features: (test samples, width).
        k: neighbours that vote.
        temperature: weight of a vote is exp(similarity / temperature); None: all weigh the same.
        num_classes: columns of the result; by default the largest train label + 1.

    Raises:
        InputError: NaN features, fewer training samples than k, a temperature that is not positive.
    """
    check_features(train_features, train_labels, name="train features")
    if temperature is not None and temperature <= 0:
        raise InputError(f"temperature must be positive (or None for equal votes), got {temperature}")
    similarity, rows = nearest_neighbours(train_features, test_features, k)
    weight = torch.ones_like(similarity) if temperature is None else (similarity / temperature).softmax(dim=1)
    classes = int(train_labels.max()) + 1 if num_classes is None else num_classes
    votes = similarity.new_zeros(len(rows), classes)
    votes.scatter_add_(1, train_labels.to(rows.device)[rows], weight)
    return votes / votes.sum(dim=1, keepdim=True)


def knn_classify(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 10,
    temperature: float | None = None,
) -> Tensor:
    """The class with most votes among the k nearest training samples, (test samples,) int64.

    Of classes with equally many votes the one with the lower label wins, as in scikit-learn. Arguments and
    errors are those of `knn_votes`.
    """
    return knn_votes(train_features, train_labels, test_features, k, temperature).argmax(dim=1)
