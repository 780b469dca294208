"""STiCA's objective: which crops are compared with which, and the losses of all comparisons.

A *group* is one batch of embeddings: `(view, kind, index)`, for example `(1, "space_small", 0)`, the first
small space crop of the second view. Losses are lists of directed comparisons of groups, so that all
embeddings are gathered in one collective and all comparisons of one temperature are one product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...nn.contrastive import gather_keys, info_nce
from ...nn.distributed import process_count, process_index
from ...nn.feature_crop import crop_starts, window_size
from .configuration_stica import STiCAConfig

Group = tuple[int, str, int]
FULL = "full"
INPUT_CROP = "input_crop"
PARTS = ("space_large", "space_small", "time_large", "time_small")


class FeatureCrops(NamedTuple):
    """Crops of one view's feature map, int64, ends exclusive; they hold for every sample of the batch.

    Attributes:
        space_large, space_small: `(crops, 4)`, each (top, bottom, left, right).
        time_large, time_small: `(crops, 2)`, each (start, end).
    """

    space_large: Tensor
    space_small: Tensor
    time_large: Tensor
    time_small: Tensor


class Comparison(NamedTuple):
    """A directed loss: the gradient reaches `query` only. `part` says which mean it belongs to."""

    part: str
    query: Group
    key: Group
    weight: float


def crop_count(config: STiCAConfig, part: str) -> int:
    """How many crops of a part the configuration asks for."""
    return int(getattr(config, f"{part}_crops"))


def crop_comparisons(config: STiCAConfig) -> list[Comparison]:
    """All comparisons of crops with crops; none for GDT, nor without crops.

    As published, large crops of view 1 are keys for the small crops of view 2, and the second large crops of
    both views are compared in both directions. `symmetric_crops` adds the small crops of view 1 against view
    2, and compares the first large crops as well.
    """
    if config.objective == "gdt":
        return []
    comparisons = []
    for axis in ("space", "time"):
        large, small = f"{axis}_large", f"{axis}_small"
        from_input = axis == "space" and config.crop_space == "input"
        anchors = range(crop_count(config, large))
        if from_input:
            # The views themselves are the large crops; small ones are videos of their own, without a view.
            if len(anchors) == 2:
                comparisons += _both_ways(large, (1, FULL, 0), (0, FULL, 0))
            for anchor in anchors:
                for index in range(crop_count(config, small)):
                    comparisons.append(Comparison(small, (0, INPUT_CROP, index), (anchor, FULL, 0), 1.0))
            continue
        for index in anchors if config.symmetric_crops else anchors[1:]:
            comparisons += _both_ways(large, (1, large, index), (0, large, index))
        for query_view in (1, 0) if config.symmetric_crops else (1,):
            for anchor in anchors:
                for index in range(crop_count(config, small)):
                    comparisons.append(
                        Comparison(small, (query_view, small, index), (1 - query_view, large, anchor), 1.0)
                    )
    return comparisons


def _both_ways(part: str, first: Group, second: Group) -> list[Comparison]:
    return [Comparison(part, first, second, 0.5), Comparison(part, second, first, 0.5)]


def groups_of_view(comparisons: Sequence[Comparison], view: int) -> list[Group]:
    """What must be embedded of a view: the crops that some comparison uses, by part, and the full map last.

    This is also the order in which the head's BatchNorm counts them into its running statistics.
    """
    used = {group for comparison in comparisons for group in (comparison.query, comparison.key)}
    crops = sorted(
        (group for group in used if group[0] == view and group[1] in PARTS),
        key=lambda group: (PARTS.index(group[1]), group[2]),
    )
    return [*crops, (view, FULL, 0)]


def bits_needed(config: STiCAConfig) -> int:
    """Random integers that `draw_crops` takes for one view: two for a space crop, one for a time crop."""
    return sum(crop_count(config, part) * (2 if part.startswith("space") else 1) for part in PARTS)


def draw_crops(config: STiCAConfig, size: tuple[int, int, int], bits: Tensor) -> FeatureCrops:
    """Place the crops of one view at random.

    Args:
        size: frames, height and width of the map.
        bits: `(bits_needed(config),)` random integers in [0, 2**32).
    """
    boxes = []
    for part in PARTS:
        axes = size[1:] if part.startswith("space") else size[:1]
        count = crop_count(config, part)
        own, bits = bits[: count * len(axes)].view(count, len(axes)), bits[count * len(axes) :]
        edges = []
        for axis, length in enumerate(axes):
            window = window_size(length, getattr(config, f"{part}_fraction"))
            start = crop_starts(own[:, axis], length, window, config.legacy_crop_range)
            edges += [start, start + window]
        boxes.append(torch.stack(edges, dim=1))
    return FeatureCrops(*boxes)


def map_size(feature_map: Tensor) -> tuple[int, int, int]:
    """Frames, height and width of a map `(batch, channels, frames, height, width)`."""
    frames, height, width = feature_map.shape[2:]
    return frames, height, width


def crop_boxes(
    groups: Sequence[Group], crops: FeatureCrops | None, size: tuple[int, int, int], like: Tensor
) -> Tensor:
    """The boxes of a view's groups, `(groups, 6)`, on the device of `like`, as `pool_boxes` takes them."""
    frames, height, width = size
    whole = like.new_zeros(1, 6, dtype=torch.int64)
    for column, length in ((1, frames), (3, height), (5, width)):
        whole[:, column] = length
    boxes = []
    for _, kind, index in groups:
        if kind == FULL or crops is None:
            boxes.append(whole)
            continue
        edges = getattr(crops, kind)[index : index + 1].to(like.device, non_blocking=True)
        if kind.startswith("space"):
            boxes.append(torch.cat([whole[:, :2], edges], dim=1))
        else:
            boxes.append(torch.cat([edges, whole[:, 2:]], dim=1))
    return torch.cat(boxes)


