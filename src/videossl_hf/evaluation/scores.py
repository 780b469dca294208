"""Figures from predictions: hits, top-k and mean class accuracy, confusion matrix, average precision."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "average_precisions",
    "confusion_matrix",
    "mean_average_precision",
    "mean_class_accuracy",
    "top_k_accuracy",
    "top_k_hits",
]


def top_k_hits(scores: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Whether the label is among the k best classes, (samples,) bool.

    Classes with equal scores are ordered by their label, the lower one first.

    Args:
        scores: (samples, classes), larger is better.
        labels: (samples,) int64.
        k: at least 1; k above the number of classes counts everything as a hit.
    """
    if scores.ndim != 2 or labels.shape != (len(scores),):
        raise InputError(
            "scores must be (samples, classes) with one label a row, "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (order == labels[:, None].to(order.device)).any(dim=1)


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of samples whose label is among the k best classes, 0 to 1."""
    return top_k_hits(scores, labels, k).double().mean().item()


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (classes, classes) int64: row = true class, column = predicted one."""
    if predictions.shape != labels.shape:
        raise InputError(f"{tuple(predictions.shape)} predictions for {tuple(labels.shape)} labels")
    cells = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def mean_class_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Mean of the accuracies of the classes that occur in `labels`, 0 to 1."""
    hits = (predictions == labels).double()
    return torch.stack([hits[labels == label].mean() for label in labels.unique()]).mean().item()


def average_precisions(scores: Tensor, relevant: Tensor) -> Tensor:
    """Average precision of every row, (rows,) float64; NaN where nothing is relevant.

    Precision is read after the last item of equal score, so that the order of equal ones does not matter.

    Args:
        scores: (rows, items), larger is better.
        relevant: (rows, items) bool.
    """
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise InputError(
            f"need (rows, items) scores and relevances, got {tuple(scores.shape)}, {tuple(relevant.shape)}"
        )
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    right = relevant.gather(1, order).double()
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    ends = torch.cat([ordered[:, 1:] != ordered[:, :-1], torch.ones_like(relevant[:, :1])], dim=1)
    last = torch.where(ends, places, scores.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    precision = right.cumsum(dim=1).gather(1, last - 1) / last
    return (precision * right).sum(dim=1) / right.sum(dim=1)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """Mean over the classes that occur of their average precision, 0 to 1.

    Args:
        scores: (samples, classes).
        targets: (samples, classes) bool, any number of classes a sample; or labels (samples,).
    """
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, scores.shape[1])
    return average_precisions(scores.T, targets.T.bool()).nanmean().item()
