"""Kinetics-400, -600 and -700: one table a split."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError
from .annotation import AnnotatedVideo, Annotation, find, read_csv

__all__ = ["kinetics"]

_FILES = {
    "train": ("train.csv",),
    "validation": ("val.csv", "validate.csv", "validation.csv"),
    "test": ("test.csv",),
}


def kinetics(annotations: Path, split: str, fold: int) -> Annotation:
    """`train.csv`, `val.csv` (or `validate.csv`), `test.csv` with label, youtube_id, time_start, time_end; a
    video is called ID_START_END with six digits each. Classes are numbered by their sorted names, over all
    tables that are there.
    """
    rows = read_csv(find(annotations, *_FILES[split]), "label", "youtube_id", "time_start", "time_end")
    classes = {row["label"] for row in rows}
    for names in _FILES.values():
        for path in (annotations / name for name in names):
            if path.is_file():
                classes |= {row["label"] for row in read_csv(path, "label")}
    return Annotation([AnnotatedVideo(_name(row), {"label": row["label"]}) for row in rows], sorted(classes))


def _name(row: dict[str, str]) -> str:
    try:
        start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
    except ValueError as error:
        raise DataError(f"Kinetics: the times of {row['youtube_id']} are no numbers: {error}") from error
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"
