"""Retrieval: for a query, how far up the ranking of the gallery does a right answer stand?

Within one modality an item is right when it has the query's class (R@k: the share of queries with at least
one such item among the k nearest). Across modalities exactly one item is right, the query's own pair (R@k,
median rank).

One rule for equal similarities everywhere: the right item stands in the middle of the wrong ones that score
exactly the same, so its rank (counted from 0) is

    number of strictly better items + half the number of equally good wrong items

and a query is a hit at k when that rank is below k. A model that gives every item one score is thus at
chance, neither perfect nor useless. Median and mean rank are counted from 1, as papers print them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .scores import average_precisions
from .table import check_features

__all__ = [
    "class_average_precisions",
    "class_ranks",
    "class_ranks_from_similarity",
    "pair_ranks",
    "pair_ranks_from_similarity",
    "recall_at",
    "retrieval_figures",
]


def class_ranks(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    same_items: bool = False,
    chunk_size: int = 1024,
) -> Tensor:
    """Rank, from 0, of the best gallery item of the query's class; infinite where there is none.

    Args:
        queries: (queries, width), compared by cosine.
        query_labels: (queries,) int64.
        gallery: (items, width).
        gallery_labels: (items,) int64.
        same_items: queries and gallery are the same list; an item then never finds itself.
        chunk_size: queries compared at a time.

    Returns:
        (queries,) float64.

    Raises:
        InputError: NaN features, other widths, or same_items with lists of different lengths.
    """
    chunks = _compared(queries, query_labels, gallery, gallery_labels, same_items, chunk_size)
    return torch.cat([class_ranks_from_similarity(similarity, right) for similarity, right in chunks])


def class_ranks_from_similarity(similarity: Tensor, right: Tensor) -> Tensor:
    """The same from similarities and which items are right, both (queries, items); the order of queries."""
    if similarity.shape != right.shape or similarity.ndim != 2:
        raise InputError(
            f"need (queries, items) similarities and right items, got {tuple(similarity.shape)}, "
            f"{tuple(right.shape)}"
        )
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    better = ((similarity > best) & ~right).sum(dim=1)
    equal = ((similarity == best) & ~right).sum(dim=1)
    rank = better + 0.5 * equal.double()
    return rank.masked_fill(~right.any(dim=1), torch.inf).cpu()


def class_average_precisions(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    same_items: bool = False,
    chunk_size: int = 1024,
) -> Tensor:
    """Average precision of each query's ranking of the gallery, (queries,) float64; NaN without a right item.

    Arguments and errors are those of `class_ranks`.
    """
    chunks = _compared(queries, query_labels, gallery, gallery_labels, same_items, chunk_size)
    return torch.cat([average_precisions(similarity, right).cpu() for similarity, right in chunks])


def _compared(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    same_items: bool,
    chunk_size: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarities and which items are right, some queries at a time; an item itself is wrong and last."""
    check_features(queries, query_labels, name="query features")
    check_features(gallery, gallery_labels, name="gallery features")
    _check_widths(queries, gallery)
    if same_items and len(queries) != len(gallery):
        raise InputError(f"same_items needs equal lists, got {len(queries)} queries and {len(gallery)} items")
    gallery = F.normalize(gallery, dim=1)
    queries = F.normalize(queries.to(gallery), dim=1)
    query_labels, gallery_labels = query_labels.to(gallery.device), gallery_labels.to(gallery.device)
    for first in range(0, len(queries), chunk_size):
        chunk = slice(first, first + chunk_size)
        similarity = queries[chunk] @ gallery.T
        right = query_labels[chunk, None] == gallery_labels[None]
        if same_items:
            rows = torch.arange(len(similarity), device=gallery.device)
            similarity[rows, first + rows] = -torch.inf
            right[rows, first + rows] = False
        yield similarity, right


def pair_ranks(queries: Tensor, gallery: Tensor) -> Tensor:
    """Rank, from 0, of each query's own pair (the gallery item of the same row), (queries,) float64.

    Args:
        queries: (pairs, width), compared by cosine; in the space that both modalities share.
        gallery: (pairs, width).
    """
    check_features(queries, name="query features")
    check_features(gallery, name="gallery features")
    _check_widths(queries, gallery)
    return pair_ranks_from_similarity(F.normalize(queries, dim=1) @ F.normalize(gallery.to(queries), dim=1).T)


def pair_ranks_from_similarity(similarity: Tensor) -> Tensor:
    """The same from a matrix (pairs, pairs) whose diagonal holds the right pairs, queries along the rows."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise InputError(f"one gallery item a query is needed, got a matrix of {tuple(similarity.shape)}")
    check_features(similarity, name="similarities")
    own = similarity.diagonal()[:, None]
    ties = (similarity == own).sum(dim=1) - 1
    return ((similarity > own).sum(dim=1) + 0.5 * ties.double()).cpu()


def recall_at(ranks: Tensor, k: int) -> float:
    """Share of queries whose rank (from 0) is below k, 0 to 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    return (ranks < k).double().mean().item()


def retrieval_figures(ranks: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k in percent, and median and mean rank counted from 1: {"R@1": ..., "MedR": ..., "MeanR": ...}."""
    figures = {f"R@{k}": 100 * recall_at(ranks, k) for k in ks}
    return figures | {"MedR": ranks.quantile(0.5).item() + 1, "MeanR": ranks.mean().item() + 1}


def _check_widths(queries: Tensor, gallery: Tensor) -> None:
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"queries are {queries.shape[1]} wide and the gallery {gallery.shape[1]}: not the same space"
        )
