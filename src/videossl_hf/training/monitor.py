"""The online monitors: how well do neighbours among the training clips name the validation clips, or how well
does the classifier itself, as training goes on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..data.seeds import seeded_generator
from ..data.stored_codes import CodesManifest
from ..errors import DataError
from ..evaluation.clips import PreparedClips
from ..evaluation.features import extract_features
from ..evaluation.knn import knn_classify
from ..evaluation.scores import top_k_accuracy
from ..evaluation.table import FeatureTable
from .recipe import EvaluationRecipe

__all__ = ["AccuracyMonitor", "KNNMonitor", "draw_subset"]

_LARGEST_KEPT = 2**30


def draw_subset(dataset: Any, count: int | None, seed: int) -> Any:
    """`count` samples of a map-style dataset, the same ones whenever seed and data are; all of them for
    None.
    """
    if count is None or count >= len(dataset):
        return dataset
    rows = torch.randperm(len(dataset), generator=seeded_generator(seed, len(dataset)))[:count]
    return dataset.select(sorted(rows.tolist()))


class KNNMonitor:
    """Top-1 of k nearest neighbours: validation clips against a gallery of training clips.

    Clips are decoded once and kept in memory where all of them take less than a gibibyte. Several processes
    share the work; all of them get the result.

    Args:
        processor: of the model.
        gallery, queries: map-style datasets with labels, as `load_videos` returns them.
        recipe: k, views, batch size.
        rank, world_size: this process among all.

    Raises:
        DataError: no labels, or a gallery smaller than k.
    """

    def __init__(
        self,
        processor: Any,
        gallery: Any,
        queries: Any,
        recipe: EvaluationRecipe,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, dataset in (("training", gallery), ("validation", queries)):
            if "label" not in dataset.column_names:
                raise DataError(
                    f"the {name} clips have no labels, which the kNN monitor needs: "
                    "set evaluation.knn_every to null"
                )
        if len(gallery) < recipe.knn_k:
            raise DataError(
                f"the kNN monitor's gallery has {len(gallery)} clips, "
                f"fewer than evaluation.knn_k={recipe.knn_k}"
            )
        self.recipe = recipe
        self.world_size = world_size
        keep = _can_keep(processor, queries, recipe.views, len(gallery) + len(queries))
        self.shares = {
            name: PreparedClips(
                processor,
                dataset.select(range(rank, len(dataset), world_size)),
                views=recipe.views,
                keep=keep,
            )
            for name, dataset in (("gallery", gallery), ("queries", queries))
        }
        self.processor = processor

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`eval_knn_top1`, a share between 0 and 1; the same on every process."""
        gallery, gallery_labels = self._features(model, "gallery")
        queries, labels = self._features(model, "queries")
        predictions = knn_classify(
            gallery, gallery_labels, queries, k=self.recipe.knn_k, temperature=self.recipe.knn_temperature
        )
        return {"eval_knn_top1": (predictions == labels).double().mean().item()}

    def _features(self, model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
        table = extract_features(
            model, self.processor, self.shares[name], batch_size=self.recipe.batch_size, on_error="skip"
        )
        return _of_all_processes(table, self.world_size)


class AccuracyMonitor:
    """A classifier's own accuracy on the validation clips, its probabilities averaged over the views of each.

    Clips are kept and shared out as by `KNNMonitor`; no clip is left out or counted twice.

    Args:
        processor: of the model.
        clips: map-style dataset whose labels are the model's, as `load_videos` returns it.
        recipe: views, batch size.
        rank, world_size: this process among all.
    """

    def __init__(
        self,
        processor: Any,
        clips: Any,
        recipe: EvaluationRecipe,
        rank: int = 0,
        world_size: int = 1,
        codes: CodesManifest | None = None,
    ) -> None:
        self.processor, self.recipe, self.world_size = processor, recipe, world_size
        self.share = PreparedClips(
            processor,
            clips.select(range(rank, len(clips), world_size)),
            views=recipe.views,
            keep=_can_keep(processor, clips, recipe.views, len(clips), codes),
            codes=codes,
        )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`eval_top1`, `eval_top5` (of six classes or more) and `eval_loss`; the same on every process."""
        table = extract_features(
            model,
            self.processor,
            self.share,
            space="probabilities",
            batch_size=self.recipe.batch_size,
            on_error="skip",
        )
        probabilities, labels = _of_all_processes(table, self.world_size)
        ks = [k for k in (1, 5) if k == 1 or k < probabilities.shape[1]]
        figures = {f"eval_top{k}": top_k_accuracy(probabilities, labels, k) for k in ks}
        own = probabilities.double().gather(1, labels[:, None])
        return figures | {"eval_loss": -own.clamp_min(1e-12).log().mean().item()}


def _can_keep(processor: Any, clips: Any, views: str, count: int, codes: CodesManifest | None = None) -> bool:
    """Whether `count` clips like the first fit into memory."""
    sample = PreparedClips(processor, clips, views=views, codes=codes)[0]
    bytes_of_one = sample.inputs.nbytes if hasattr(sample, "inputs") else _LARGEST_KEPT
    return bytes_of_one * count <= _LARGEST_KEPT


def _of_all_processes(table: FeatureTable, world_size: int) -> tuple[Tensor, Tensor]:
    """Features and labels of all processes' shares."""
    if world_size == 1:
        return table.features, table.labels
    tables: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(tables, (table.features, table.labels))
    return torch.cat([features for features, _ in tables]), torch.cat([labels for _, labels in tables])
