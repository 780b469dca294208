from __future__ import annotations

import argparse
import io
import json
import wave
from pathlib import Path

import av
import datasets as hf
import numpy as np
import pytest

from videossl_hf.data import prepare
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.prepare import PrepareSettings, prepare_videos, reencode
from videossl_hf.data.prepare_command import add_arguments, run
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.writer import VideoWriter, encode_video, write_video
from videossl_hf.errors import ConfigurationError, DataError, DecodeError, NoVideoError, OutputError

QUIET = {"processes": 1, "show_progress": False}


def make_frames(count: int = 20, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames whose grey level tells their number."""
    levels = (20 + 200 * np.arange(count) / count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def make_tone(seconds: float, rate: int = 24000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def make_wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 24000, 0, "NONE", ""))
        file.writeframes(make_tone(0.5).tobytes())
    return buffer.getvalue()


def level_of(frames: np.ndarray) -> np.ndarray:
    return frames.astype(float).mean(axis=(1, 2, 3))


@pytest.fixture
def source(tmp_path) -> Path:
    """Two classes of three videos, of which one is cut off and one is text; one is silent."""
    folder = tmp_path / "source"
    for label in ("jump", "run"):
        (folder / "train" / label).mkdir(parents=True)
        for number in range(3):
            sound = None if (label, number) == ("run", 2) else make_tone(2.0)
            write_video(folder / "train" / label / f"{label}{number}.mp4", make_frames(), 10, sound=sound)
    damaged = folder / "train" / "jump" / "jump1.mp4"
    damaged.write_bytes(damaged.read_bytes()[:700])
    (folder / "train" / "run" / "run0.mp4").write_text("this is no video")
    return folder


# One video


def test_frames_keep_number_and_time_and_shrink_to_the_short_side():
    frames = make_frames()
    content, has_sound = reencode(encode_video(frames, 10), PrepareSettings(short_side=48))
    with VideoReader(content) as video:
        assert not has_sound
        assert (video.info.height, video.info.width) == (48, 64)
        assert video.frame_times == pytest.approx(np.arange(20) / 10, abs=1e-4)
        assert level_of(video.frames(range(20))) == pytest.approx(level_of(frames), abs=3)


def test_keyframes_are_close_together():
    content, _ = reencode(
        encode_video(make_frames(), 10, keyframe_distance=250), PrepareSettings(keyframe_distance=4)
    )
    with VideoReader(content) as video:
        assert len(video) == 20
    with av.open(io.BytesIO(content)) as container:
        keys = [number for number, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert np.diff([*keys, 20]).max() <= 4


def test_small_and_odd_videos_are_not_enlarged_and_become_even():
    with VideoReader(reencode(encode_video(make_frames(4, 34, 46), 10), PrepareSettings())[0]) as video:
        assert (video.info.height, video.info.width) == (34, 46)
    with VideoReader(
        reencode(encode_video(make_frames(4, 98, 130), 10), PrepareSettings(short_side=33))[0]
    ) as video:
        assert (video.info.height, video.info.width) == (32, 44)


def test_a_lower_rate_shows_at_each_moment_the_frame_that_was_shown_then(tmp_path):
    frames, times = make_frames(6), np.array([0.0, 0.1, 0.2, 0.6, 0.8, 1.0])
    with VideoWriter(tmp_path / "uneven.mp4", height=96, width=128, fps=10) as writer:
        writer.add_frames(frames, times)
    content, _ = reencode(tmp_path / "uneven.mp4", PrepareSettings(fps=2.5))
    with VideoReader(content) as video:
        assert video.frame_times == pytest.approx(np.arange(len(video)) * 0.4, abs=1e-4)
        assert level_of(video.frames([0, 1, 2])) == pytest.approx(level_of(frames[[0, 2, 4]]), abs=3)


def test_a_higher_rate_invents_no_frames():
    with VideoReader(reencode(encode_video(make_frames(), 10), PrepareSettings(fps=30))[0]) as video:
        assert len(video) == 20


def test_long_videos_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 3 * 96 * 128 * 3)
    frames = make_frames()
    with VideoReader(reencode(encode_video(frames, 10), PrepareSettings())[0]) as video:
        assert level_of(video.frames(range(20))) == pytest.approx(level_of(frames), abs=3)


def test_the_sound_stays_aligned():
    sound = np.zeros(48000, np.int16)
    sound[18000:20000] = make_tone(2000 / 24000)
    content, has_sound = reencode(encode_video(make_frames(), 10, sound=sound), PrepareSettings())
    with VideoReader(content) as video:
        assert has_sound
        heard = video.audio(0.0, 2.0, 24000)
    assert np.argmax(np.abs(heard.astype(int)) > 2000) / 24000 == pytest.approx(0.75, abs=0.01)


def test_sound_of_its_own_column_takes_the_place_of_the_tracks():
    silent = encode_video(make_frames(), 10)
    content, has_sound = reencode(
        silent, PrepareSettings(), encode_video(make_frames(), 10, sound=make_tone(2.0))
    )
    with VideoReader(content) as video:
        assert has_sound
        assert np.abs(video.audio(0.5, 1.0, 24000).astype(int)).max() > 6000


def test_a_cut_off_video_is_a_decode_error():
    content = encode_video(make_frames(), 10)
    with pytest.raises(DecodeError):
        reencode(content[: len(content) // 2], PrepareSettings())
    with pytest.raises(NoVideoError):
        reencode(make_wav(), PrepareSettings())


# A dataset


def test_a_dataset_becomes_shards_that_load_with_its_columns_and_sound(source, tmp_path):
    report = prepare_videos(str(source), tmp_path / "out", PrepareSettings(short_side=48), shards=2, **QUIET)
    dataset = load_videos(str(tmp_path / "out"), "train")
    assert [Path(p).name for p in sorted((tmp_path / "out" / "data").iterdir())] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert dataset.features["label"].names == ["jump", "run"]
    assert [dataset.features["label"].int2str(label) for label in dataset["label"]] == ["jump"] * 2 + [
        "run"
    ] * 2
    for row in dataset:
        with VideoReader(row["video"]) as video:
            assert (len(video), video.info.height) == (20, 48)
            assert video.info.has_audio == ("run2" not in row["video"]["path"])
    assert report["splits"]["train"]["written"] == 4
    assert report["splits"]["train"]["without_sound"] == 1


def test_the_report_names_every_video_that_was_left_out_and_why(source, tmp_path):
    prepare_videos(str(source), tmp_path / "out", shards=2, **QUIET)
    report = json.loads((tmp_path / "out" / "report.json").read_text())["splits"]["train"]
    assert report["videos"] == 6
    assert [Path(sample["video"]).name for sample in report["dropped"]] == ["jump1.mp4", "run0.mp4"]
    assert all(sample["reason"] and sample["error"].endswith("Error") for sample in report["dropped"])
    assert sum(report["errors"].values()) == 2


def test_the_number_of_processes_changes_nothing(source, tmp_path):
    for processes in (1, 2):
        prepare_videos(str(source), tmp_path / str(processes), processes=processes, show_progress=False)
    rows = [load_videos(str(tmp_path / name), "train").to_list() for name in ("1", "2")]
    assert rows[0] == rows[1]


def test_a_run_that_was_broken_off_continues_with_the_shard_it_was_at(source, tmp_path, monkeypatch):
    prepare_videos(str(source), tmp_path / "unbroken", shards=3, **QUIET)
    calls = []

    def break_off(cell, *rest):
        calls.append(Path(cell["path"]).name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return reencode(cell, *rest)

    monkeypatch.setattr(prepare, "reencode", break_off)
    with pytest.raises(KeyboardInterrupt):
        prepare_videos(str(source), tmp_path / "broken", shards=3, **QUIET)
    assert len(list((tmp_path / "broken" / "data").glob("*.parquet"))) == 1
    report = prepare_videos(str(source), tmp_path / "broken", shards=3, **QUIET)

    assert calls[4:] == ["jump2.mp4", "run0.mp4", "run1.mp4", "run2.mp4"]
    assert report == json.loads((tmp_path / "unbroken" / "report.json").read_text())
    for path in (tmp_path / "unbroken" / "data").iterdir():
        assert path.read_bytes() == (tmp_path / "broken" / "data" / path.name).read_bytes()


def test_a_second_split_joins_the_folder(source, tmp_path):
    (source / "test").mkdir()
    (source / "train" / "run").rename(source / "test" / "run")
    prepare_videos(str(source), tmp_path / "out", **QUIET)
    report = prepare_videos(str(source), tmp_path / "out", splits=["test"], **QUIET)
    assert set(report["splits"]) == {"train", "test"}
    assert len(load_videos(str(tmp_path / "out"), "test")) == 2
    assert load_videos(str(tmp_path / "out"), "test").features["label"].names == ["jump", "run"]


def test_embedded_videos_and_a_sound_column_can_be_prepared(tmp_path):
    clip = {"bytes": encode_video(make_frames(), 10), "path": None}
    sound = {"bytes": make_wav(), "path": None}
    file = {"bytes": hf.Value("binary"), "path": hf.Value("string")}  # encoding hf.Audio needs torchcodec
    features = hf.Features({"video": file, "audio": file, "caption": hf.Value("string")})
    data = hf.Dataset.from_dict(
        {"video": [clip], "audio": [sound], "caption": ["it brightens"]}, features=features
    )
    data.to_parquet(str(tmp_path / "train.parquet"))
    prepare_videos(str(tmp_path / "train.parquet"), tmp_path / "out", **QUIET)
    (row,) = load_videos(str(tmp_path / "out"), "train")
    assert set(row) == {"video", "caption"}
    with VideoReader(row["video"]) as video:
        assert video.info.has_audio


def test_no_good_video_at_all_is_an_error_that_leaves_the_report(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"no video.*report\.json"):
        prepare_videos(str(tmp_path / "source"), tmp_path / "out", **QUIET)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["splits"]["train"]["written"] == 0


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "load_videos", lambda *_, **__: pytest.fail("read before the check"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        prepare_videos("anything", tmp_path / "file" / "out", **QUIET)
    with pytest.raises(OutputError, match="other files"):
        prepare_videos("anything", tmp_path, **QUIET)


def test_other_settings_do_not_mix_with_what_is_there(source, tmp_path):
    prepare_videos(str(source), tmp_path / "out", **QUIET)
    with pytest.raises(OutputError, match="short_side is 128 there, 64 asked for"):
        prepare_videos(str(source), tmp_path / "out", PrepareSettings(short_side=64), **QUIET)
    with pytest.raises(OutputError, match="shards is 1 there, 2 asked for"):
        prepare_videos(str(source), tmp_path / "out", shards=2, **QUIET)


def test_a_source_that_is_not_there_does_not_bind_the_folder(source, tmp_path):
    with pytest.raises(DataError):
        prepare_videos(str(tmp_path / "nowhere"), tmp_path / "out", **QUIET)
    assert prepare_videos(str(source), tmp_path / "out", **QUIET)["splits"]["train"]["written"] == 4


@pytest.mark.parametrize("settings", [{"short_side": 8}, {"keyframe_distance": 0}, {"fps": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        PrepareSettings(**settings)


def test_more_shards_than_videos_are_refused(source, tmp_path):
    with pytest.raises(ConfigurationError, match="take 1 to 6"):
        prepare_videos(str(source), tmp_path / "out", shards=7, **QUIET)


# The command


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_prepares_videos_and_says_what_it_left_out(source, tmp_path, capsys):
    assert call(source, "--output", tmp_path / "out", "--short-side", 48, "--processes", 1, "--quiet") == 0
    printed = capsys.readouterr().out
    assert "train: 4 of 6 videos written, left out:" in printed
    assert str(tmp_path / "out" / "report.json") in printed
    assert len(load_videos(str(tmp_path / "out"), "train")) == 4


def test_the_command_generates_sounding_shapes_with_a_quarter_for_each_other_split(tmp_path, capsys):
    call("--sounding-shapes", 8, "--output", tmp_path / "out", "--size", 24, "--processes", 1, "--quiet")
    assert [len(load_videos(str(tmp_path / "out"), split)) for split in ("train", "validation", "test")] == [
        8,
        2,
        2,
    ]
    assert "8 train, 2 validation, 2 test" in capsys.readouterr().out
    with VideoReader(load_videos(str(tmp_path / "out"), "test")[0]["video"]) as video:
        assert (len(video), video.info.height) == (16, 24)


def test_options_of_the_other_mode_are_refused_and_not_ignored(source, tmp_path):
    with pytest.raises(ConfigurationError, match=r"re-encoding knows no --size, --seed"):
        call(source, "--output", tmp_path / "out", "--size", 24, "--seed", 1)
    with pytest.raises(ConfigurationError, match=r"Sounding Shapes knows no --short-side"):
        call("--sounding-shapes", 8, "--output", tmp_path / "out", "--short-side", 24)


def test_either_videos_or_sounding_shapes_must_be_asked_for(source, tmp_path, capsys):
    for arguments in (["--output", tmp_path], [source, "--sounding-shapes", 8, "--output", tmp_path]):
        with pytest.raises(SystemExit):
            call(*arguments)
    assert "--sounding-shapes" in capsys.readouterr().err


def test_a_source_is_decoded_whole_before_it_is_kept(
    clip_with_sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(reader: VideoReader) -> None:
        raise DecodeError("clip", "the frame at 2.000 s is damaged")

    monkeypatch.setattr(VideoReader, "verify", damaged)

    with pytest.raises(DecodeError, match="damaged"):
        reencode(clip_with_sound, PrepareSettings())
