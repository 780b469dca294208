"""Something-Something v2 and Diving48: lists of JSON objects, and a list of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from .annotation import AnnotatedVideo, Annotation, find, read_json

__all__ = ["diving48", "something_something"]


def something_something(annotations: Path, split: str, fold: int) -> Annotation:
    """`something-something-v2-{train,validation}.json` ([{"id", "label", "template"}]) and
    `something-something-v2-labels.json` ({"class": "number"}), also under the names `train.json`,
    `validation.json` and `labels.json` of later releases. The sentence that names the objects is the column
    `caption`.
    """
    numbers = read_json(find(annotations, "something-something-v2-labels.json", "labels.json"), dict)
    classes = sorted(numbers, key=lambda name: int(numbers[name]))
    entries = []
    for row in read_json(find(annotations, f"something-something-v2-{split}.json", f"{split}.json")):
        label = _field(row, "template", split).replace("[", "").replace("]", "")
        if label not in numbers:
            raise DataError(f"Something-Something: video {row.get('id')} has the unknown class {label!r}")
        entries.append(
            AnnotatedVideo(_field(row, "id", split), {"label": label, "caption": row.get("label")})
        )
    return Annotation(entries, classes)


def diving48(annotations: Path, split: str, fold: int) -> Annotation:
    """`Diving48_V2_{train,test}.json` ([{"vid_name", "label": number}]) and `Diving48_vocab.json`, the list
    of classes.
    """
    vocabulary = read_json(find(annotations, "Diving48_vocab.json"))
    classes = [name if isinstance(name, str) else "-".join(map(str, name)) for name in vocabulary]
    entries = []
    for row in read_json(find(annotations, f"Diving48_V2_{split}.json", f"Diving48_{split}.json")):
        number = row.get("label") if isinstance(row, Mapping) else None
        if not isinstance(number, int) or not 0 <= number < len(classes):
            raise DataError(f"Diving48: {row!r} has no label from 0 to {len(classes) - 1}")
        entries.append(AnnotatedVideo(_field(row, "vid_name", split), {"label": classes[number]}))
    return Annotation(entries, classes)


def _field(row: Any, name: str, split: str) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, str | int):
        raise DataError(f"an entry of the split {split} has no {name}: {row!r}"[:200])
    return str(value)
