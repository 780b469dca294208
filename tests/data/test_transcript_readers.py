"""Transcripts in every form that people have them in, and what is said about those that are broken."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.data.transcripts.cleaning import clean_words, repair_text
from videossl_hf.data.transcripts.readers import parse_transcript, read_transcript
from videossl_hf.data.transcripts.words import Word, check_words, split_sentences
from videossl_hf.errors import DataError

ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
~
so<00:00:00.480><c> today</c><00:00:00.960><c> we</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
so today we
~

00:00:02.399 --> 00:00:04.710 align:start position:0%
so today we
cook<00:00:02.800><c> &amp;</c><00:00:03.120><c> stir</c>

00:00:04.710 --> 00:00:04.720 align:start position:0%
cook &amp; stir
~

00:00:04.720 --> 00:00:06.000 align:start position:0%
cook &amp; stir
done
""".replace("~", " ")


def write(folder: Path, text: str, name: str = "x.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def texts(words: list[Word]) -> list[str]:
    return [word.text for word in words]


def test_automatic_vtt_captions_give_each_word_once_with_its_time(tmp_path: Path) -> None:
    words = read_transcript(write(tmp_path, ROLLING))
    assert texts(words) == ["so", "today", "we", "cook", "&", "stir", "done"]
    assert [word.start for word in words] == [0.16, 0.48, 0.96, 2.399, 2.8, 3.12, 4.72]
    assert words[0].end == 0.48
    assert words[2].end == 2.389


def test_plain_vtt_gives_sentences_without_notes_styles_and_tags(tmp_path: Path) -> None:
    text = (
        "WEBVTT\n\nNOTE 00:00 --> no cue\n\nSTYLE\n::cue { color: red }\n\n1\n00:01.000 --> 00:02.500\n"
        "<v Ann>Hello <i>there</i></v>\nfriend\n\n01:00:03.5 --> 01:00:04.000 line:0\nbye &lt;3\n"
    )
    assert read_transcript(write(tmp_path, text)) == [
        Word("Hello there friend", 1.0, 2.5),
        Word("bye <3", 3603.5, 3604.0),
    ]


def test_srt_with_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    first, second = "00:00:01,000 --> 00:00:02,000", "00:00:02,000 --> 00:00:03,250"
    text = f"\ufeff1\r\n{first}\r\n{{\\an8}}Yes.\r\n\r\n2\r\n{second}\r\nYes.\r\n"
    words = read_transcript(write(tmp_path, text))
    assert words == [Word("Yes.", 1.0, 2.0), Word("Yes.", 2.0, 3.25)], "what is said twice stays twice"


def test_srt_without_blank_lines_between_its_cues(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\none\n2\n00:00:02,000 --> 00:00:03,000\n7 two\n"
    assert texts(read_transcript(write(tmp_path, text))) == ["one", "7 two"]


def test_srt_of_rolling_captions_gives_each_line_once(tmp_path: Path) -> None:
    cues = [("a b",), ("a b", "c d"), ("c d", "e"), ("e", "f g")]
    text = "\n\n".join(
        f"{number}\n00:00:0{number},000 --> 00:00:0{number},900\n" + "\n".join(lines)
        for number, lines in enumerate(cues)
    )
    assert texts(read_transcript(write(tmp_path, text))) == ["a b", "c d", "e", "f g"]


def test_youtube_json3() -> None:
    spoken = [{"utf8": "so", "acAsrConf": 0}, {"utf8": " today", "tOffsetMs": 320}]
    events = [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1},
        {"tStartMs": 160, "dDurationMs": 3000, "segs": spoken},
        {"tStartMs": 2390, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 4000, "dDurationMs": 1500, "segs": [{"utf8": "a whole\nsentence"}]},
    ]
    assert parse_transcript({"wireMagic": "pb3", "events": events}) == [
        Word("so", 0.16, 0.48),
        Word("today", 0.48, 3.16),
        Word("a whole sentence", 4.0, 5.5),
    ]


def test_whisper_with_and_without_words() -> None:
    segment = {"start": 0.0, "end": 2.0, "text": " Hello 7 you"}
    assert parse_transcript({"text": "", "segments": [segment]}) == [Word("Hello 7 you", 0, 2)]
    timed = [{"word": " Hello", "start": 0.1, "end": 0.5}, {"word": " 7"}]
    timed.append({"word": "you", "start": 1, "end": 2.0})
    words = parse_transcript({"segments": [segment | {"words": timed}]})
    assert words == [Word("7", 0, 2), Word("Hello", 0.1, 0.5), Word("you", 1, 2)]


def test_whisper_cpp_and_the_speech_pipeline() -> None:
    cpp = {"transcription": [{"offsets": {"from": 500, "to": 1500}, "text": " And so"}]}
    assert parse_transcript(cpp) == [Word("And so", 0.5, 1.5)]
    pipeline = {
        "text": "",
        "chunks": [{"timestamp": [0.0, 1.0], "text": "one"}, {"timestamp": (1.0, None), "text": "two"}],
    }
    assert parse_transcript(pipeline) == [Word("one", 0, 1), Word("two", 1, 1)]


def test_yt_temporal_gives_the_punctuated_words_the_times_of_the_raw_ones() -> None:
    document = {
        "subtitles": [
            {"word": w, "time": t}
            for w, t in [("&gt;&gt;", 0.1), ("so", 0.5), ("donâ€™t", 1.0), ("um", 1.5), ("stir", 2)]
        ],
        "denoised": [{"cleanasr": "So, don't"}, {"cleanasr": "Stir!"}],
    }
    assert parse_transcript(document) == [
        Word("So,", 0.5, 0.5), Word("don't", 1.0, 1.0), Word("", 1.5, 1.5), Word("Stir!", 2, 2)
    ]  # fmt: skip
    raw = parse_transcript({"subtitles": document["subtitles"]})
    assert texts(raw) == ["so", "don't", "um", "stir"]


@pytest.mark.parametrize(
    "cells",
    [
        [{"text": "b", "start": 2, "end": 3}, {"text": "a", "start": 1, "end": 0.5}],
        [["b", 2, 3], ["a", 1, 0.5]],
        [("b", 2.0, 3.0), ("a", 1.0)],
        [{"word": "b", "time": 2.0, "end": 3.0}, {"word": "a", "time": 1.0}],
    ],
)
def test_lists_are_sorted_and_ends_lie_behind_starts(cells: list[Any]) -> None:
    assert parse_transcript(cells) == [Word("a", 1, 1), Word("b", 2, 3)]


def test_overlapping_words_are_kept() -> None:
    cells = [["one", 0, 5], ["two", 1, 2], ["three", 1, 9]]
    assert texts(parse_transcript(cells)) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "no words"),
        ([{"text": "a"}], "entry 0 has no time"),
        ([{"start": 1.0}], "no text"),
        ([["a", 1.0], ["b", None]], "entry 1 has no time"),
        ([["a", -1.0]], "seconds from 0 on"),
        ([["a", float("nan")]], "seconds from 0 on"),
        ([["a", "soon"]], "numbers"),
        ([["a", 1, 2, 3]], "expected text"),
        (["only text"], "expected text"),
        ({"text": "only text"}, "none of the keys"),
        ({"segments": [{"text": "no times"}]}, "damaged"),
        ({"events": [{"segs": [{"utf8": "no time"}]}]}, "damaged"),
        ({"chunks": [{"text": "x", "timestamp": None}]}, "damaged"),
        ({"segments": []}, "no words"),
        ("plain text", "expected a list"),
        (None, "expected a list"),
    ],
)
def test_says_what_is_wrong_with_a_transcript(content: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_transcript(content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just some words", "no transcript that we know"),
        ("{broken", "no valid JSON"),
        ("WEBVTT\n\nno cues here", "no cues"),
        ("WEBVTT\n\n00:xx --> 00:02.000\nhello", "cannot read the times"),
        ("1\n00:00:01 --> 00:00:02\nhello", "cannot read the times"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n\n", "no words"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_transcript(write(tmp_path, text))


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_transcript(tmp_path / "absent.vtt")
    (tmp_path / "x.srt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_transcript(tmp_path / "x.srt")


@given(
    st.lists(
        st.tuples(st.text("abé'& ", min_size=1, max_size=5), st.floats(0, 1e5), st.floats(0, 1e5)),
        min_size=1,
    )
)
def test_any_list_comes_out_sorted_with_all_its_texts(rows: list[tuple[str, float, float]]) -> None:
    words = parse_transcript(json.loads(json.dumps(rows)))
    assert sorted(texts(words)) == sorted(row[0] for row in rows)
    assert all(one.start <= two.start for one, two in pairwise(words))
    assert all(word.end >= word.start for word in words)


def test_sentences_are_split_by_the_length_of_their_words() -> None:
    words = split_sentences([Word("a bbb", 1.0, 4.0), Word("", 5.0, 5.0), Word("c d", 6.0, 6.0)])
    assert words == [
        Word("a", 1.0, 2.0),
        Word("bbb", 2.0, 4.0),
        Word("", 5.0, 5.0),
        Word("c", 6, 6),
        Word("d", 6, 6),
    ]


@given(st.text(" ab", max_size=12), st.floats(0, 100), st.floats(0, 50))
def test_split_words_fill_their_sentence(text: str, start: float, seconds: float) -> None:
    words = split_sentences([Word(text, start, start + seconds)])
    assert words[0].start == start
    assert words[-1].end == pytest.approx(start + seconds)
    assert texts(words) == (text.split() or [text])
    assert check_words(words, "here") == words


@pytest.mark.parametrize(
    ("damaged", "repaired"),
    [
        ("donâ€™t", "don't"),
        ("donÃ¢â‚¬â„¢t", "don't"),  # noqa: RUF001
        ("“so”", '"so"'),
        ("cafÃ©", "café"),
        ("café", "café"),
        ("cafe\u0301", "café"),
        ("AT&amp;T", "AT&T"),
        ("<i>&amp;</i>", "<i>&amp;</i>"),
        ("ﬁne\x00\x1b[31m", "fine"),
        ("日本", "日本"),
        ("", ""),
    ],
)
def test_damaged_text_is_repaired_and_sound_text_is_not(damaged: str, repaired: str) -> None:
    assert repair_text(damaged) == repaired


@given(st.text())
def test_repairing_twice_changes_nothing_more_of_plain_text(text: str) -> None:
    ascii_text = text.encode("ascii", "ignore").decode().replace("&", "and")
    once = repair_text(ascii_text)
    assert repair_text(once) == once


def test_cleaning_drops_entities_and_what_is_empty() -> None:
    words = [
        Word(text, place, place)
        for place, text in enumerate(["&gt;&gt;", "so", "x&nbsp;", "\x00", "end;", "AT&amp;T"])
    ]
    assert texts(clean_words(words)) == ["so", "AT&T"]
