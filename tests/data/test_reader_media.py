"""The reader on every file of a folder of real media (VIDEOSSL_MEDIA), beside decoding everything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from media import write_media
from videossl_hf.data.reader import VideoReader, read_audio
from videossl_hf.errors import DecodeError, NoAudioError, NoVideoError

SIZE = (16, 24)
# What a name promises to hold. Anything else (texts, tables) has to give a typed error.
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg")
SOUND_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg")


def media_files() -> list[Path]:
    folder = os.environ.get("VIDEOSSL_MEDIA")
    return sorted(path for path in Path(folder).rglob("*") if path.is_file()) if folder else []


def name_of(path: Path) -> str:
    return str(path.relative_to(os.environ["VIDEOSSL_MEDIA"]))


FILES = media_files()
VIDEOS = [path for path in FILES if path.suffix in VIDEO_SUFFIXES]
SOUNDS = [path for path in FILES if path.suffix in SOUND_SUFFIXES]
OTHERS = [path for path in FILES if path.suffix not in VIDEO_SUFFIXES + SOUND_SUFFIXES]
# Each sixth clip of a labelled set: they are alike. The slow test takes all.
SOME = [path for number, path in enumerate(VIDEOS) if "labelled" not in path.parts or number % 6 == 0]


def decoded(path: Path) -> Iterator[av.VideoFrame]:
    """The frames that PyAV gives one after the other, up to the first error of a strict decoder."""
    with av.open(str(path), options={"err_detect": "explode"}) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        try:
            yield from container.decode(stream)
        except av.error.FFmpegError:
            return


def is_audible(path: Path) -> bool:
    """Whether there is anything but silence in the sound: some real tracks are silent throughout."""
    with av.open(str(path)) as container:
        return any(np.abs(frame.to_ndarray()).max() > 0 for frame in container.decode(audio=0))


def check_exactness(path: Path, clips: int) -> None:
    with VideoReader(path) as reader:
        assert len(reader) == len(reader.frame_times)
        assert reader.frame_times[0] == 0
        assert (np.diff(reader.frame_times) > 0).all()
        wanted = []
        for frame in decoded(path):
            wanted.append(np.empty((*SIZE, 3), np.uint8))
            reader._convert(frame, wanted[-1])
        whole = np.stack(wanted)
        if len(whole) < len(reader):
            with pytest.raises(DecodeError):
                reader.frames([len(reader) - 1], SIZE)
        random = np.random.default_rng(len(whole))
        last = len(whole) - 1
        for number in range(clips):
            indices = np.minimum(random.integers(len(whole)) + random.integers(1, 6) * np.arange(8), last)
            if number % 4 == 1:
                indices = indices[::-1]
            elif number % 4 == 2:
                indices = random.integers(len(whole), size=5)
            elif number % 4 == 3:
                indices = np.array([last, 0, last, 0])
            np.testing.assert_array_equal(reader.frames(indices, SIZE), whole[indices], err_msg=str(indices))


@pytest.mark.skipif(not FILES, reason="VIDEOSSL_MEDIA names no folder of real clips")
def test_the_folder_holds_what_the_tests_below_claim_to_read() -> None:
    assert VIDEOS
    assert SOUNDS


@pytest.mark.parametrize("path", SOME, ids=name_of)
def test_frames_of_real_clips_are_those_of_decoding_everything(path: Path) -> None:
    check_exactness(path, clips=4)


@pytest.mark.slow
@pytest.mark.parametrize("path", VIDEOS, ids=name_of)
def test_frames_of_all_real_clips_from_many_starts(path: Path) -> None:
    check_exactness(path, clips=16)


@pytest.mark.parametrize("path", [path for path in VIDEOS if path not in SOME], ids=name_of)
def test_every_real_clip_opens_and_gives_its_middle(path: Path) -> None:
    with VideoReader(path) as reader:
        assert reader.frames([len(reader) // 2], SIZE).std() > 0


@pytest.mark.parametrize("path", SOUNDS, ids=name_of)
def test_real_sound_files_have_sound_and_no_video(path: Path) -> None:
    with pytest.raises(NoVideoError):
        VideoReader(path)
    assert (np.abs(read_audio(path, sample_rate=16000).astype(int)).max() > 0) == is_audible(path)


@pytest.mark.parametrize("path", OTHERS, ids=name_of)
def test_files_that_are_no_media_are_typed_errors(path: Path) -> None:
    with pytest.raises(DecodeError):
        VideoReader(path)
    with pytest.raises(DecodeError):
        read_audio(path)


@pytest.mark.parametrize("path", [path for path in SOME if "labelled" not in path.parts], ids=name_of)
def test_sound_of_real_clips_is_the_same_wherever_a_span_begins(path: Path) -> None:
    with VideoReader(path) as reader:
        if not reader.info.has_audio:
            with pytest.raises(NoAudioError):
                reader.audio(0.0, 1.0, 24000)
            return
        # Noise that AAC leaves to the decoder to make up depends on where decoding began: one file has some.
        noisy = "skateboarding" in path.name
        seconds = min(reader.info.duration, 6.0)
        whole = reader.audio(0.0, seconds, 24000).astype(int)
        assert len(whole) == round(seconds * 24000)
        assert (np.abs(whole).max() > 0) == is_audible(path)
        for start in (0.0, seconds / 3, seconds * 0.8):
            first = round(start * 24000)
            part = reader.audio(first / 24000, 0.15, 24000)
            overlap = whole[first : first + len(part)]
            assert np.abs(part[: len(overlap)] - overlap).max() <= (200 if noisy else 0)


def test_a_made_file_passes_the_same_check(tmp_path: Path) -> None:
    check_exactness(write_media(tmp_path / "clip.mp4", num_frames=40, options={"g": "9", "bf": "2"}), clips=8)
