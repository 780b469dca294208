"""Transcripts that lie beside videos: which one is whose, and what `videossl prepare` makes of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media import write_media
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.prepare import prepare_videos
from videossl_hf.data.prepare_command import add_arguments, run
from videossl_hf.data.transcripts import readers
from videossl_hf.data.transcripts.side_files import TranscriptSource
from videossl_hf.errors import ConfigurationError, DataError, InputError

VTT = "WEBVTT\n\n00:01.000 --> 00:03.000\n{}\n"
YT_TEMPORAL = {
    "subtitles": [{"word": word, "time": time} for word, time in (("hello", 0.5), ("their", 1.0))],
    "denoised": [{"cleanasr": "Hello, there."}],
    "info": {"duration": 3},
}
FORMS = {
    "a.vtt": VTT.format("one two"),
    "b.en.srt": "1\n00:00:01,000 --> 00:00:02,000\none two\n",
    "c.json3": json.dumps({"events": [{"tStartMs": 1000, "dDurationMs": 500, "segs": [{"utf8": "one"}]}]}),
    "d.json": json.dumps({"segments": [{"text": "one two", "start": 0.5, "end": 1.5}]}),
    "e.json": json.dumps(YT_TEMPORAL),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    frames = np.full((6, 16, 16, 3), 90, np.uint8)
    return write_media(tmp_path_factory.mktemp("video") / "x.mp4", frames=frames, fps=2).read_bytes()


def sample(path: Path) -> dict[str, Any]:
    return {"video": {"path": str(path), "bytes": None}}


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_every_form_beside_its_video_becomes_words_with_times(tmp_path: Path, video: bytes) -> None:
    fill(tmp_path / "clips", FORMS | {f"{name}.mp4": video for name in "abcde"})
    command(tmp_path / "clips", "--transcripts", "--output", tmp_path / "out", "--processes", 1, "--quiet")
    said = {
        Path(row["video"]["path"]).stem[-1]: [(word["text"], word["start"]) for word in row["transcript"]]
        for row in load_videos(str(tmp_path / "out"), "train")
    }
    assert said == {
        "a": [("one", 1.0), ("two", 2.0)],
        "b": [("one", 1.0), ("two", 1.5)],
        "c": [("one", 1.0)],
        "d": [("one", 0.5), ("two", 1.0)],
        "e": [("Hello,", 0.5), ("there.", 1.0)],
    }


def test_videos_whose_transcript_cannot_be_used_are_left_out_with_the_reason(
    tmp_path: Path, video: bytes
) -> None:
    broken = {
        "none.mp4": video,
        "timeless.mp4": video,
        "timeless.json": json.dumps([{"text": "one"}]),
        "empty.mp4": video,
        "empty.json": "[]",
        "good.mp4": video,
        "good.vtt": VTT.format("fine"),
    }
    report = prepare_videos(
        str(fill(tmp_path / "clips", broken)),
        tmp_path / "out",
        transcripts=TranscriptSource(),
        processes=1,
        show_progress=False,
    )["splits"]["train"]
    reasons = {Path(entry["video"]).stem: entry["reason"] for entry in report["dropped"]}
    assert report["written"] == 1
    assert report["errors"] == {"DataError": 3}
    assert "no transcript of none.mp4 beside it" in reasons["none"]
    assert "has no time" in reasons["timeless"]
    assert "holds no words" in reasons["empty"]


def test_alignment_is_done_when_data_is_prepared_and_never_again(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    align = readers.align_words
    monkeypatch.setattr(readers, "align_words", lambda *words: calls.append(1) or align(*words))
    fill(tmp_path, {"data/x.mp4": video, "annotations/x.json": json.dumps(YT_TEMPORAL)})
    source = TranscriptSource(tmp_path / "annotations")
    options: dict[str, Any] = {"transcripts": source, "processes": 1, "show_progress": False}
    for _ in range(2):  # the second run finds the shard and reads nothing
        prepare_videos(str(tmp_path / "data"), tmp_path / "out", **options)
    (row,) = load_videos(str(tmp_path / "out"), "train")
    readers.parse_transcript(row["transcript"])
    assert len(calls) == 1


def test_other_transcripts_do_not_mix_with_what_is_there(tmp_path: Path, video: bytes) -> None:
    fill(tmp_path, {"clips/a.mp4": video, "clips/a.vtt": FORMS["a.vtt"], "more/a.vtt": FORMS["a.vtt"]})
    arguments = (tmp_path / "clips", "--output", tmp_path / "out", "--processes", 1, "--quiet")
    command(*arguments, "--transcripts")
    with pytest.raises(OSError, match="transcripts is beside the videos there"):
        command(*arguments, "--transcripts", tmp_path / "more")


def test_a_column_of_the_source_is_read_and_a_folder_takes_its_place(tmp_path: Path, video: bytes) -> None:
    row = {"file_name": "a.mp4", "transcript": [{"text": "two words", "start": 1, "end": 3}]}
    fill(tmp_path, {"clips/a.mp4": video, "clips/metadata.jsonl": json.dumps(row)})
    (loaded,) = load_videos(str(tmp_path / "clips"), "train")
    assert [word["text"] for word in TranscriptSource().cells(loaded)] == ["two", "words"]
    fill(tmp_path / "other", {"a.vtt": VTT.format("other")})
    assert [word["text"] for word in TranscriptSource(tmp_path / "other").cells(loaded)] == ["other"]


def test_a_file_is_found_by_the_name_of_its_video(tmp_path: Path) -> None:
    names = ("a.vtt", "a.b.vtt", "run/x.vtt", "jump/x.vtt", "c.de.vtt", "c.en-US.vtt", "d.srt", "d.en.json3")
    fill(tmp_path, dict.fromkeys(names, VTT.format("x")))
    source = TranscriptSource(tmp_path, language="en")
    for video, expected in {
        "a.mp4": "a.vtt",
        "a.b.mp4": "a.b.vtt",
        "jump/x.mp4": "jump/x.vtt",
        "c.mp4": "c.en-US.vtt",
        "d.mp4": "d.en.json3",  # words with times come before sentences
    }.items():
        assert source.find(sample(tmp_path / video)) == tmp_path / expected
    with pytest.raises(DataError, match=r"no transcript of e.mp4"):
        source.find(sample(tmp_path / "e.mp4"))
    with pytest.raises(DataError, match=r"2 transcripts .*choose a language"):
        TranscriptSource(tmp_path).find(sample(tmp_path / "c.mp4"))
    with pytest.raises(DataError, match="no file name"):
        source.find({"video": {"path": None, "bytes": b""}})


def test_folders_without_transcripts_and_a_language_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of transcripts"):
        TranscriptSource(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no transcripts"):
        TranscriptSource(tmp_path)
    with pytest.raises(ConfigurationError, match="give --transcripts too"):
        command("clips", "--language", "en", "--output", tmp_path / "out")
