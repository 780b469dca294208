"""Gives the words of a punctuated transcript the times of the raw words that they were written from.

Dynamic time warping on the edit distance of words inside a band, as the official TVTS code does for every
sample anew (`v1/base/base_dataset_yt.py`, align_using_dtw). Here it is done once a transcript, when data is
prepared, and row by row instead of cell by cell.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from ...errors import DataError

__all__ = ["align_words", "edit_distances"]

OUTSIDE = 9999
"""Cost of a pair outside the band."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MOST_LETTERS = 1000  # of a word: the band is only as good as a path around it when no word costs that much


def align_words(raw: Sequence[str], written: Sequence[str], radius: int | None = None) -> list[str]:
    """For every raw word what stands for it in the written transcript.

    A written word goes to the first raw word that the best path pairs it with. Several at one raw word are
    joined by spaces; a raw word without any gets an empty text. Much too long a written transcript is cut.

    Args:
        raw: recognised words.
        written: words of the punctuated transcript.
        radius: half the width of the band in words; by default a tenth of the raw words, at least 32.

    Returns:
        one text a raw word.

    Raises:
        DataError: no words, or a word of more than 1000 letters.
    """
    if radius is None:
        radius = int(max(0.1 * len(raw), 32))
    if len(written) > len(raw):
        written = written[: len(raw) + radius]
    if not raw or not written:
        raise DataError(f"there is nothing to align: {len(raw)} raw words and {len(written)} written ones")
    longest = max((*raw, *written), key=len)
    if len(longest) > _MOST_LETTERS:
        raise DataError(f"a word has {len(longest)} letters: {longest[:40]!r}... The transcript is damaged")
    texts: list[list[str]] = [[] for _ in raw]
    last = -1
    for place, column in _best_path(raw, written, radius):
        if column > last:
            texts[place].append(written[column])
            last = column
    return [" ".join(parts) for parts in texts]


def _best_path(raw: Sequence[str], written: Sequence[str], radius: int) -> list[tuple[int, int]]:
    """The cheapest monotone path of pairs from both first to both last words.

    Only a strip of columns around the diagonal is computed: the band, and what leads from it to the last
        pair. A
    pair outside the band costs more than any way around it along the band's edge, so no best path leaves the
    strip.
    """
    rows, columns = len(raw), len(written)
    low, high = min(-radius, columns - rows), max(radius - 1, columns - rows)
    raw_words, raw_ids = np.unique([_comparable(word) for word in raw], return_inverse=True)
    written_words, written_ids = np.unique([_comparable(word) for word in written], return_inverse=True)
    distances = edit_distances(raw_words.tolist(), written_words.tolist())

    width, far = high - low + 1, np.int64(2**60)
    offsets = np.arange(low, high + 1)
    total = np.full(width + 2, far)  # of the row above, with a border on either side
    steps = np.zeros((rows, width), dtype=np.int8)
    for row in range(rows):
        column = row + offsets
        inside = (column >= 0) & (column < columns)
        cost = np.full(width, OUTSIDE, dtype=np.int64)
        banded = inside & (offsets >= -radius) & (offsets < radius)
        cost[banded] = distances[raw_ids[row], written_ids[column[banded]]]
        # In strip coordinates the pair up-left lies above, the one above lies above to the right.
        diagonal, above = total[1:-1], total[2:]
        if row:
            best = np.minimum(diagonal, above)
        else:
            best = np.where(column == 0, 0, far)
        # total = cost + min(best, total to the left): a running minimum once costs are summed along the row.
        first = int(inside.argmax())
        end = first + int(inside.sum())
        sums = np.cumsum(cost[first:end])
        before = np.concatenate([[0], sums[:-1]])
        own = sums + np.minimum.accumulate(best[first:end] - before)
        left = np.full(width, far)
        left[first + 1 : end] = own[:-1]
        if row:
            steps[row] = np.where(diagonal <= np.minimum(above, left), 0, np.where(above <= left, 1, 2))
        else:
            steps[row] = 2
        total[1:-1] = far
        total[1 + first : 1 + end] = own
    return _walk_back(steps, columns - 1, low)


def _walk_back(steps: np.ndarray, column: int, low: int) -> list[tuple[int, int]]:
    """The path in forward order. Steps: 0 up and left, 1 up, 2 left."""
    row = len(steps) - 1
    path = [(row, column)]
    while row or column:
        step = 1 if not column else int(steps[row, column - row - low])
        row -= step != 2
        column -= step != 1
        path.append((row, column))
    return path[::-1]


def _comparable(word: str) -> str:
    return word.translate(_PUNCTUATION).strip().lower()


def edit_distances(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """Levenshtein distance of every word with every word, `(first, second)` int32.

    One row of the table of all pairs at once: `second` lies side by side, padded, and each letter of a word
        of
    `first` is one step for all of them.
    """
    width = max((len(word) for word in second), default=0)
    letters = np.zeros((len(second), width), dtype=np.int32)
    for row, word in enumerate(second):
        letters[row, : len(word)] = [ord(letter) for letter in word]
    ends = np.array([len(word) for word in second], dtype=np.int64)
    places = np.arange(width + 1, dtype=np.int32)
    everyone = np.arange(len(second))
    result = np.empty((len(first), len(second)), dtype=np.int32)
    for row, word in enumerate(first):
        table = np.broadcast_to(places, (len(second), width + 1))
        for count, letter in enumerate(word, start=1):
            replaced = table[:, :-1] + (letters != ord(letter))
            best = np.empty(table.shape, dtype=np.int32)
            best[:, 0] = count
            np.minimum(replaced, table[:, 1:] + 1, out=best[:, 1:])
            # An insertion adds one a place: the running minimum of (value - place), plus place.
            best -= places
            np.minimum.accumulate(best, axis=1, out=best)
            best += places
            table = best
        result[row] = table[everyone, ends]
    return result
