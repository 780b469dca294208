"""Transcripts as people have them: JSON of YouTube, Whisper and YT-Temporal, and plain lists.

All come out as `Word`s: words with times where the file has them, sentences otherwise (`split_sentences`
    deals
their time out). Subtitle files are read by `subtitles.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from .alignment import align_words
from .cleaning import clean_words, repair_text
from .subtitles import parse_srt, parse_vtt
from .words import Word, check_words, words_of_cells

__all__ = ["parse_transcript", "read_transcript", "subtitle_words", "written_words"]


def read_transcript(path: str | Path) -> list[Word]:
    """The words of a transcript file.

    Takes WebVTT, SubRip (`.srt`), YouTube's `json3`, JSON of Whisper, whisper.cpp and transformers' speech
    pipeline, YT-Temporal annotations, and lists of `{"text", "start", "end"}`. The content decides, not the
    name.

    Raises:
        DataError: unreadable, of no known form, or without times or words.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the transcript {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}") from error
    start = text.lstrip()
    if start.startswith("WEBVTT"):
        return check_words(parse_vtt(text, str(path)), str(path))
    if start[:1] in ("{", "["):
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is no valid JSON: {error}") from error
        return parse_transcript(content, str(path))
    if "-->" in text:
        return check_words(parse_srt(text, str(path)), str(path))
    raise DataError(
        f"{path} is no transcript that we know: neither WebVTT, SubRip nor JSON, or without times"
    )


def parse_transcript(content: Any, where: str = "the transcript") -> list[Word]:
    """The words of a transcript that is already parsed from JSON, or of a dataset's cell; see
    `read_transcript`.

    Raises:
        DataError: of no known form, or without times or words.
    """
    if isinstance(content, (list, tuple)):
        return words_of_cells(content, where)
    if isinstance(content, Mapping):
        for key, parse in _FORMS.items():
            if isinstance(content.get(key), (list, tuple)):
                try:
                    return check_words(parse(content), where)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    if isinstance(error, DataError):
                        raise
                    raise DataError(
                        f"{where} is damaged: its entries under {key!r} lack text or times ({error!r})"
                    ) from error
        raise DataError(f"{where} is no transcript that we know: it has none of the keys {', '.join(_FORMS)}")
    raise DataError(f"{where}: expected a list or a mapping, got {content!r:.60}")


def subtitle_words(document: Mapping[str, Any]) -> list[Word]:
    """The raw words of a YT-Temporal annotation."""
    return [
        Word(entry["word"], float(entry["time"]), float(entry["time"])) for entry in document["subtitles"]
    ]


def written_words(document: Mapping[str, Any]) -> list[str]:
    """The words of its punctuated transcript."""
    return [
        word for entry in document.get("denoised") or () for word in repair_text(entry["cleanasr"]).split(" ")
    ]


def _yt_temporal(document: Mapping[str, Any]) -> list[Word]:
    """Words with the times of recognition and the text of the punctuated transcript, where there is one."""
    words, written = clean_words(subtitle_words(document)), written_words(document)
    if not words or not written:
        return words
    aligned = align_words([word.text for word in words], written)
    return [word._replace(text=text) for word, text in zip(words, aligned, strict=True)]


def _youtube(document: Mapping[str, Any]) -> Iterator[Word]:
    """json3: events of segments, times in milliseconds. Events that only break a line are passed by."""
    for event in document["events"]:
        segments = [segment for segment in event.get("segs") or () if segment.get("utf8", "").strip()]
        if not segments:
            continue
        begin = event["tStartMs"]
        end = begin + event.get("dDurationMs", 0)
        starts = [begin + segment.get("tOffsetMs", 0) for segment in segments]
        for segment, start, stop in zip(segments, starts, [*starts[1:], max(end, starts[-1])], strict=True):
            yield Word(_one_line(segment["utf8"]), start / 1000, stop / 1000)


def _whisper(document: Mapping[str, Any]) -> Iterator[Word]:
    """Segments in seconds, with words where word timestamps were asked for."""
    for segment in document["segments"]:
        for part in segment.get("words") or (segment,):
            text = part["word"] if "word" in part else part["text"]
            # The aligners of some tools leave out times of numerals: the segment's are the best guess.
            start, end = (part.get(name, segment[name]) for name in ("start", "end"))
            if text.strip():
                yield Word(_one_line(text), float(start), float(end))


def _whisper_cpp(document: Mapping[str, Any]) -> Iterator[Word]:
    for segment in document["transcription"]:
        if segment["text"].strip():
            offsets = segment["offsets"]
            yield Word(_one_line(segment["text"]), offsets["from"] / 1000, offsets["to"] / 1000)


def _speech_pipeline(document: Mapping[str, Any]) -> Iterator[Word]:
    """transformers' automatic-speech-recognition with return_timestamps; the last end may be missing."""
    for chunk in document["chunks"]:
        start, end = chunk["timestamp"]
        if chunk["text"].strip():
            yield Word(_one_line(chunk["text"]), float(start), float(start if end is None else end))


def _one_line(text: str) -> str:
    return " ".join(text.split())


_FORMS = {
    "subtitles": _yt_temporal,
    "events": _youtube,
    "segments": _whisper,
    "transcription": _whisper_cpp,
    "chunks": _speech_pipeline,
}
