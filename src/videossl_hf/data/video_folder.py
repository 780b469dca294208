"""Videos in a local folder as a table: class folders, a metadata file, or just files.

    DIR/SPLIT/CLASS/*.mp4            the folder's name is the label
    DIR/SPLIT/metadata.jsonl (.csv)  rows with file_name and any columns, such as label, caption, transcript
    DIR/SPLIT/*.mp4                  no labels

Without split folders, DIR itself is read as the split "train". A split without any video may hold sound files
instead (their path then stands in the same column, as in ESC-50). Classes are numbered by their sorted names
over all splits, so that a number means the same class everywhere.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = [
    "SOUND_EXTENSIONS",
    "SPLIT_NAMES",
    "VIDEO_EXTENSIONS",
    "VideoTable",
    "class_names",
    "read_metadata",
    "read_video_folder",
]

VIDEO_EXTENSIONS = frozenset(
    f".{name}"
    for line in (
        "3g2 3gp asf avi divx dv f4v flv gif h264 hevc ivf m1v m2p m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts",
        "mxf nut ogm ogv qt rm rmvb ts vob webm wmv y4m",
    )
    for name in line.split()
)
"""Suffixes that count as video when a folder is listed; a metadata file may name any file."""

SOUND_EXTENSIONS = frozenset({".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
"""Suffixes that count as sound, where there is no video."""

SPLIT_NAMES = ("train", "validation", "valid", "val", "dev", "test")
"""Folder names that are splits and not classes."""

_METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


class VideoTable:
    """Columns of equal length plus the names of the classes, or None for videos without labels."""

    def __init__(self, columns: dict[str, list[Any]], label_names: list[str] | None) -> None:
        self.columns = columns
        self.label_names = label_names


def read_video_folder(root: Path, split: str) -> VideoTable:
    """List one split of a folder.

    Returns:
        a table with at least `video` (absolute paths as str) and, where there are labels, `label` (int).

    Raises:
        DataError: no such split, no videos, files that a metadata file names and that do not exist, or labels
            in some rows only.
    """
    splits = {folder.name: folder for folder in _folders(root) if folder.name in {*SPLIT_NAMES, split}}
    if not splits:
        if split != "train":
            raise DataError(
                f"{root} has no split {split!r}: it has no split folders at all, so its only split is 'train'"
            )
        splits = {"train": root}
    if split not in splits:
        raise DataError(f"{root} has no split {split!r}: it has {', '.join(sorted(splits))}")
    rows = {name: _rows(folder) for name, folder in splits.items() if name == split or _is_labelled(folder)}
    names = class_names(row["label"] for split_rows in rows.values() for row in split_rows if "label" in row)
    chosen = rows[split]
    if not chosen:
        raise DataError(
            f"{splits[split]} holds no video: put files such as CLASS/clip.mp4 or a metadata.jsonl there"
        )
    keys = dict.fromkeys(key for row in chosen for key in row)
    columns = {key: [row.get(key) for row in chosen] for key in keys}
    if "label" in columns:
        missing = [row["video"] for row in chosen if row.get("label") is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(chosen)} videos in {splits[split]} lack a label: {missing[0]}"
            )
        numbers = {name: number for number, name in enumerate(names or ())}
        columns["label"] = [numbers[str(label)] for label in columns["label"]]
    return VideoTable(columns, names if "label" in columns else None)


def class_names(labels: Iterable[Any]) -> list[str] | None:
    """Names of the classes behind labels: sorted names, or "0" to the largest number where all are integers.

    Returns:
        None if there is no label at all.
    """
    distinct = {label for label in labels if label is not None}
    if not distinct:
        return None
    if all(isinstance(label, int) for label in distinct):
        if min(distinct) < 0:
            raise DataError(f"a label is negative ({min(distinct)}): number the classes from 0, or use names")
        return [str(number) for number in range(max(distinct) + 1)]
    return sorted({str(label) for label in distinct})


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """Rows of a metadata.jsonl or metadata.csv; a csv's whole-number labels and JSON transcripts are parsed.

    Raises:
        DataError: a line that is not a JSON object, or a row without file_name.
    """
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_json(line, f"{path}, line {number}"))
        else:
            rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
            if all(str(row.get("label") or "x").isdecimal() for row in rows):
                rows = [row | {"label": int(row["label"])} for row in rows]
            for number, row in enumerate(rows, start=2):
                if row.get("transcript"):
                    row["transcript"] = _json(row["transcript"], f"{path}, line {number}", list)
    for number, row in enumerate(rows, start=1):
        if not row.get("file_name"):
            raise DataError(f"{path}: row {number} has no file_name; it has {', '.join(map(str, row))}")
    return rows


def _json(text: str, where: str, kind: type = dict) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{where} is not a JSON {'object' if kind is dict else 'list'}: {text[:60]}")
    return value


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _metadata_file(folder: Path) -> Path | None:
    found = [folder / name for name in _METADATA_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has both metadata.jsonl and metadata.csv: keep one")
    return found[0] if found else None


def _is_labelled(folder: Path) -> bool:
    return _metadata_file(folder) is not None or bool(_folders(folder))


def _rows(folder: Path) -> list[dict[str, Any]]:
    metadata = _metadata_file(folder)
    if metadata is not None:
        return _metadata_rows(folder, read_metadata(metadata), metadata)
    return _listed(folder, VIDEO_EXTENSIONS) or _listed(folder, SOUND_EXTENSIONS)


def _listed(folder: Path, extensions: frozenset[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for class_folder in _folders(folder):
        videos = [path for path in class_folder.rglob("*") if path.suffix.lower() in extensions]
        rows += [
            {"video": str(path.absolute()), "label": class_folder.name}
            for path in sorted(videos)
            if path.is_file()
        ]
    loose = sorted(path for path in folder.iterdir() if path.suffix.lower() in extensions)
    if rows and loose:
        raise DataError(f"{folder} holds class folders, but also loose videos such as {loose[0].name}")
    return rows or [{"video": str(path.absolute())} for path in loose if path.is_file()]


def _metadata_rows(folder: Path, metadata: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    rows = []
    missing: list[str] = []
    for entry in metadata:
        row: dict[str, Any] = {"video": _absolute(folder, entry["file_name"], missing)}
        row |= {key: value for key, value in entry.items() if key not in ("file_name", "video")}
        audio = row.get("audio")
        if isinstance(audio, Mapping):
            audio = audio.get("path")
        if audio:
            row["audio"] = _absolute(folder, audio, missing)
        rows.append(row)
    if missing:
        raise DataError(f"{path} names {len(missing)} of {len(rows)} files that do not exist: {missing[0]}")
    return rows


def _absolute(folder: Path, name: str, missing: list[str]) -> str:
    path = folder / name
    if not path.is_file():
        missing.append(name)
    return str(path.absolute())
