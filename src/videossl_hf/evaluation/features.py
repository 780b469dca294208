"""Features of a whole dataset: decode, embed in batches, average over views, keep what is done.

>>> table = extract_features(model, processor, dataset, views="10x3", cache_dir="outputs/features/test")
>>> table.features.shape, table.labels.shape
(torch.Size([3783, 512]), torch.Size([3783]))
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.parallel import progress_bar
from ..errors import DataError, InputError
from .cache import FeatureCache
from .clips import BadSample, PreparedClips, PreparedSample
from .fingerprint import model_fingerprint, model_identity, processor_fingerprint
from .processes import Processes
from .table import FeatureTable

__all__ = [
    "ANSWERS",
    "OF_BACKBONE",
    "embed",
    "extract_features",
    "feature_identity",
    "feature_model",
    "unwrapped",
]


ANSWERS = ("probabilities", "logits")
"""Spaces of a classifier."""
SPACES = ("features", "mean", "tokens", "shared", "text", *ANSWERS)
OF_BACKBONE = ("features", "mean", "tokens", "text")
"""Spaces that need neither projection heads nor a classifier."""


def unwrapped(model: nn.Module) -> nn.Module:
    """A model without DistributedDataParallel and torch.compile around it."""
    for wrapper in ("module", "_orig_mod"):
        model = getattr(model, wrapper, model)
    return model


def feature_model(model: nn.Module) -> nn.Module:
    """The part of a model that gives features: without wrappers, objectives and classifiers."""
    return getattr(unwrapped(model), "base_model", unwrapped(model))


def feature_identity(model: nn.Module, clips: PreparedClips, space: str = "features") -> dict[str, str]:
    """All that features depend on; equal identities mean equal features."""
    network = feature_model(model) if space in OF_BACKBONE else unwrapped(model)
    return {
        "weights": model_fingerprint(network),
        "processor": processor_fingerprint(clips.processor),
        "data": clips.fingerprint,
        "views": str(clips.views),
        "modality": clips.modality,
        "space": space,
    } | ({} if clips.codes is None else {"codes": f"{clips.codes.fingerprint} at {clips.codes.fps} a second"})


def _video_inputs(inputs: Tensor) -> dict[str, Tensor]:
    return {"pixel_values_videos" if inputs.is_floating_point() else "input_codes": inputs}


@torch.no_grad()
def embed(model: nn.Module, inputs: Tensor, modality: str = "video", space: str = "features") -> Tensor:
    """Features of one batch of clips in one view each: (clips, width) float32 on the CPU, or its tokens.

    Args:
        model: in the mode (`eval`) it is meant to run in.
        inputs: (clips, frames, channels, height, width), integer codes (clips, frames, rows, columns), or
            (clips, 1, mel, time) for sound.
        modality: "video" or "audio".
        space: "features" reads `pooler_output` (or the mean over the tokens of a model without one) and
            `audio_pooler_output`; "tokens" reads `last_hidden_state` (clips, tokens, width), of sound
            `audio_last_hidden_state`; "mean" is the mean over these tokens; "shared" calls
            `get_video_embeddings` and `get_audio_embeddings`, where a pre-training model lets modalities be
            compared; "text" calls `get_video_features` of a model with a text tower, to be compared with its
            `get_text_features`; "probabilities" and "logits" are a classifier's.

    Raises:
        InputError: the model has no features of this kind.
    """
    first = next(iter(model.parameters()), None)
    if first is not None:
        inputs = inputs.to(first.device, first.dtype if inputs.is_floating_point() else None)
    if space in ANSWERS:
        outputs = model(**_video_inputs(inputs))
        if getattr(outputs, "logits", None) is None:
            raise InputError(f"{type(model).__name__} gives no logits: it is no classifier")
        logits = outputs.logits.float()
        return (logits.softmax(dim=-1) if space == "probabilities" else logits).cpu()
    if space == "text":
        method = getattr(model, "get_video_features", None)
        if method is None or not hasattr(model, "get_text_features"):
            raise InputError(f"{type(model).__name__} has no get_text_features: it has no text tower")
        return method(**_video_inputs(inputs)).float().cpu()
    if space == "shared":
        method = getattr(model, f"get_{modality}_embeddings", None)
        if method is None:
            raise InputError(
                f"{type(model).__name__} has no get_{modality}_embeddings: only a pre-training model with "
                "its projection heads has a space that video and sound share"
            )
        return method(inputs).float().cpu()
    outputs = model(**(_video_inputs(inputs) if modality == "video" else {"input_features": inputs}))
    if space == "tokens":
        return _tokens(model, outputs, modality).float().cpu()
    if space == "mean":
        return _tokens(model, outputs, modality).float().mean(dim=1).cpu()
    if modality == "video":
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is None:
            pooled = outputs.last_hidden_state.mean(dim=1)
    else:
        pooled = getattr(outputs, "audio_pooler_output", None)
        if pooled is None:
            raise InputError(f"{type(model).__name__} gives no audio_pooler_output: it has no sound tower")
    return pooled.flatten(1).float().cpu()


def _tokens(model: nn.Module, outputs: Any, modality: str) -> Tensor:
    name = "last_hidden_state" if modality == "video" else "audio_last_hidden_state"
    tokens = getattr(outputs, name, None)
    if tokens is None or tokens.ndim != 3:
        raise InputError(f"{type(model).__name__} gives no {name}: it has no tokens")
    return tokens


def extract_features(
    model: nn.Module,
    processor: Any,
    dataset: Any,
    *,
    views: str = "1x1",
    modality: str = "video",
    space: str = "features",
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
    shard_size: int = 1024,
    num_workers: int = 0,
    on_error: str = "raise",
    progress: str | None = None,
) -> FeatureTable:
    """Features of every sample, in the dataset's order.

    The model runs in eval mode, without gradients, and comes back in the mode it was in. Features of several
    views of a sample are averaged; their tokens stand one view after the other. Clips are decoded while the
    model is busy with those before: in `num_workers` processes, or without any in a thread.

    Several processes of `accelerate launch` share the batches of a cache, and each returns all of it. The
    files are the same, bit for bit, as those of one process with as many threads.

    Args:
        model: any model of this package (its `base_model` is used), or one of transformers.
        processor: the processor that goes with it.
        dataset: map-style samples as `load_videos` returns them, or a `PreparedClips` over them (then `views`
            and `modality` are its own).
        views: "CLIPSxCROPS", e.g. "10x3": clips spread over the video, square crops along the longer side.
        modality: "video" or "audio".
        space: "features" of the backbone, its "tokens" (samples, tokens, width) or their "mean"; "shared":
            the space in which a pre-training model compares video and sound; "text": where clips and texts
            are compared; or "probabilities" (or "logits") of a classifier's classes.
        batch_size: clips through the network at a time (a sample has CLIPS * CROPS of them).
        cache_dir: folder for shards and manifest. What is there already is read, the rest is computed; an
            interruption costs at most the batch that was being computed.
        shard_size: samples a file.
        num_workers: processes that decode beside the model; 0: a thread of this one does.
        on_error: "raise", or "skip": leave out samples that cannot be decoded and list them in
            `table.info["skipped"]`.
        progress: text of a progress bar; None shows none.

    Raises:
        DecodeError: a sample cannot be decoded, and on_error is "raise".
        DataError: no samples (left), or the cache holds features of another model, data or setting.
    """
    if on_error not in ("raise", "skip"):
        raise InputError(f'on_error must be "raise" or "skip", got {on_error!r}')
    if space not in SPACES:
        raise InputError(f"space must be one of {', '.join(SPACES)}, got {space!r}")
    if batch_size < 1 or shard_size < 1:
        raise InputError(f"batch_size and shard_size must be at least 1, got {batch_size} and {shard_size}")
    clips = dataset
    if not isinstance(clips, PreparedClips):
        clips = PreparedClips(processor, dataset, views=views, modality=modality)
    if len(clips) == 0:
        raise DataError("the dataset is empty: there is nothing to extract features from")
    network = feature_model(model) if space in OF_BACKBONE else unwrapped(model)
    per_batch = max(1, batch_size // clips.views.count)
    extractor = _Extractor(network, clips, space, batch_size, num_workers, on_error)
    if cache_dir is None:
        batches = [
            range(first, min(first + per_batch, len(clips))) for first in range(0, len(clips), per_batch)
        ]
        with _evaluating(network), _progress_bar(len(clips), progress) as advance:
            tables = [table for _, table in extractor.run(batches, advance)]
        table = _joined(tables)
        if len(table) == 0:
            raise DataError(f"none of the {len(clips)} samples could be decoded: {table.info['skipped'][0]}")
        table.info["seconds"] = extractor.seconds
        return table

    cache = FeatureCache(
        cache_dir,
        {
            "identity": feature_identity(network, clips, space),
            "model": model_identity(network),
            "label_names": clips.label_names,
            "num_samples": len(clips),
            "batch_samples": per_batch,
            "shard_size": shard_size,
        },
    )
    # The batches of the manifest, not of this call: equal batches give equal features, bit for bit.
    extractor.batch_size = cache.manifest["batch_samples"] * clips.views.count
    processes = Processes.of_this_run(next(iter(network.parameters()), torch.empty(0)).device)
    missing = cache.missing()
    todo = processes.share([(shard, rows) for shard in missing for rows in cache.missing_batches(shard)])
    left = Counter(shard for shard, _ in todo)
    shard_of = {rows.start: shard for shard, rows in todo}
    total = sum(len(rows) for _, rows in todo)
    with _evaluating(network), _progress_bar(total, progress if processes.is_main else None) as advance:
        for rows, table in extractor.run([rows for _, rows in todo], advance):
            cache.write_batch(rows, table)
            shard = shard_of[rows.start]
            left[shard] -= 1
            if left[shard] == 0 and processes.count == 1:
                cache.join(shard)
    processes.wait()
    if processes.is_main:
        for shard in cache.missing():
            cache.join(shard)
    processes.wait()
    table = cache.table()
    table.info["seconds"] = extractor.seconds
    return table


def _joined(tables: list[FeatureTable]) -> FeatureTable:
    filled = [table for table in tables if len(table)] or tables[:1]
    return FeatureTable(
        torch.cat([table.features for table in filled]),
        torch.cat([table.labels for table in filled]),
        [key for table in filled for key in table.keys],
        tables[0].label_names,
        {"skipped": [sample for table in tables for sample in table.info["skipped"]]},
    )


class _Extractor:
    """Runs batches of prepared samples through a model in eval mode.

    `seconds` sums up the time spent waiting for data and the time in the model.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: PreparedClips,
        space: str,
        batch_size: int,
        num_workers: int,
        on_error: str,
    ) -> None:
        self.model = model
        self.clips = clips
        self.space = space
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.seconds = {"data": 0.0, "model": 0.0}

    def run(
        self, batches: Sequence[range], advance: Callable[[int], None]
    ) -> Iterator[tuple[range, FeatureTable]]:
        """The sample numbers of each batch, and their table."""
        mark = time.perf_counter()
        for rows, batch in zip(batches, self._decoded(batches), strict=True):
            self.clips.remember(rows, batch)
            skipped: list[dict[str, str]] = []
            good = self._sift(batch, skipped)
            self.seconds["data"] += time.perf_counter() - mark
            mark = time.perf_counter()
            features = self._embed(good)
            self.seconds["model"] += time.perf_counter() - mark
            labels = torch.tensor([sample.label for sample in good], dtype=torch.int64)
            keys = [sample.key for sample in good]
            yield rows, FeatureTable(features, labels, keys, self.clips.label_names, {"skipped": skipped})
            advance(len(batch))
            mark = time.perf_counter()

    def _decoded(self, batches: Sequence[range]) -> Iterator[list[PreparedSample | BadSample]]:
        in_memory = all(self.clips.holds(rows) for rows in batches)
        workers = 0 if in_memory else min(self.num_workers, len(batches))
        loader = DataLoader(
            self.clips, batch_sampler=[list(rows) for rows in batches], collate_fn=list, num_workers=workers
        )
        return iter(loader) if workers or in_memory else _one_ahead(iter(loader))

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

    def _embed(self, samples: list[PreparedSample]) -> Tensor:
        if not samples:
            return torch.empty(0, 0)
        views = torch.cat([sample.inputs for sample in samples])
        parts = views.split(self.batch_size)
        embedded = [embed(self.model, part, self.clips.modality, self.space) for part in parts]
        of_samples = torch.cat(embedded).split([len(sample.inputs) for sample in samples])
        if self.space == "tokens":
            return torch.stack([part.flatten(0, 1) for part in of_samples])
        return torch.stack([part.mean(dim=0) for part in of_samples])


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the next of which is made in a thread while the caller works on this one."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, items, end)
        while (item := ahead.result()) is not end:
            ahead = thread.submit(next, items, end)
            yield item


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
def _progress_bar(total: int, text: str | None) -> Iterator[Callable[[int], None]]:
    """A bar over samples; yields what moves it."""
    with progress_bar(text is not None and total > 0) as progress:
        task = progress.add_task(text or "", total=total)
        yield lambda count: progress.advance(task, count)
