"""ESC-50: environmental sounds in five folds. Its recordings have no pictures."""

from __future__ import annotations

from pathlib import Path, PurePath

from ...errors import DataError
from .annotation import AnnotatedVideo, Annotation, find, read_csv

__all__ = ["esc50"]


def esc50(annotations: Path, split: str, fold: int) -> Annotation:
    """`esc50.csv` with filename, fold, target, category: `fold` is the test split, the other four train."""
    rows = read_csv(find(annotations, "esc50.csv"), "filename", "fold", "target", "category")
    if not all(row["fold"].isdecimal() and row["target"].isdecimal() for row in rows):
        raise DataError("esc50.csv: fold and target must be whole numbers")
    numbers = {row["category"]: int(row["target"]) for row in rows}
    entries = [
        AnnotatedVideo(PurePath(row["filename"]).stem, {"label": row["category"]})
        for row in rows
        if (int(row["fold"]) == fold) == (split == "test")
    ]
    return Annotation(entries, sorted(numbers, key=lambda name: numbers[name]))
