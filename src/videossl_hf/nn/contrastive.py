"""InfoNCE (van den Oord et al., 2018) for many pairs of batches at once, across processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributed import gather, process_index

__all__ = ["ContrastiveTerms", "gather_keys", "info_nce", "symmetric_info_nce"]


class ContrastiveTerms(NamedTuple):
    """One loss and one accuracy a pair; accuracy is the share of queries whose own key scores highest."""

    loss: Tensor
    accuracy: Tensor


def gather_keys(embeddings: Tensor) -> Tensor:
    """Keys of all processes, detached: `(..., batch, dim)` to `(..., processes * batch, dim)`, in one
    collective.

    Rows are in the order of ranks, so the key of this process's row i is row `rank * batch + i`.
    """
    return gather(embeddings).movedim(0, -3).flatten(-3, -2)


def info_nce(
    queries: Tensor, keys: Tensor, temperature: float, first_positive: int | None = None
) -> ContrastiveTerms:
    """Mean cross-entropy of finding each query's own key among all keys.

    Args:
        queries: `(..., batch, dim)`, unit length.
        keys: `(..., keys, dim)`, unit length. The positive of query i is row `first_positive + i`.
        temperature: divides the dot products.
        first_positive: by default this process's rows of `gather_keys`.

    Returns:
        loss and accuracy of each leading index: shape `(...)`.
    """
    batch, count = queries.shape[-2], keys.shape[-2]
    if first_positive is None:
        first_positive = process_index() * batch if count > batch else 0
    # Half precision would round a difference of one percent in the logits away.
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        logits = queries.to(dtype) @ keys.to(dtype).transpose(-2, -1) / temperature
    positives = torch.arange(first_positive, first_positive + batch, device=queries.device)
    positives = positives.expand(logits.shape[:-1])
    loss = F.cross_entropy(logits.reshape(-1, count), positives.reshape(-1), reduction="none")
    accuracy = (logits.detach().argmax(-1) == positives).to(dtype).mean(-1)
    return ContrastiveTerms(loss.view(logits.shape[:-1]).mean(-1), accuracy)


def symmetric_info_nce(first: Tensor, second: Tensor, temperature: float) -> ContrastiveTerms:
    """Mean of both directions, `(..., batch, dim)` each. Keys are detached: gradients reach queries only."""
    queries = torch.stack([first, second])
    keys = gather_keys(queries).flip(0)
    terms = info_nce(queries, keys, temperature)
    return ContrastiveTerms(terms.loss.mean(0), terms.accuracy.mean(0))
