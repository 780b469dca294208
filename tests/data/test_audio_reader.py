from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media import sweep, write_media
from videossl_hf.data.reader import VideoReader, read_audio
from videossl_hf.errors import DecodeError, InputError, NoAudioError

RATES = (8000, 11025, 16000, 22050, 24000, 44100, 48000)


def tone(seconds: float, sample_rate: int, start: float = 0.0) -> np.ndarray:
    """What `sweep` is at any rate, as real numbers, from a moment on."""
    time = start + np.arange(round(seconds * sample_rate)) / sample_rate
    return 12000 * np.sin(2 * np.pi * (200 * time + 150 * time**2))


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of the rising tone, 44.1 kHz, uncompressed."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    return write_media(
        path, num_frames=0, sound=sweep(3.0, 44100), sample_rate=44100, sound_codec="pcm_s16le"
    )


@pytest.mark.parametrize("source_rate", RATES)
@pytest.mark.parametrize("rate", [16000, 24000])
def test_every_sample_is_where_it_belongs_at_any_pair_of_rates(
    source_rate: int, rate: int, write_clip: Callable[..., Path]
) -> None:
    path = write_clip(
        "tone.wav",
        num_frames=0,
        sound=sweep(2.0, source_rate),
        sample_rate=source_rate,
        sound_codec="pcm_s16le",
    )
    # A shift by a tenth of a sample would change the tone, at 600 Hz and full swing, by 200.
    sound = read_audio(path, 0.5, 1.0, rate)
    assert sound.dtype == np.int16
    assert np.abs(sound - tone(1.0, rate, 0.5)).max() < 15


def test_the_same_rate_gives_the_stored_samples(wave: Path) -> None:
    np.testing.assert_array_equal(read_audio(wave, sample_rate=44100), sweep(3.0, 44100))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(-30000, 90000), length=st.integers(1, 30000), rate=st.sampled_from([16000, 24000]))
def test_a_span_is_a_cut_out_of_the_whole(first: int, length: int, rate: int, wave: Path) -> None:
    whole = read_audio(wave, sample_rate=rate)
    padded = np.concatenate([np.zeros(30000, np.int16), whole, np.zeros(130000, np.int16)])

    span = read_audio(wave, first / rate, length / rate, rate)

    np.testing.assert_array_equal(span, padded[30000 + first :][:length])


def test_only_what_lies_outside_the_track_is_zero(wave: Path) -> None:
    before = read_audio(wave, -0.5, 1.0, 24000)
    assert not before[:12000].any()
    assert np.count_nonzero(before[12000:]) > 11500
    after = read_audio(wave, 2.5, 1.0, 24000)
    assert np.count_nonzero(after[:12000]) > 11500
    assert not after[12000:].any()
    assert not read_audio(wave, 100.0, 1.0, 24000).any()


@pytest.mark.parametrize("seconds", [0.0101, 1 / 3, 1.0, 2.71828])
def test_a_span_has_its_rounded_number_of_samples(seconds: float, wave: Path) -> None:
    assert read_audio(wave, 0.1, seconds, 24000).shape == (round(seconds * 24000),)


def test_stereo_becomes_the_mean_of_both_sides(tmp_path: Path) -> None:
    import av

    path = tmp_path / "stereo.wav"
    left, right = sweep(1.0, 24000), np.zeros(24000, np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=24000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, right], 1).reshape(1, -1), "s16", "stereo")
        frame.sample_rate = 24000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert np.abs(read_audio(path) - left / 2).max() <= 1


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("sound_codec", ["aac", "flac", "libopus", "libmp3lame"])
def test_sound_of_a_video_lies_on_its_clock(
    name: str, sound_codec: str, write_clip: Callable[..., Path]
) -> None:
    rate = 48000 if sound_codec == "libopus" else 24000
    path = write_clip(
        name,
        num_frames=40,
        sound=sweep(4.0, rate),
        sample_rate=rate,
        sound_codec=sound_codec,
        options={"g": "10"},
    )
    with VideoReader(path) as video:
        for start in (0.2, 1.5, 2.9):
            sound = video.audio(start, 0.5, 24000).astype(float)
            # Lossy codecs change the samples; a shift by a millisecond would spoil the correlation at 700 Hz.
            wanted = tone(0.5, 24000, start)
            assert np.corrcoef(sound, wanted)[0, 1] > 0.98
        # Frames can still be read from the same open file, before and after.
        assert video.frames([30, 2]).shape[0] == 2


def test_sound_that_begins_late_is_preceded_by_silence(write_clip: Callable[..., Path]) -> None:
    path = write_clip(
        "late.mkv", num_frames=30, sound=sweep(2.0, 24000), sound_start=0.5, sound_codec="pcm_s16le"
    )
    with VideoReader(path) as video:
        sound = video.audio(0.0, 2.0, 24000)
    assert not sound[:11950].any()
    assert np.abs(sound[12100:] - tone(1.5, 24000)[100 : 100 + len(sound) - 12100]).max() < 400


def test_spans_from_the_middle_of_a_long_file_are_those_of_the_whole(write_clip: Callable[..., Path]) -> None:
    path = write_clip(num_frames=100, sound=sweep(10.0, 24000))
    with VideoReader(path) as video:
        whole = video.audio(0.0, 10.0, 16000)
        for start in (9.0, 3.0, 6.5):
            first = round(start * 16000)
            np.testing.assert_array_equal(video.audio(start, 0.9, 16000), whole[first : first + 14400])


def test_every_kind_of_source_gives_the_same_sound(wave: Path) -> None:
    wanted = read_audio(wave, 0.3, 0.4)
    data = wave.read_bytes()
    with wave.open("rb") as file:
        for source in (
            str(wave),
            data,
            file,
            {"bytes": data, "path": None},
            {"bytes": None, "path": str(wave)},
        ):
            np.testing.assert_array_equal(read_audio(source, 0.3, 0.4), wanted)


def test_no_sound_is_a_typed_error(write_clip: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NoAudioError, match="no sound track"):
        read_audio(write_clip(num_frames=3))
    empty = tmp_path / "empty.wav"
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0
    )
    empty.write_bytes(header)
    with pytest.raises(NoAudioError, match="no sample"):
        read_audio(empty)
    for content in (b"", b"no sound at all" * 50):
        with pytest.raises(DecodeError):
            read_audio(content)


def test_a_track_that_is_cut_off_or_damaged_is_an_error(wave: Path, write_clip: Callable[..., Path]) -> None:
    data = wave.read_bytes()
    with pytest.raises(DecodeError, match="cut off"):
        read_audio(data[: len(data) // 2])
    # What lies before the cut can be had, where it is asked for.
    np.testing.assert_array_equal(read_audio(data[: len(data) // 2], 0.2, 0.5), read_audio(wave, 0.2, 0.5))

    flac = write_clip("tone.flac", num_frames=0, sound=sweep(3.0, 24000), sound_codec="flac").read_bytes()
    middle = len(flac) // 2
    with pytest.raises(DecodeError):
        read_audio(flac[:middle] + bytes(50) + flac[middle + 50 :])


@pytest.mark.parametrize(
    "span", [{"start": np.nan}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": np.inf}, {"sample_rate": 0}]
)
def test_senseless_spans_are_an_input_error(span: dict, wave: Path) -> None:
    with pytest.raises(InputError):
        read_audio(wave, **span)
