"""The figures as `evaluate.Metric` classes: for `add_batch`, `evaluate.combine` and the Trainer, offline.

>>> TopK().compute(predictions=[[0.1, 0.9], [0.8, 0.2]], references=[1, 1], k=1)
{'top1': 0.5}
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import torch

from .retrieval import (
    class_ranks_from_similarity,
    pair_ranks_from_similarity,
    recall_at,
    retrieval_figures,
)
from .scores import average_precisions, mean_average_precision, mean_class_accuracy, top_k_accuracy

__all__ = ["ClassRetrieval", "MeanAveragePrecision", "MeanClassAccuracy", "PairRetrieval", "TopK"]


def _info(description: str, predictions: Any, references: Any) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": predictions, "references": references})
    return evaluate.MetricInfo(description=description, citation="", inputs_description="", features=features)


class TopK(evaluate.Metric):
    """Share of samples whose label is among the k best classes, from scores: {"top<k>": 0 to 1}."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Sequence(datasets.Value("float32"))
        return _info("top-k accuracy from class scores", scores, datasets.Value("int64"))

    def _compute(self, predictions: Any, references: Any, k: int = 1) -> dict[str, float]:
        scores = torch.as_tensor(predictions)
        return {f"top{k}": top_k_accuracy(scores, torch.as_tensor(references), k)}


class MeanClassAccuracy(evaluate.Metric):
    """Mean over the classes of their accuracy, from labels: {"mean_class_accuracy": 0 to 1}."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("mean class accuracy", datasets.Value("int64"), datasets.Value("int64"))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        accuracy = mean_class_accuracy(torch.as_tensor(predictions), torch.as_tensor(references))
        return {"mean_class_accuracy": accuracy}


class PairRetrieval(evaluate.Metric):
    """R@k, median and mean rank from rows of similarities; the reference is the column of the row's pair."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.Sequence(datasets.Value("float32"))
        return _info("retrieval of pairs: R@k in percent, MedR, MeanR", rows, datasets.Value("int64"))

    def _compute(
        self, predictions: Any, references: Any, ks: tuple[int, ...] = (1, 5, 10)
    ) -> dict[str, float]:
        similarity = torch.as_tensor(predictions)[:, torch.as_tensor(references)]
        return retrieval_figures(pair_ranks_from_similarity(similarity), ks)


class MeanAveragePrecision(evaluate.Metric):
    """Mean over classes of the average precision of a sample's scores, any number of classes a sample.

    The references are rows of 0 and 1, one column a class: {"mAP": 0 to 1}.
    """

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.Sequence(datasets.Value("float32"))
        return _info("mean average precision over classes", rows, datasets.Sequence(datasets.Value("int64")))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, targets = torch.as_tensor(predictions), torch.as_tensor(references)
        return {"mAP": mean_average_precision(scores, targets)}


class ClassRetrieval(evaluate.Metric):
    """R@k and mAP of queries with any number of right items: rows of similarities to the gallery.

    The references are rows of 0 and 1, 1 where the item is right. R@k is the share of queries with a right
    item among the k nearest; queries without any right item count as misses, and not for mAP.
    """

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.Sequence(datasets.Value("float32"))
        return _info("retrieval by class: R@k, mAP", rows, datasets.Sequence(datasets.Value("int64")))

    def _compute(
        self, predictions: Any, references: Any, ks: tuple[int, ...] = (1, 5, 20)
    ) -> dict[str, float]:
        similarity, right = torch.as_tensor(predictions), torch.as_tensor(references).bool()
        ranks = class_ranks_from_similarity(similarity, right)
        figures = {f"R@{k}": 100 * recall_at(ranks, k) for k in ks}
        return figures | {"mAP": 100 * average_precisions(similarity, right).nanmean().item()}