class Losses(NamedTuple):
    """The objective's value and its parts, unweighted; scalars, None where a part has no comparisons."""

    loss: Tensor
    loss_cross_modal: Tensor | None
    loss_crops: Tensor | None
    parts: dict[str, Tensor]
    accuracy_video_to_audio: Tensor | None
    accuracy_audio_to_video: Tensor | None
    accuracy_crops: Tensor | None


def contrastive_losses(
    config: STiCAConfig,
    video: Mapping[Group, Tensor],
    audio: Tensor | None,
    generator: torch.Generator | None = None,
) -> Losses:
    """The objective on embeddings.

    With NCE(q, k; t) the mean cross-entropy of finding row i of k for row i of q among the rows of all
    processes, keys detached:

    - cross-modal loss: mean over views v and both directions of NCE(video_v, audio_v) and NCE(audio_v,
      video_v);
    - crop loss: mean over all comparisons of `crop_comparisons` (the two directions of a large pair count as
      one);
    - loss = (1 - alpha) * crop loss + alpha * cross-modal loss. A loss without comparisons is left out.

    Args:
        video: `(batch, dim)`, unit length, for every group that is compared.
        audio: `(views, batch, dim)`, unit length; None leaves the cross-modal loss out.
        generator: for the draw of negatives of GDT with `num_negatives`.
    """
    groups = list(video)
    comparisons = crop_comparisons(config)
    views = 0 if audio is None else audio.shape[0]
    embeddings = torch.stack([*video.values(), *(audio.unbind() if audio is not None else ())])
    keys = gather_keys(embeddings)
    cross_modal = to_audio = to_video = crops = accuracy_crops = None

    if audio is not None:
        video_rows = [groups.index((view, FULL, 0)) for view in range(views)]
        audio_rows = [len(groups) + view for view in range(views)]
        temperature = config.temperature_gdt if config.objective == "gdt" else config.temperature_cross
        queries, others = _rows(embeddings, video_rows + audio_rows), _rows(keys, audio_rows + video_rows)
        first_positive = None
        if config.objective == "gdt" and config.num_negatives is not None and process_count() > 1:
            others, first_positive = (
                _sample_negatives(others, queries.shape[1], config.num_negatives, generator),
                0,
            )
        terms = info_nce(queries, others, temperature, first_positive)
        cross_modal = terms.loss.mean()
        to_audio, to_video = terms.accuracy.view(2, views).mean(1).unbind()

    parts: dict[str, Tensor] = {}
    if comparisons:
        queries = _rows(embeddings, [groups.index(comparison.query) for comparison in comparisons])
        others = _rows(keys, [groups.index(comparison.key) for comparison in comparisons])
        terms = info_nce(queries, others, config.temperature_within)
        accuracy_crops = terms.accuracy.mean()
        sums, counts = [], []
        for part in PARTS:
            own = [(row, entry.weight) for row, entry in enumerate(comparisons) if entry.part == part]
            if own:
                sums.append(torch.stack([terms.loss[row] * weight for row, weight in own]).sum())
                counts.append(sum(weight for _, weight in own))
                parts[part] = sums[-1] / counts[-1]
        crops = torch.stack(sums).sum() / sum(counts)

    if config.objective == "gdt":
        weighted = [cross_modal]
    else:
        weighted = [
            crops * (1 - config.alpha) if crops is not None else None,
            cross_modal * config.alpha if cross_modal is not None else None,
        ]
    loss = torch.stack([term for term in weighted if term is not None]).sum()
    return Losses(loss, cross_modal, crops, parts, to_audio, to_video, accuracy_crops)


def _rows(stacked: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of a stack. An index tensor would have to be copied to the device at every step."""
    return torch.stack([stacked[row] for row in rows])


def _sample_negatives(keys: Tensor, batch: int, count: int, generator: torch.Generator | None) -> Tensor:
    """This process's keys, then `count` of the others', drawn with replacement:
    `(terms, batch + count, dim)`."""
    first = process_index() * batch
    device = keys.device if generator is None else generator.device
    drawn = torch.randint(keys.shape[1] - batch, (count,), generator=generator, device=device)
    drawn = drawn.to(keys.device, non_blocking=True)
    drawn = torch.where(drawn >= first, drawn + batch, drawn)
    return torch.cat([keys[:, first : first + batch], keys[:, drawn]], dim=1)
