"""The texts of a dataset's videos: captions, or what is said, in as many parts as the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.reader import VideoReader
from ..data.transcripts.readers import parse_transcript
from ..data.transcripts.words import split_sentences
from ..errors import DataError

__all__ = ["TEXT_COLUMNS", "equal_parts", "read_texts"]

TEXT_COLUMNS = ("caption", "transcript")


def read_texts(dataset: Any, column: str | None = None, parts: int = 1) -> tuple[str, list[Any]]:
    """The text of every video.

    Args:
        dataset: map-style samples.
        column: "caption" (a string) or "transcript"; None: the first of these that there is.
        parts: a transcript is cut into so many texts, equal in time, as the frames of a clip are spread over
            the whole video. 1 gives one text.

    Returns:
        The column, and of each video one string, or for several parts a list of them.

    Raises:
        DataError: there is no such column, or a video without text.
    """
    there = list(dataset.features)
    wanted = (column,) if column else TEXT_COLUMNS
    column = next((name for name in wanted if name in there), None)
    if column is None:
        raise DataError(f"the dataset has no column {' or '.join(wanted)}; it has {', '.join(there)}")
    if column == "transcript":
        return column, [equal_parts(sample, parts) for sample in dataset]
    texts = dataset[column][:]
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"row {row} has no text: its column {column!r} holds {text!r:.60}")
    return column, texts


def equal_parts(sample: Mapping[str, Any], parts: int) -> str | list[str]:
    """What is said in each of `parts` equal parts of a video's time; a word belongs to where it starts.

    Raises:
        DataError: no transcript.
        DecodeError: the video cannot be opened.
    """
    if sample.get("transcript") is None:
        raise DataError(f"a video has no transcript: {sample['video'].get('path')}")
    words = split_sentences(parse_transcript(sample["transcript"]))
    if parts == 1:
        return " ".join(word.text for word in words)
    with VideoReader(sample["video"]) as video:
        edges = video.info.duration * np.arange(1, parts) / parts
    places = np.searchsorted(edges, [word.start for word in words], side="right")
    return [
        " ".join(word.text for word, place in zip(words, places, strict=True) if place == part)
        for part in range(parts)
    ]
