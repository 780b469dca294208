"""Few-shot: what a handful of labelled clips a class are enough for.

Of every class n training clips are drawn, several times; nearest neighbours (all n a class vote) and a linear
probe learn from these alone and name all test clips. With so few clips there is nothing to choose settings
on, so the probe's penalty is fixed. The interval covers both which clips were drawn and which test clips
there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError, InputError
from .bootstrap import crossed_interval
from .knn import knn_votes
from .linear import fit_linear_probe
from .protocols import Outcome, num_classes
from .results import Figure
from .scores import top_k_hits
from .table import FeatureTable, check_features, check_same_classes

__all__ = ["DEFAULT_SHOTS", "draw_shots", "few_shot_protocol"]

DEFAULT_SHOTS = (1, 5, 10)


def draw_shots(labels: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Rows of `shots` samples of every class that occurs, (classes * shots,) int64.

    Args:
        labels: (samples,) int64.
        shots: of a class.
        generator: of the draw.

    Raises:
        DataError: a class has fewer samples.
    """
    drawn = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        if len(rows) < shots:
            raise DataError(
                f"class {label} has {len(rows)} training clip(s), {shots} are to be drawn: ask for fewer"
            )
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:shots]])
    return torch.cat(drawn)


def few_shot_protocol(
    train: FeatureTable,
    test: FeatureTable,
    *,
    shots: Sequence[int] | None = None,
    draws: int = 10,
    l2: float = 1e-2,
    seed: int = 0,
) -> Outcome:
    """Top-1 by `knn@n` and `linear@n`, means over draws.

    Args:
        train, test: features with labels.
        shots: n of each; None: those of 1, 5 and 10 that the smallest class has.
        draws: of n clips a class.
        l2: penalty of the probe, see `linear`.
        seed: of the draws and the interval.

    Raises:
        DataError: the classes of the splits do not agree, or a class has fewer clips than asked for.
        InputError: NaN features, no shots, no draws.
    """
    check_same_classes(train, test)
    check_features(train.features, train.labels, name="train features")
    check_features(test.features, test.labels, name="test features")
    smallest = int(train.labels.unique(return_counts=True)[1].min())
    wanted = list(shots) if shots is not None else [n for n in DEFAULT_SHOTS if n <= smallest]
    if not wanted or min(wanted) < 1 or draws < 1:
        raise InputError(f"few-shot needs at least one shot and one draw, got {wanted} and {draws}")
    classes = num_classes(train)
    figures, values = {}, {}
    for count in wanted:
        hits: dict[str, list[Tensor]] = {"knn": [], "linear": []}
        generator = torch.Generator().manual_seed(seed)
        for _ in range(draws):
            few = train.select(draw_shots(train.labels, count, generator))
            votes = knn_votes(few.features, few.labels, test.features, min(count, len(few)), None, classes)
            hits["knn"].append(top_k_hits(votes, test.labels))
            probe = fit_linear_probe(few.features, few.labels, l2=l2, num_classes=classes)
            hits["linear"].append(top_k_hits(probe.logits(test.features), test.labels))
        for name, found in hits.items():
            table = 100 * torch.stack(found).double().cpu()
            interval = crossed_interval(table, seed=seed)
            figures[f"{name}@{count}"] = Figure(table.mean().item(), *interval, len(test))
            values[f"{name}@{count}"] = table.mean(dim=0)
    protocol = {"name": "few_shot", "shots": wanted, "draws": draws, "l2": l2}
    return Outcome(protocol, figures, values)
