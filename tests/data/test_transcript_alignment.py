"""Alignment row by row against the plain definition, cell by cell."""

from __future__ import annotations

import string
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videossl_hf.data.transcripts.alignment import OUTSIDE, align_words, edit_distances
from videossl_hf.errors import DataError

WORDS = st.lists(st.text("abcAB.,' ", max_size=4), min_size=1, max_size=14)


def edit_distance(first: str, second: str) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, one in enumerate(first, 1):
        for j, two in enumerate(second, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one != two))
    return int(table[-1, -1])


def plain(word: str) -> str:
    return "".join(letter for letter in word if letter not in string.punctuation).strip().lower()


def align_plainly(raw: list[str], written: list[str], radius: int) -> list[str]:
    """The definition: the whole matrix of costs, accumulated, and a walk back from its last cell."""
    if len(written) > len(raw):
        written = written[: len(raw) + radius]
    rows, columns = len(raw), len(written)
    cost = np.full((rows, columns), OUTSIDE)
    for a in range(rows):
        for o in range(max(a - radius, 0), min(a + radius, columns)):
            cost[a, o] = edit_distance(plain(raw[a]), plain(written[o]))
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for a in range(rows):
        for o in range(columns):
            total[a + 1, o + 1] = cost[a, o] + min(total[a, o], total[a, o + 1], total[a + 1, o])
    a, o, path = rows, columns, [(rows, columns)]
    while (a, o) != (1, 1):
        steps = [(a - 1, o - 1), (a - 1, o), (a, o - 1)]
        a, o = min(steps, key=lambda cell: total[cell])  # the first of equals: the diagonal, then up
        path.append((a, o))
    texts: list[list[str]] = [[] for _ in raw]
    seen = set()
    for a, o in reversed(path):
        if o not in seen:
            seen.add(o)
            texts[a - 1].append(written[o - 1])
    return [" ".join(parts) for parts in texts]


@settings(max_examples=80)
@given(raw=WORDS, written=WORDS, radius=st.integers(1, 5))
def test_the_band_gives_what_the_whole_matrix_gives(raw: list[str], written: list[str], radius: int) -> None:
    assert align_words(raw, written, radius) == align_plainly(raw, written, radius)


def test_the_default_radius_is_a_tenth_and_at_least_32() -> None:
    many = [f"w{number}" for number in range(400)]
    shifted = ["x"] * 35 + many
    assert align_words(many, shifted) == align_words(many, shifted, 40)
    assert align_words(many, shifted) != align_words(many, shifted, 30)
    few, longer = many[:60], ["x"] * 32 + many[:60]
    assert align_words(few, longer) == align_words(few, longer, 32)
    assert align_words(few, longer) != align_words(few, longer, 20)


@settings(max_examples=60)
@given(first=st.lists(st.text("abcd", max_size=6)), second=st.lists(st.text("abcd", max_size=6)))
def test_edit_distances_are_levenshteins(first: list[str], second: list[str]) -> None:
    found = edit_distances(first, second)
    assert found.shape == (len(first), len(second))
    assert found.tolist() == [[edit_distance(one, two) for two in second] for one in first]


def test_punctuation_and_case_do_not_count() -> None:
    assert align_words(["so", "well", "stir"], ["So,", "(STIR)!"]) == ["So,", "", "(STIR)!"]


def test_every_written_word_is_placed_once_and_in_order() -> None:
    raw = ["gonna", "add", "some", "rice"]
    aligned = align_words(raw, ["Going", "to", "add", "rice."])
    assert " ".join(text for text in aligned if text) == "Going to add rice."
    assert len(aligned) == len(raw)


def test_equal_costs_prefer_the_diagonal() -> None:
    assert align_words(["a", "a", "a"], ["a", "a", "a"]) == ["a", "a", "a"]
    assert align_words(["a", "a"], ["a"]) == ["a", ""]


def test_a_written_transcript_that_is_much_longer_is_cut() -> None:
    aligned = align_words(["a", "b"], ["a", "b", *(["c"] * 100)], radius=3)
    assert " ".join(aligned).split() == ["a", "b", "c", "c", "c"]


@pytest.mark.parametrize(("raw", "written"), [([], ["a"]), (["a"], [])])
def test_nothing_to_align_is_an_error(raw: list[str], written: list[str]) -> None:
    with pytest.raises(DataError, match="nothing to align"):
        align_words(raw, written)


def test_a_word_of_a_thousand_letters_is_damage() -> None:
    with pytest.raises(DataError, match="damaged"):
        align_words(["a" * 1001], ["a"])


def test_twenty_minutes_take_a_second() -> None:
    random = np.random.default_rng(0)
    vocabulary = ["".join(random.choice(list("abcdefgh"), random.integers(2, 9))) for _ in range(800)]
    raw = [vocabulary[int(place)] for place in np.minimum(random.exponential(150, 3000), 799)]
    written = [word.capitalize() for word in raw if random.random() > 0.05]
    started = time.process_time()
    aligned = align_words(raw, written)
    assert time.process_time() - started < 5
    assert sum(one.lower() == two for one, two in zip(aligned, raw, strict=True)) > 0.9 * len(written)
