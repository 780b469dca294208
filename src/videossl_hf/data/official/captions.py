"""MSR-VTT, MSVD and DiDeMo: videos with sentences, for retrieval between text and video.

Every sentence is a row with the column `caption`, so that a video with several stands in several rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from .annotation import AnnotatedVideo, Annotation, find, read_csv, read_json, read_lines

__all__ = ["didemo", "msrvtt", "msvd"]


def msrvtt(annotations: Path, split: str, fold: int) -> Annotation:
    """The "1k-A" split: `MSRVTT_train.9k.csv` (video_id) with the sentences of `MSRVTT_data.json`, and
    `MSRVTT_JSFUSION_test.csv` (video_id, sentence), a thousand pairs.
    """
    if split == "test":
        rows = read_csv(find(annotations, "MSRVTT_JSFUSION_test.csv"), "video_id", "sentence")
        return _captioned((row["video_id"], row["sentence"]) for row in rows)
    train = {row["video_id"] for row in read_csv(find(annotations, "MSRVTT_train.9k.csv"), "video_id")}
    sentences = read_json(find(annotations, "MSRVTT_data.json"), dict).get("sentences")
    if not isinstance(sentences, list):
        raise DataError("MSRVTT_data.json has no list of sentences")
    pairs = [(_text(row, "video_id"), _text(row, "caption")) for row in sentences]
    return _captioned(pair for pair in pairs if pair[0] in train)


def msvd(annotations: Path, split: str, fold: int) -> Annotation:
    """`{train,val,test}_list.txt` (a video a line) and `AllVideoDescriptions.txt` ("VIDEO a sentence")."""
    name = "val" if split == "validation" else split
    videos = {line for _, line in read_lines(find(annotations, f"{name}_list.txt"))}
    pairs = []
    for number, line in read_lines(find(annotations, "AllVideoDescriptions.txt")):
        if line.startswith("#"):
            continue
        video, _, sentence = line.partition(" ")
        if not sentence:
            raise DataError(f"AllVideoDescriptions.txt, line {number}: not a video and a sentence: {line!r}")
        if video in videos:
            pairs.append((video, sentence.strip()))
    return _captioned(pairs)


def didemo(annotations: Path, split: str, fold: int) -> Annotation:
    """`{train,val,test}_data.json` ([{"video", "description"}]): the sentences of a video together are its
    one caption, as paragraph retrieval has it.
    """
    name = "val" if split == "validation" else split
    paragraphs: dict[str, list[str]] = {}
    for row in read_json(find(annotations, f"{name}_data.json")):
        video = _text(row, "video").removesuffix(".mp4")
        paragraphs.setdefault(video, []).append(_text(row, "description").strip())
    return _captioned((video, " ".join(sentences)) for video, sentences in paragraphs.items())


def _captioned(pairs: Any) -> Annotation:
    return Annotation([AnnotatedVideo(video, {"caption": caption}) for video, caption in pairs], None)


def _text(row: Any, name: str) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"an entry has no {name}: {row!r}"[:200])
    return value
