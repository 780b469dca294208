"""TVTS's two losses: a clip finds its text among those of a batch, and each script finds its place in
time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...nn.distributed import gather, process_index

__all__ = [
    "ContrastiveLoss",
    "SortingLoss",
    "contrastive_loss",
    "cosine_similarities",
    "gather_rows",
    "sorting_loss",
]

SMALLEST_NORM = 1e-8


class ContrastiveLoss(NamedTuple):
    """Scalars: the loss, and the share of clips that find their text and of texts that find their clip."""

    loss: Tensor
    accuracy_video_to_text: Tensor
    accuracy_text_to_video: Tensor


class SortingLoss(NamedTuple):
    """Scalars: the loss, the share of scripts put in their place, and of clips with all scripts in place."""

    loss: Tensor
    accuracy: Tensor
    accuracy_all: Tensor


def cosine_similarities(videos: Tensor, texts: Tensor) -> Tensor:
    """Cosine of every clip `(clips, dim)` with every text `(texts, dim)`: `(clips, texts)`, float32 or
    better.

    Norms below 1e-8 count as that, so that a vector of zeros has the cosine 0.
    """
    with torch.autocast(videos.device.type, enabled=False):
        dtype = torch.promote_types(videos.dtype, torch.float32)
        videos, texts = (F.normalize(x.to(dtype), dim=-1, eps=SMALLEST_NORM) for x in (videos, texts))
        return videos @ texts.T


def gather_rows(rows: Tensor, gradient: Literal["full", "local"]) -> Tensor:
    """Rows `(batch, dim)` of all processes in the order of ranks, `(processes * batch, dim)`.

    Args:
        rows: the same number in every process.
        gradient: "full" sums over all processes what their losses say of a row: with the average over
            processes that follows, the gradient of the joint batch. "local" keeps what this process's own
            loss says of its own rows, as the official code does.
    """
    if gradient == "full":
        return gather(rows, with_gradient=True).flatten(0, 1)
    parts = list(gather(rows).unbind())
    parts[process_index()] = rows
    return torch.cat(parts)


def contrastive_loss(
    videos: Tensor, texts: Tensor, temperature: float, gradient: Literal["full", "local"] = "full"
) -> ContrastiveLoss:
    """Cross-entropy from clips to texts plus that from texts to clips, over the batches of all processes.

    Both are means over the joint batch, and they are added, not averaged. The value is the same in all
    processes.

    Args:
        videos: `(batch, dim)`, of any length.
        texts: `(batch, dim)`; row i belongs to clip i.
        temperature: divides the cosines.
        gradient: see `gather_rows`.
    """
    scores = cosine_similarities(gather_rows(videos, gradient), gather_rows(texts, gradient)) / temperature
    own = torch.arange(len(scores), device=scores.device)
    loss = F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)
    found = scores.detach()
    accuracies = ((x.argmax(dim=-1) == own).to(scores.dtype).mean() for x in (found, found.T))
    return ContrastiveLoss(loss, *accuracies)


def sorting_loss(logits: Tensor, positions: Tensor) -> SortingLoss:
    """Mean cross-entropy of the place of each script.

    Args:
        logits: `(batch, scripts, places)`.
        positions: `(batch, scripts)` int64, the true place of the script in each slot, from 0.
    """
    if positions.shape != logits.shape[:2]:
        raise InputError(
            f"script_positions has shape {tuple(positions.shape)}; give {tuple(logits.shape[:2])}"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits.flatten(0, 1), positions.flatten())
    right = logits.detach().argmax(dim=-1) == positions
    return SortingLoss(loss, right.to(logits.dtype).mean(), right.all(dim=-1).to(logits.dtype).mean())
