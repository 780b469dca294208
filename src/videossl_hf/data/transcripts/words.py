"""A transcript as words with times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DataError

__all__ = ["Word", "check_words", "split_sentences", "words_of_cells"]


class Word(NamedTuple):
    """A word, or a sentence that is not split yet, with start and end in seconds.

    The text may be empty: a sound that the punctuated form of a transcript leaves out.
    """

    text: str
    start: float
    end: float


def check_words(words: Iterable[Word], where: str) -> list[Word]:
    """The words in the order of their starts; ends that lie before their start are moved there.

    Words that overlap or come unsorted are no error: speakers interrupt each other.

    Raises:
        DataError: no words, or a time that is negative, infinite or not a number.
    """
    found = []
    for word in words:
        if not (math.isfinite(word.start) and math.isfinite(word.end)) or word.start < 0:
            raise DataError(
                f"{where}: {word.text!r:.60} has the times {word.start} and {word.end}; they must be seconds"
                " from 0 on"
            )
        found.append(word._replace(end=max(word.start, word.end)))
    if not found:
        raise DataError(f"{where} holds no words")
    return sorted(found, key=lambda word: word.start)


def split_sentences(words: Iterable[Word]) -> list[Word]:
    """Sentences as words; the time of a sentence is dealt out by the length of its words."""
    found = []
    for sentence in words:
        parts = sentence.text.split() or [sentence.text]
        letters = sum(len(part) + 1 for part in parts)
        seconds, spoken = sentence.end - sentence.start, 0
        for part in parts:
            begin = sentence.start + seconds * spoken / letters
            spoken += len(part) + 1
            found.append(Word(part, begin, sentence.start + seconds * spoken / letters))
    return found


def words_of_cells(cells: Sequence[Any], where: str) -> list[Word]:
    """The words of a plain list, as datasets hold it in the column `transcript`.

    Args:
        cells: `{"text", "start", "end"}` or `{"word", "time"}` mappings, or `(text, start, end)` or
            `(text, start)` rows; times in seconds. A missing end is the start.
        where: named in messages.

    Raises:
        DataError: a cell of another form, or without its time.
    """
    return check_words((_word(cell, f"{where}, entry {index}") for index, cell in enumerate(cells)), where)


def _word(cell: Any, where: str) -> Word:
    if isinstance(cell, Mapping):
        text = cell.get("text", cell.get("word"))
        start = cell.get("start", cell.get("time"))
        end = cell.get("end")
    elif isinstance(cell, (list, tuple)) and len(cell) in (2, 3):
        text, start, end = (*cell, None)[:3]
    else:
        raise DataError(f"{where}: expected text with start and end, got {cell!r:.80}")
    if not isinstance(text, str):
        raise DataError(f"{where} has no text: {cell!r:.80}")
    if start is None:
        raise DataError(f"{where} has no time: {cell!r:.80}. Scripts need to know when each word is said")
    try:
        return Word(text, float(start), float(start if end is None else end))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: times must be numbers of seconds, got {start!r:.40} and {end!r:.40}"
        ) from error
