"""Repairs what files do to text, and drops what is no speech.

The rules of the official TVTS code (`v1/base/base_dataset_yt.py`, clean_subtitles), with a repair of our own
in place of the package ftfy.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

from .words import Word

__all__ = ["clean_words", "repair_text"]

_QUOTES = {
    0x2BC: "'",
    **dict.fromkeys(range(0x2018, 0x201C), "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
}
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_CONTROLS = re.compile("\x1b\\[[\\d;]*[A-Za-z]|[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufff9-\ufffc]")
# What bytes are in Windows-1252; its five free places stand for themselves, as browsers have it.
_BYTES = {chr(code): code for code in range(256)}
_BYTES |= {
    bytes([code]).decode("cp1252"): code
    for code in range(128, 160)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def repair_text(text: str) -> str:
    """Text without the damage of wrong encodings and of HTML.

    UTF-8 that was read as Windows-1252 (`donâ€™t`) is read again; entities become characters, curly quotes
    straight, ligatures letters; control characters go; composed characters (NFC).
    """
    if "<" not in text:
        text = html.unescape(text)
    while not text.isascii() and (again := _read_again(text)) != text:
        text = again
    text = _CONTROLS.sub("", text.translate(_LIGATURES).translate(_QUOTES))
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def _read_again(text: str) -> str:
    """What was meant, if the text is UTF-8 that was read as Windows-1252."""
    try:
        return bytes(_BYTES[letter] for letter in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return text


def clean_words(words: Iterable[Word]) -> list[Word]:
    """Repaired words, without marks of speakers (`&gt;&gt;`), other entities, and what is empty."""
    kept = (word for word in words if not word.text.startswith("&") and not word.text.endswith(";"))
    repaired = (word._replace(text=repair_text(word.text)) for word in kept)
    return [word for word in repaired if word.text]
