from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from videossl_hf.data.writer import VideoWriter, encode_video, write_video
from videossl_hf.errors import InputError, OutputError


def make_frames(count: int = 12, size: int = 48) -> np.ndarray:
    """A smooth pattern that wanders, so that frames differ and compress well."""
    angle = 2 * np.pi * (np.arange(size) / size)
    shift = np.arange(count)[:, None, None] * 0.4
    pattern = 127 + 100 * np.sin(angle[None, :, None] + shift) * np.cos(angle[None, None, :])
    return np.repeat(pattern[..., None], 3, axis=-1).astype(np.uint8)


def make_click(seconds: float = 2.0, at: float = 0.7, rate: int = 24000) -> np.ndarray:
    sound = np.zeros(round(seconds * rate), np.int16)
    start = round(at * rate)
    sound[start : start + rate // 10] = (16000 * np.sin(np.arange(rate // 10) * 0.3)).astype(np.int16)
    return sound


def read_frames(source: object) -> tuple[np.ndarray, list[float], list[bool]]:
    with av.open(source) as container:
        frames = list(container.decode(video=0))
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return pixels, [float(frame.time) for frame in frames], [bool(frame.key_frame) for frame in frames]


def read_sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].time == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_frames_come_back_in_order_and_nearly_unchanged(tmp_path):
    frames = make_frames()
    write_video(tmp_path / "clip.mp4", frames, 8)
    pixels, times, _ = read_frames(str(tmp_path / "clip.mp4"))
    assert pixels.shape == frames.shape
    assert np.abs(pixels.astype(int) - frames).mean() < 3
    assert times == pytest.approx(np.arange(12) / 8)


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_sound_starts_with_the_frames_to_within_ten_milliseconds(tmp_path, rate):
    write_video(tmp_path / "clip.mp4", make_frames(16), 8, sound=make_click(rate=rate), sample_rate=rate)
    sound = read_sound(tmp_path / "clip.mp4")
    onset = np.argmax(np.abs(sound) > 0.2) / rate
    assert onset == pytest.approx(0.7, abs=0.01)
    assert len(sound) / rate == pytest.approx(2.0, abs=0.1)


def test_the_container_lasts_as_long_as_frames_and_sound(tmp_path):
    write_video(tmp_path / "clip.mp4", make_frames(16), 8, sound=make_click())
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(2.0, abs=0.01)
        assert container.streams.video[0].average_rate == 8
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("distance", [1, 5])
def test_keyframes_are_no_further_apart_than_asked(tmp_path, distance):
    write_video(tmp_path / "clip.mp4", make_frames(20), 10, keyframe_distance=distance)
    keys = np.flatnonzero(read_frames(str(tmp_path / "clip.mp4"))[2])
    assert keys[0] == 0
    assert np.diff([*keys, 20]).max() <= distance


def test_frames_can_have_times_of_their_own_and_come_in_parts(tmp_path):
    frames, times = make_frames(6), np.array([0.0, 0.04, 0.2, 0.21, 0.5, 1.0])
    with VideoWriter(tmp_path / "clip.mp4", height=48, width=48, fps=10) as writer:
        writer.add_frames(frames[:2], times[:2])
        writer.add_frames(frames[2:], times[2:])
    assert read_frames(str(tmp_path / "clip.mp4"))[1] == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize("fps", [23.976, 29.97, 12.5])
def test_fractional_rates_keep_time(tmp_path, fps):
    write_video(tmp_path / "clip.mp4", make_frames(12), fps)
    assert read_frames(str(tmp_path / "clip.mp4"))[1] == pytest.approx(np.arange(12) / fps, abs=2e-5)


def test_the_same_input_gives_the_same_bytes_in_a_file_and_in_memory(tmp_path):
    frames, sound = make_frames(), make_click(1.5)
    write_video(tmp_path / "clip.mp4", frames, 8, sound=sound)
    content = encode_video(frames, 8, sound=sound)
    assert content == (tmp_path / "clip.mp4").read_bytes()
    assert len(read_frames(io.BytesIO(content))[0]) == 12


def test_narrow_clips_give_the_same_bytes_whatever_lies_in_memory():
    """x264's code for AVX-512 looks at pixels beside such frames. Each encoding finds other rubbish there."""
    generator = np.random.default_rng(0)
    clip = generator.integers(0, 256, (16, 6, 6, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    rubbish, encoded = [], set()
    for _ in range(60):
        rubbish.append(generator.integers(0, 256, generator.integers(1, 200_000), np.uint8))
        encoded.add(encode_video(clip, 8))
        del rubbish[:-3]
    assert len(encoded) == 1


def test_a_broken_off_file_never_bears_the_name_and_leaves_nothing(tmp_path):
    def write_half() -> None:
        with VideoWriter(tmp_path / "clip.mp4", height=48, width=48, fps=8) as writer:
            writer.add_frames(make_frames())
            assert not (tmp_path / "clip.mp4").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_survives_a_failed_write(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"precious")
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "clip.mp4", make_frames()[:0], 8)
    assert (tmp_path / "clip.mp4").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_video(tmp_path / "missing" / "clip.mp4", make_frames(), 8)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (make_frames(size=48)[:, :47], {}, "even"),
        (make_frames().astype(np.float32), {}, "uint8"),
        (make_frames()[0], {}, r"\(48, 48, 3\)"),
        (make_frames(), {"fps": 0}, "positive"),
        (make_frames(), {"keyframe_distance": 0}, "positive"),
        (make_frames(), {"sound": np.zeros(100, np.float32)}, "int16"),
        (make_frames(), {"sound": np.zeros(100, np.int16), "sample_rate": 12345}, "12345"),
    ],
)
def test_what_does_not_fit_is_an_input_error_and_leaves_nothing(tmp_path, frames, options, message):
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / "clip.mp4", frames, **{"fps": 8, **options})
    assert list(tmp_path.iterdir()) == []


def test_times_that_do_not_ascend_are_an_input_error(tmp_path):
    with (
        pytest.raises(InputError, match="ascend"),
        VideoWriter(tmp_path / "clip.mp4", height=48, width=48, fps=8) as writer,
    ):
        writer.add_frames(make_frames(3), np.array([0.0, 0.5, 0.5]))
