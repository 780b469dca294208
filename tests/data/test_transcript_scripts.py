"""Windows of scripts: lengths, gaps, short videos, and the words that fall into them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.data.transcripts.scripts import (
    ScriptDraw,
    draw_scripts,
    latest_start,
    script_texts,
    script_windows,
)
from videossl_hf.data.transcripts.words import Word
from videossl_hf.errors import DataError, InputError


@pytest.mark.parametrize(("seconds", "total"), [(3, 15), (4, 19), (5, 23)])
def test_four_scripts_with_gaps_of_a_second(seconds: int, total: int) -> None:
    assert latest_start(100, seconds, 4) == 100 - total - 1
    windows = script_windows(100, ScriptDraw(seconds, 10, 0.25), 4)
    np.testing.assert_allclose(windows[:, 0], 10.25 + np.arange(4) * (seconds + 1))
    np.testing.assert_allclose(windows[:, 1] - windows[:, 0], seconds)
    assert windows[-1, 1] == 10.25 + total


def test_a_span_ends_a_second_before_the_video_and_the_scripts_share_what_is_left() -> None:
    latest = latest_start(60, 3, 4)
    windows = script_windows(60, ScriptDraw(3, latest, 0.5), 4)
    np.testing.assert_allclose(windows[-1, 1], 59)
    np.testing.assert_allclose(windows[:, 1] - windows[:, 0], (59 - latest - 0.5 - 3) / 4)


def test_a_short_video_is_used_from_its_beginning() -> None:
    assert latest_start(12, 3, 4) < 0
    windows = script_windows(12, ScriptDraw(3, start=7, fraction=0.9), 4)
    np.testing.assert_allclose(windows, [[0, 2], [3, 5], [6, 8], [9, 11]])


def test_a_video_without_room_for_any_script_is_a_bad_sample() -> None:
    with pytest.raises(DataError, match="lasts 4 s"):
        script_windows(4, ScriptDraw(3), 4)
    assert len(script_windows(4, ScriptDraw(3), 1)) == 1


@given(
    duration=st.integers(1, 200),
    scripts=st.integers(1, 6),
    gap=st.integers(0, 3),
    seconds=st.tuples(st.integers(1, 5), st.integers(0, 3)).map(lambda pair: (pair[0], sum(pair))),
    seed=st.integers(0, 2**40),
)
def test_windows_lie_in_the_video_in_order_and_apart(
    duration: int, scripts: int, gap: int, seconds: tuple[int, int], seed: int
) -> None:
    draws = [
        draw_scripts(duration, scripts, torch.Generator().manual_seed(seed), seconds, gap) for _ in range(2)
    ]
    assert draws[0] == draws[1]
    draw = draws[0]
    assert seconds[0] <= draw.seconds <= seconds[1]
    try:
        windows = script_windows(duration, draw, scripts, gap)
    except DataError:
        assert duration - 1 <= (scripts - 1) * gap
        return
    assert windows.shape == (scripts, 2)
    lengths = windows[:, 1] - windows[:, 0]
    np.testing.assert_allclose(lengths, lengths[0], atol=1e-9)
    assert 0 < lengths[0] <= draw.seconds + 1e-9
    np.testing.assert_allclose(windows[1:, 0] - windows[:-1, 1], gap, atol=1e-9)
    assert windows[0, 0] >= 0
    assert windows[-1, 1] <= duration - 1 + 1e-9


def test_every_start_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [draw_scripts(20, 4, generator, (3, 3)) for _ in range(300)]
    assert {draw.start for draw in draws} == set(range(5))
    draws = [draw_scripts(100, 4, generator) for _ in range(100)]
    assert {draw.seconds for draw in draws} == {3, 4, 5}
    with pytest.raises(InputError, match="seconds"):
        draw_scripts(100, 4, generator, (5, 3))


def test_a_script_holds_the_words_that_start_strictly_inside() -> None:
    words = [
        Word(text, start, start)
        for text, start in [("a", 1.0), ("b", 1.5), ("", 1.7), ("c", 2.0), ("d", 3.5), ("e", 4)]
    ]
    windows = np.array([[1.0, 2.0], [3.0, 4.0], [8.0, 9.0]])
    assert script_texts(words, windows) == ["b  ", "d ", ""]
    with pytest.raises(DataError, match=r"only 0 words are said from 8\.0"):
        script_texts(words, windows, min_words=1)
    with pytest.raises(DataError, match="2 are asked for"):
        script_texts(words, windows[:2], min_words=2)
