"""VIMPAC's two losses: the hidden codes, and which two clips are of one video."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nn.distributed import all_reduce_sum, gather, process_count, process_index
from ...nn.lean_cross_entropy import summed_cross_entropy
from .masking_vimpac import IGNORED


class LossAndAccuracy(NamedTuple):
    """Scalars; the accuracy is a share in [0, 1], detached."""

    loss: Tensor
    accuracy: Tensor


class TokenScores(NamedTuple):
    """Scalars; the accuracies are shares in [0, 1], detached. `rare_accuracy` leaves out the most frequent of
    the codes that are asked for."""

    loss: Tensor
    accuracy: Tensor
    rare_accuracy: Tensor


def masked_token_loss(logits: Tensor, labels: Tensor, over_all_processes: bool = True) -> TokenScores:
    """Mean cross-entropy of the places that have a label; zero, with a gradient of zero, where none has.

    Args:
        logits: `(places, vocabulary)`.
        labels: `(places,)`, -100 where nothing is asked.
        over_all_processes: divide by the mean count of all processes, so that the average of the processes'
            losses is the mean over all their places.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    asked = labels != IGNORED
    count = asked.sum().to(dtype)
    right = (logits.argmax(-1) == labels) & asked
    counts = torch.zeros(logits.shape[-1], dtype=dtype, device=logits.device)
    counts = counts.scatter_add(0, labels.clamp_min(0), asked.to(dtype))
    rare = asked & (labels != counts.argmax())
    loss = summed_cross_entropy(logits, labels, IGNORED)
    divisor = count
    if over_all_processes and process_count() > 1:
        divisor = all_reduce_sum(count) / process_count()
    one = torch.finfo(dtype).tiny
    return TokenScores(
        loss / divisor.clamp_min(one),
        right.sum() / count.clamp_min(one),
        (right & rare).sum() / rare.sum().clamp_min(1),
    )


def two_clip_loss(
    first: Tensor, second: Tensor, temperature: float, normalize: bool = True
) -> LossAndAccuracy:
    """InfoNCE between two clips of each video, with negatives of both kinds and of all processes.

    For the first clip a_i of video i the positive is its second clip b_i; negatives are the second clips of
    all other videos and also their first clips. The mean over the first clips and the mean over the second
    clips are added up and multiplied by the temperature (vimpac/nce_support.py). Gradients reach every
    embedding, as query and as key, of all processes.

    Args:
        first, second: `(videos, dim)`, the same number of videos on every process.
        normalize: scale embeddings to unit length first.
    """
    with torch.autocast(first.device.type, enabled=False):
        own = torch.stack([first, second])
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        if normalize:
            own = F.normalize(own, dim=-1)
        keys = gather(own, with_gradient=True).transpose(0, 1).flatten(1, 2)
        logits = own.flatten(0, 1) @ keys.flatten(0, 1).T / temperature
    videos, all_videos = own.shape[1], keys.shape[1]
    rows = torch.arange(videos, device=own.device) + process_index() * videos
    itself = torch.cat([rows, rows + all_videos])
    positive = torch.cat([rows + all_videos, rows])
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    loss = F.cross_entropy(logits, positive)  # the mean over both kinds of queries: half the sum of two means
    accuracy = (logits.detach().argmax(-1) == positive).to(logits.dtype).mean()
    return LossAndAccuracy(2 * temperature * loss, accuracy)


__all__ = ["LossAndAccuracy", "TokenScores", "masked_token_loss", "two_clip_loss"]
