"""Features of a whole dataset: decode, embed in batches, average over views, keep what is done.

>>> table = extract_features(model, processor, dataset, views="10x3", cache_dir="outputs/features/test")
>>> table.features.shape, table.labels.shape
(torch.Size([3783, 512]), torch.Size([3783]))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import DataError, InputError
from .cache import FeatureCache
from .clips import BadSample, PreparedClips, PreparedSample
from .fingerprint import data_fingerprint, model_identity, processor_fingerprint
from .table import FeatureTable

__all__ = ["embed", "extract_features", "feature_model"]


def feature_model(model: nn.Module) -> nn.Module:
    """The part of a model that gives features: without wrappers, objectives and classifiers."""
    model = getattr(model, "module", model)  # DistributedDataParallel
    model = getattr(model, "_orig_mod", model)  # torch.compile
    return getattr(model, "base_model", model)


@torch.no_grad()
def embed(model: nn.Module, inputs: Tensor, modality: str = "video") -> Tensor:
    """Features of one batch of clips in one view each: (clips, width) float32 on the CPU.

    Args:
        model: a feature model, in the mode (`eval`) it is meant to run in.
        inputs: (clips, frames, channels, height, width), or (clips, 1, mel, time) for sound.
        modality: "video" reads `pooler_output`, or the mean over the tokens of a model without one; "audio"
            reads `audio_pooler_output`.

    Raises:
        InputError: the model has no features of this modality.
    """
    first = next(iter(model.parameters()), None)
    if first is not None:
        inputs = inputs.to(first.device, first.dtype)
    if modality == "video":
        outputs = model(pixel_values_videos=inputs)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is None:
            pooled = outputs.last_hidden_state.mean(dim=1)
    else:
        outputs = model(input_features=inputs)
        pooled = getattr(outputs, "audio_pooler_output", None)
        if pooled is None:
            raise InputError(f"{type(model).__name__} gives no audio_pooler_output: it has no sound tower")
    return pooled.flatten(1).float().cpu()


def extract_features(
    model: nn.Module,
    processor: Any,
    dataset: Any,
    *,
    views: str = "1x1",
    modality: str = "video",
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
    shard_size: int = 1024,
    num_workers: int = 0,
    on_error: str = "raise",
    progress: bool = False,
) -> FeatureTable:
    """Features of every sample, in the dataset's order.

    The model runs in eval mode, without gradients, and comes back in the mode it was in. Features of several
    views of a sample are averaged.

    Args:
        model: any model of this package (its `base_model` is used), or one of transformers.
        processor: the processor that goes with it.
        dataset: map-style samples as `load_videos` returns them, or a `PreparedClips` over them (then `views`
            and `modality` are its own).
        views: "CLIPSxCROPS", e.g. "10x3": clips spread over the video, square crops along the longer side.
        modality: "video" or "audio".
        batch_size: clips through the network at a time (a sample has CLIPS * CROPS of them).
        cache_dir: folder for shards and manifest. What is there already is read, the rest is computed.
        shard_size: samples a file; an interruption costs at most one.
        num_workers: processes that decode beside the model; 0 decodes in this one.
        on_error: "raise", or "skip": leave out samples that cannot be decoded and list them in
            `table.info["skipped"]`.
        progress: show a progress bar.

    Raises:
        DecodeError: a sample cannot be decoded, and on_error is "raise".
        DataError: no samples (left), or the cache holds features of another model, data or setting.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f'on_error must be "raise" or "skip", got {on_error!r}')
    if batch_size < 1 or shard_size < 1:
        raise InputError(f"batch_size and shard_size must be at least 1, got {batch_size} and {shard_size}")
    clips = dataset
    if not isinstance(clips, PreparedClips):
        clips = PreparedClips(processor, dataset, views=views, modality=modality)
    if len(clips) == 0:
        raise DataError("the dataset is empty: there is nothing to extract features from")
    backbone = feature_model(model)
    if cache_dir is None:
        extractor = _Extractor(backbone, clips, batch_size, num_workers, on_error)
        with _evaluating(backbone), _progress_bar(len(clips), progress) as advance:
            table, seconds = extractor.run(range(len(clips)), advance)
        if len(table) == 0:
            raise DataError(f"none of the {len(clips)} samples could be decoded: {table.info['skipped'][0]}")
        table.info["seconds"] = seconds
        return table

    identity = model_identity(backbone)
    cache = FeatureCache(
        cache_dir,
        {
            "identity": {
                "weights": identity["weights"],
                "processor": processor_fingerprint(clips.processor),
                "data": data_fingerprint(clips.dataset),
                "views": str(clips.views),
                "modality": clips.modality,
            },
            "model": identity,
            "label_names": clips.label_names,
            "num_samples": len(clips),
            "batch_size": batch_size,
            "shard_size": shard_size,
        },
    )
    # The batches of the manifest, not of this call: equal batches give equal features, bit for bit.
    extractor = _Extractor(backbone, clips, cache.manifest["batch_size"], num_workers, on_error)
    missing = cache.missing()
    total = {"data": 0.0, "model": 0.0}
    with _evaluating(backbone), _progress_bar(sum(len(cache.rows(n)) for n in missing), progress) as advance:
        for shard in missing:
            table, seconds = extractor.run(cache.rows(shard), advance)
            cache.write(shard, table)
            total = {part: total[part] + seconds[part] for part in total}
    table = cache.table()
    table.info["seconds"] = total
    return table


