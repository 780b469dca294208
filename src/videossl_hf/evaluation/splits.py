"""The features of one split with what a result says of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .clips import PreparedClips
from .features import extract_features, feature_model
from .fingerprint import model_identity
from .protocols import Outcome
from .results import Result
from .table import FeatureTable

__all__ = ["ExtractedSplit", "extract_split", "make_result"]


@dataclass(frozen=True)
class ExtractedSplit:
    """Features of a split.

    Attributes:
        name: of the split.
        clips: what they were made from.
        table: the features.
        seconds: wall time of the extraction.
    """

    name: str
    clips: PreparedClips
    table: FeatureTable
    seconds: float

    def described(self) -> dict[str, Any]:
        """Name, fingerprint and size, as results.json has them."""
        return {"split": self.name, "fingerprint": self.clips.fingerprint, "samples": len(self.table)}


def extract_split(name: str, model: nn.Module, clips: PreparedClips, **settings: Any) -> ExtractedSplit:
    """Extract with a stopwatch; settings are those of `extract_features`."""
    started = time.perf_counter()
    table = extract_features(model, clips.processor, clips, **settings)
    return ExtractedSplit(name, clips, table, time.perf_counter() - started)


def make_result(
    outcome: Outcome,
    model: nn.Module,
    data_id: str,
    test: ExtractedSplit,
    others: Mapping[str, ExtractedSplit],
    *,
    seed: int,
    seconds: float,
    data_revision: str | None = None,
    **model_notes: Any,
) -> Result:
    """The entry of results.json for what a protocol found.

    Args:
        outcome: of the protocol.
        model: that gave the features.
        data_id: folder or Hub id of the data.
        test: the split that was scored.
        others: the splits that were fitted or chosen on, by their role ("train", "validation", "gallery").
        seed: of everything that was drawn.
        seconds: that the protocol took, extraction not included.
        data_revision: commit or tag of the data on the Hub.
        model_notes: more to say of the model, or its "id".
    """
    return Result(
        model={**model_identity(feature_model(model)), **model_notes},
        data={"id": data_id, "revision": data_revision}
        | test.described()
        | {role: split.described() for role, split in others.items()},
        protocol=outcome.protocol | {"modality": test.clips.modality},
        views=str(test.clips.views),
        seed=seed,
        figures=outcome.figures,
        wall_time=seconds + test.seconds + sum(split.seconds for split in others.values()),
    )
