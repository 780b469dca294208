"""WebVTT and SubRip, also those that YouTube makes of speech: rolling lines and times inside of cues.

Automatic captions scroll: each cue repeats the line of the one before it and adds one. A line that was there
already is read once only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ...errors import DataError
from .words import Word

__all__ = ["parse_srt", "parse_vtt"]

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_INLINE_TIME = re.compile(rf"<{_TIME}>")
_TAG = re.compile(r"</?[^<>]*>|\{\\[^}]*\}")
_ROLLING_SHARE = 0.5


class _Cue(NamedTuple):
    start: float
    end: float
    lines: list[str]


def parse_vtt(text: str, where: str) -> list[Word]:
    """Words of a WebVTT file: with their own times where cues hold those, else one sentence a cue.

    Raises:
        DataError: a cue without readable times, or none at all.
    """
    cues = _cues(text, where)
    if any(_INLINE_TIME.search(line) for cue in cues for line in cue.lines):
        return list(_timed_words(cues))
    return _sentences(cues)


def parse_srt(text: str, where: str) -> list[Word]:
    """One sentence a cue of a SubRip file; times may be written with commas or points.

    Raises:
        DataError: a cue without readable times, or none at all.
    """
    return _sentences(_cues(text, where))


def _cues(text: str, where: str) -> list[_Cue]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    timings = [number for number, line in enumerate(lines) if "-->" in line and not line.startswith("NOTE")]
    if not timings:
        raise DataError(f"{where} holds no cues with times")
    cues = []
    for number, following in zip(timings, [*timings[1:], len(lines) + 1], strict=True):
        times = _TIMING.match(lines[number])
        if times is None:
            raise DataError(f"{where}: cannot read the times of the cue {lines[number].strip()!r:.80}")
        payload = lines[number + 1 : following]
        if "" in payload:  # a blank line ends a cue; one with a space in it does not
            payload = payload[: payload.index("")]
        elif following < len(lines) and payload and payload[-1].strip().isdigit():
            payload = payload[:-1]  # the number of the next cue
        numbers = times.groups()
        cues.append(_Cue(_seconds(*numbers[:4]), _seconds(*numbers[4:]), payload))
    return cues


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    thousandths = 1000 * (3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)) + int(
        fraction.ljust(3, "0")
    )
    return thousandths / 1000


def _plain(line: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", line)).replace("\xa0", " ").split())


def _new_lines(cue: _Cue, before: list[str]) -> list[str]:
    """Lines of a cue that did not stand in the one before it; `before` holds that one's plain lines."""
    lines = [line for line in cue.lines if _plain(line)]
    plain = [_plain(line) for line in lines]
    repeated = max(
        (count for count in range(1, min(len(plain), len(before)) + 1) if plain[:count] == before[-count:]),
        default=0,
    )
    return lines[repeated:]


def _timed_words(cues: list[_Cue]) -> Iterator[Word]:
    """Words of automatic captions: a time stands before each word, the first has its cue's."""
    before: list[str] = []
    for cue in cues:
        for line in _new_lines(cue, before):
            # The captured groups of the times come between the pieces of text: hours, minutes, seconds,
            # thousandths.
            pieces = _INLINE_TIME.split(line)
            texts = [_plain(piece) for piece in pieces[::5]]
            starts = [cue.start, *(_seconds(*pieces[at : at + 4]) for at in range(1, len(pieces), 5))]
            ends = [*starts[1:], max(cue.end, starts[-1])]
            for text, start, end in zip(texts, starts, ends, strict=True):
                if text:
                    yield Word(text, start, end)
        before = [plain for plain in map(_plain, cue.lines) if plain] or before


def _sentences(cues: list[_Cue]) -> list[Word]:
    plain = [[line for line in map(_plain, cue.lines) if line] for cue in cues]
    candidates = [(one, two) for one, two in pairwise(plain) if one and len(two) > 1]
    rolled = sum(one[-1] == two[0] for one, two in candidates)
    is_rolling = bool(candidates) and rolled >= _ROLLING_SHARE * len(candidates)
    words, before = [], list[str]()
    for cue, lines in zip(cues, plain, strict=True):
        new = [_plain(line) for line in _new_lines(cue, before)] if is_rolling else lines
        if new:
            words.append(Word(" ".join(new), cue.start, cue.end))
        before = lines or before
    return words
