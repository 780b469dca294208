"""Windows over long videos: where they lie, and that each is a video of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from media import moving_texture, sweep, write_media
from models import tiny_stica
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.sampling import sliding_windows
from videossl_hf.data.video_processing import VideoSSLVideoProcessor
from videossl_hf.errors import InputError, NoAudioError

SETTINGS = {"num_frames": 4, "fps": 5.0, "size": 24, "crop_size": 24, "resample": 2}


@given(
    frames=st.integers(1, 500),
    fps=st.floats(1, 60),
    seconds=st.floats(0.01, 30),
    stride=st.none() | st.floats(0.01, 30),
)
@settings(max_examples=200, deadline=None)
def test_windows_begin_and_end_with_the_video_in_their_order(
    frames: int, fps: float, seconds: float, stride: float | None
) -> None:
    spans = sliding_windows(frames, fps, seconds, stride)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == frames
    assert len(set((spans[:, 1] - spans[:, 0]).tolist())) == 1
    assert (np.diff(spans[:, 0]) > 0).all()
    if stride is None or stride <= seconds - 1 / fps:
        assert (spans[1:, 0] <= spans[:-1, 1]).all(), "a frame lies in no window"


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_lengths_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="must be a positive number of seconds"):
        sliding_windows(10, 5.0, wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stride of a window"):
        sliding_windows(10, 5.0, 1.0, wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return moving_texture(50, 48, 64)


def test_a_window_is_sampled_as_if_it_were_the_whole_video(frames: np.ndarray, tmp_path: Path) -> None:
    path = write_media(tmp_path / "long.mp4", frames=frames, options={"g": "7"})
    with VideoReader(path) as reader:
        decoded = reader.frames(range(50))
    processor = VideoSSLVideoProcessor(**SETTINGS, resize_while_decoding=False)
    windows = list(processor.windows(path, 2.0, 1.5))
    assert [(w.start, w.end, w.is_last) for w in windows] == [
        (0, 2, False),
        (1.5, 3.5, False),
        (3, 5, True),
    ]
    for window in windows:
        first, stop = round(10 * window.start), round(10 * window.end)
        expected = processor(decoded[first:stop], video_metadata={"fps": 10.0})["pixel_values_videos"]
        assert torch.equal(processor([window.video])["pixel_values_videos"], expected)


def test_times_count_where_frames_are_not_evenly_spaced(frames: np.ndarray, tmp_path: Path) -> None:
    ticks = [100 * number if number < 25 else 2500 + 50 * (number - 25) for number in range(50)]
    path = write_media(tmp_path / "uneven.mp4", frames=frames, ticks=ticks)
    processor = VideoSSLVideoProcessor(**SETTINGS)
    for window in processor.windows(path, 1.0):
        assert all(window.start - 0.15 <= start <= window.end for start in window.video.starts), (
            window.video.starts
        )


def test_the_sound_of_a_window_is_that_of_its_time(frames: np.ndarray, tmp_path: Path) -> None:
    path = write_media(tmp_path / "heard.mp4", frames=frames, sound=sweep(5.0, 24000))
    processor = tiny_stica.make_processor()
    windows = list(processor.video_processor.windows(path, 2.0, audio_seconds=1.0))
    with VideoReader(path) as reader:
        for window in windows:
            expected = reader.audio(window.video.starts[0], 1.0, 24000)
            assert np.array_equal(window.video.waveforms[0].numpy(), expected)
    features = processor(videos=[windows[1].video], audio=True)["input_features"]
    assert torch.equal(features, processor(audio=[windows[1].video.waveforms[0]])["input_features"])
    silent = write_media(tmp_path / "silent.mp4", frames=frames)
    with pytest.raises(NoAudioError):
        next(processor.video_processor.windows(silent, 2.0, audio_seconds=1.0))
