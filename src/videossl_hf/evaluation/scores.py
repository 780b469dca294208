"""Figures from predictions: hits per sample, top-k accuracy, mean class accuracy, confusion matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["confusion_matrix", "mean_class_accuracy", "top_k_accuracy", "top_k_hits"]


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