class _Extractor:
    """Runs prepared samples through a model in eval mode, a range of them at a time."""

    def __init__(
        self, model: nn.Module, clips: PreparedClips, batch_size: int, num_workers: int, on_error: str
    ) -> None:
        self.model = model
        self.clips = clips
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error

    def run(self, rows: range, advance: Callable[[int], None]) -> tuple[FeatureTable, dict[str, float]]:
        """The table of these samples, and the seconds spent waiting for data and in the model."""
        features: list[Tensor] = []
        kept: list[PreparedSample] = []
        skipped: list[dict[str, str]] = []
        seconds = {"data": 0.0, "model": 0.0}
        mark = time.perf_counter()
        for batch in self._batches(rows):
            good = self._sift(batch, skipped)
            seconds["data"] += time.perf_counter() - mark
            mark = time.perf_counter()
            features += self._embed(good)
            kept += good
            seconds["model"] += time.perf_counter() - mark
            mark = time.perf_counter()
            advance(len(batch))
        table = FeatureTable(
            torch.stack(features) if features else torch.empty(0, 0),
            torch.tensor([sample.label for sample in kept], dtype=torch.int64),
            [sample.key for sample in kept],
            self.clips.label_names,
            {"skipped": skipped},
        )
        return table, seconds

    def _batches(self, rows: range) -> Iterator[list[PreparedSample | BadSample]]:
        per_batch = max(1, self.batch_size // self.clips.views.count)
        batches = [list(rows[first : first + per_batch]) for first in range(0, len(rows), per_batch)]
        yield from DataLoader(
            self.clips,
            batch_sampler=batches,
            collate_fn=list,
            num_workers=min(self.num_workers, len(batches)),
        )

    def _sift(
        self, batch: list[PreparedSample | BadSample], skipped: list[dict[str, str]]
    ) -> list[PreparedSample]:
        good = []
        for sample in batch:
            if isinstance(sample, PreparedSample):
                good.append(sample)
            elif self.on_error == "raise":
                raise sample.error
            else:
                skipped.append({"key": sample.key, "reason": str(sample.error)})
        return good

    def _embed(self, samples: list[PreparedSample]) -> list[Tensor]:
        if not samples:
            return []
        views = torch.cat([sample.inputs for sample in samples])
        embedded = [embed(self.model, part, self.clips.modality) for part in views.split(self.batch_size)]
        return [part.mean(dim=0) for part in torch.cat(embedded).split([len(s.inputs) for s in samples])]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards exactly the mode of before, module by module."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over samples; yields what advances it."""
    if not shown or total == 0:
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("Extracting features", total=total)
        yield lambda count: progress.advance(task, count)
