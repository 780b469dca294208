"""What every reader of an official annotation gives, and what they share."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError

__all__ = ["AnnotatedVideo", "Annotation", "find", "read_csv", "read_json", "read_lines"]


class AnnotatedVideo(NamedTuple):
    """One row: the name of the video's file, with or without ending, and its columns besides the video."""

    video: str
    columns: Mapping[str, Any]


class Annotation(NamedTuple):
    """A split: its rows, and the classes of the whole set in their official order (None: no classes)."""

    entries: list[AnnotatedVideo]
    classes: list[str] | None


def find(folder: Path, *names: str) -> Path:
    """The first of some files that exists.

    Raises:
        DataError: none does; says which were looked for.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds none of the annotation files {', '.join(names)}")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not empty.

    Raises:
        DataError: the file cannot be read as text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a table with a heading.

    Raises:
        DataError: it cannot be read, or lacks one of `columns`.
    """
    rows = list(csv.DictReader(line for _, line in read_lines(path)))
    missing = [name for name in columns if not rows or rows[0].get(name) is None]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(rows[0]) if rows else 'none'}"
        )
    return rows


def read_json(path: Path, kind: type = list) -> Any:
    """A JSON file whose outermost value is of a kind.

    Raises:
        DataError: it is not.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{path} must hold a JSON {'list' if kind is list else 'object'}")
    return value
