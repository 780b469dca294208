"""Finds the transcript of each video, and gives it as the column `transcript` holds it.

Side files are named after their video, as download tools and speech recognisers name them: `clip.mp4` has
`clip.vtt`, `clip.en.json3`, `clip.srt` or `clip.json`, beside it or anywhere in a folder of transcripts
(YT-Temporal: `data/ID.mp4` and `annotations/ID.json`). Reading a YT-Temporal annotation aligns its punctuated
words, which takes seconds: so it is done here, once a video, and not when clips are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from ...errors import DataError, InputError
from .readers import parse_transcript, read_transcript
from .words import Word, split_sentences

__all__ = ["TRANSCRIPT_EXTENSIONS", "TranscriptSource", "transcript_cells"]

TRANSCRIPT_EXTENSIONS = (".json3", ".json", ".vtt", ".srt")
"""Of the files that are looked for; of several for one video the first in this order is taken: the forms
with times of words come before those with times of sentences."""

_LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


class TranscriptSource:
    """Where the transcripts of a dataset's videos lie.

    Args:
        folder: searched with all its subfolders; None: the column `transcript` of the dataset, or without
            it the folder in which each video lies.
        language: of several files such as `clip.en.vtt` and `clip.de.vtt` take this one's ("en").

    Raises:
        InputError: there is no such folder, or no transcript in it.
    """

    def __init__(self, folder: str | Path | None = None, language: str | None = None) -> None:
        self.language = language
        self.folder = None if folder is None else Path(folder).expanduser()
        self._files: dict[str, list[Path]] = {}
        if self.folder is not None:
            if not self.folder.is_dir():
                raise InputError(f"there is no folder of transcripts {self.folder}")
            self._files = _by_video(self.folder.rglob("*"))
            if not self._files:
                names = ", ".join(f"*{extension}" for extension in TRANSCRIPT_EXTENSIONS)
                raise InputError(f"the folder {self.folder} holds no transcripts: no {names}")

    def cells(self, sample: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The words of a sample's transcript as `{"text", "start", "end"}`, in the order of their starts.

        Args:
            sample: with the column `video`, and perhaps `transcript`.

        Raises:
            DataError: no transcript, several that could be meant, or one that cannot be read.
        """
        if self.folder is None and sample.get("transcript") is not None:
            return transcript_cells(parse_transcript(sample["transcript"]))
        return transcript_cells(read_transcript(self.find(sample)))

    def find(self, sample: Mapping[str, Any]) -> Path:
        """The transcript file of a sample.

        Raises:
            DataError: there is none, or several in other languages or folders.
        """
        path = sample["video"].get("path")
        if path is None:
            raise DataError("the video has no file name by which to find its transcript")
        video = PurePath(path)
        files = _beside(video.parent) if self.folder is None else self._files
        found = files.get(video.stem, [])
        if self.language is not None:
            found = [file for file in found if self._is_meant(_name_and_language(file)[1])]
        # Classes may number their files alike: those in a folder of the video's own name come first.
        found = [file for file in found if file.parent.name == video.parent.name] or found
        if not found:
            where = "beside it" if self.folder is None else f"in {self.folder}"
            language = f" in the language {self.language!r}" if self.language else ""
            raise DataError(f"there is no transcript of {video.name} {where}{language}")
        best = min(TRANSCRIPT_EXTENSIONS.index(file.suffix.lower()) for file in found)
        found = [file for file in found if file.suffix.lower() == TRANSCRIPT_EXTENSIONS[best]]
        if len(found) > 1:
            names = ", ".join(str(file) for file in found[:3])
            raise DataError(f"{video.name} has {len(found)} transcripts ({names}): choose a language, or one")
        return found[0]

    def _is_meant(self, language: str | None) -> bool:
        """Files that do not name a language may be in any; "en" includes "en-US"."""
        return language is None or f"{language}-".startswith(f"{self.language}-")


def transcript_cells(words: Iterable[Word]) -> list[dict[str, Any]]:
    """Words, sentences taken apart, as a dataset holds them."""
    return [word._asdict() for word in split_sentences(words)]


def _name_and_language(file: Path) -> tuple[str, str | None]:
    """The name of the video that a side file is named after, and its language where it says so."""
    name = PurePath(file.stem)
    if _LANGUAGE.fullmatch(name.suffix):
        return name.stem, name.suffix[1:]
    return file.stem, None


def _by_video(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Transcripts by the names of the videos that they may belong to: `a.b.vtt` to `a.b`, or in a language
    `b` to `a`."""
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        if file.suffix.lower() in TRANSCRIPT_EXTENSIONS and file.is_file():
            for name in {file.stem, _name_and_language(file)[0]}:
                found.setdefault(name, []).append(file)
    return found


@cache
def _beside(folder: PurePath) -> dict[str, list[Path]]:
    return _by_video(Path(folder).iterdir()) if Path(folder).is_dir() else {}
