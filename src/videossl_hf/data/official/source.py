"""The YAML file that says where an official data set lies, and its videos by the names in the annotation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...errors import DataError
from ..video_folder import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, VideoTable
from .annotation import Annotation
from .captions import didemo, msrvtt, msvd
from .human_actions import hmdb51, ucf101
from .kinetics import kinetics
from .motions import diving48, something_something
from .sounds import esc50

__all__ = ["OFFICIAL_SETS", "OfficialSet", "count_folds", "read_official"]

logger = logging.getLogger(__name__)

_KEYS = ("dataset", "videos", "annotations", "fold", "missing")


class OfficialSet(NamedTuple):
    """How one data set is read, which splits its annotation has, and how many folds."""

    read: Callable[[Path, str, int], Annotation]
    splits: tuple[str, ...]
    folds: int = 1


OFFICIAL_SETS = {
    "ucf101": OfficialSet(ucf101, ("train", "test"), folds=3),
    "hmdb51": OfficialSet(hmdb51, ("train", "test"), folds=3),
    "kinetics": OfficialSet(kinetics, ("train", "validation", "test")),
    "something-something-v2": OfficialSet(something_something, ("train", "validation")),
    "diving48": OfficialSet(diving48, ("train", "test")),
    "esc50": OfficialSet(esc50, ("train", "test"), folds=5),
    "msrvtt": OfficialSet(msrvtt, ("train", "test")),
    "msvd": OfficialSet(msvd, ("train", "validation", "test")),
    "didemo": OfficialSet(didemo, ("train", "validation", "test")),
}


def count_folds(path: Path) -> int:
    """How many official folds the data set that a YAML file names has.

    Raises:
        DataError: the file is wrong.
    """
    return OFFICIAL_SETS[_read_settings(path)["dataset"]].folds


def read_official(path: Path, split: str, fold: int | None = None) -> VideoTable:
    """One split of the data set that a YAML file names.

    Args:
        path: of the file.
        split: of the data set.
        fold: instead of the file's own.

    Raises:
        DataError: the file or the annotation is wrong, the split or fold does not exist, or videos are
            missing and are not to be skipped.
    """
    settings = _read_settings(path)
    name = settings["dataset"]
    known = OFFICIAL_SETS[name]
    if split not in known.splits:
        raise DataError(f"{path}: {name} has no split {split!r}: it has {', '.join(known.splits)}")
    fold = settings.get("fold", 1) if fold is None else fold
    if not isinstance(fold, int) or not 1 <= fold <= known.folds:
        raise DataError(f"{path}: {name} has the folds 1 to {known.folds}, got {fold!r}")
    annotations, videos = (path.parent / str(settings[key]) for key in ("annotations", "videos"))
    for folder in (annotations, videos):
        if not folder.is_dir():
            raise DataError(f"{path}: there is no folder {folder}")
    entries, classes = known.read(annotations, split, fold)
    files = _files_by_name(videos)
    found = [entry for entry in entries if entry.video in files]
    missing = len(entries) - len(found)
    if missing and settings.get("missing", "error") == "error":
        first = next(entry.video for entry in entries if entry.video not in files)
        raise DataError(
            f"{videos} lacks {missing} of the {len(entries)} videos of {name}, split {split}, such as"
            f" {first}; `missing: skip` in {path.name} goes on without them"
        )
    if not found:
        raise DataError(f"{videos} holds none of the {len(entries)} videos of {name}, split {split}")
    if missing:
        logger.warning(
            "%s, split %s: %d of %d videos are missing and left out", name, split, missing, len(entries)
        )
    columns: dict[str, list[Any]] = {"video": [str(files[entry.video].absolute()) for entry in found]}
    for key in found[0].columns:
        columns[key] = [entry.columns[key] for entry in found]
    if classes is not None:
        numbers = {label: number for number, label in enumerate(classes)}
        columns["label"] = [numbers[label] for label in columns["label"]]
    return VideoTable(columns, classes)


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, Mapping):
        raise DataError(f"{path} must hold the keys dataset, videos and annotations")
    unknown = sorted(map(str, settings.keys() - set(_KEYS)))
    absent = [key for key in _KEYS[:3] if key not in settings]
    if unknown or absent:
        problem = f"unknown key {unknown[0]}" if unknown else f"{absent[0]} is missing"
        raise DataError(f"{path}: {problem}; the keys are {', '.join(_KEYS)}")
    if settings["dataset"] not in OFFICIAL_SETS:
        raise DataError(f"{path}: unknown dataset {settings['dataset']!r}: one of {', '.join(OFFICIAL_SETS)}")
    if settings.get("missing", "error") not in ("error", "skip"):
        raise DataError(f"{path}: missing must be error or skip, got {settings['missing']!r}")
    return settings


def _files_by_name(folder: Path) -> dict[str, Path]:
    """Every video or recording below a folder, by its name with and without ending.

    Raises:
        DataError: two have the same name, so that the annotation does not say which is meant.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_EXTENSIONS | SOUND_EXTENSIONS and path.is_file():
            if path.stem in files:
                raise DataError(f"{path} and {files[path.stem]} have the same name: keep one of them")
            files[path.stem] = files[path.name] = path
    return files
