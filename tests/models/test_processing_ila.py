"""The 4 x 3 views of ILA's test: frames of the same parts, the whole long side, one file opened once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.media import make_clip, moving_frames
from models.tiny_ila import FRAMES, SIDE, make_config, make_processor
from videossl_hf import ILAProcessor, ILAVideoProcessor
from videossl_hf.data import video_processing
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.rounded_segments import rounded_clips
from videossl_hf.data.writer import write_video
from videossl_hf.evaluation.clips import PreparedClips

RAW = {"do_normalize": False, "do_rescale": False}


@pytest.mark.parametrize(("height", "width"), [(SIDE, 2 * SIDE + 1), (3 * SIDE, 2 * SIDE)])
def test_three_crops_of_a_file_show_all_of_its_long_side(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, moving_frames(9, 2 * height, 2 * width), 8.0)
    videos = make_processor()(videos=str(path), num_crops=3, **RAW)["pixel_values_videos"]
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    with VideoReader(str(path)) as reader:
        (frames,) = reader.clips(list(rounded_clips(9, FRAMES)), size)
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    rest = (max(size) - SIDE) // 2
    places = [slice(start, start + SIDE) for start in (0, 2 * rest, rest)]  # first, last, middle
    expected = [whole[..., place] if width > height else whole[..., place, :] for place in places]
    torch.testing.assert_close(videos[0], torch.stack(expected))


def test_the_short_side_is_the_crops_for_three_and_larger_for_one_unless_it_is_given() -> None:
    frames, processor = moving_frames(FRAMES, 80, 120), make_processor()

    def views(**settings: Any) -> torch.Tensor:
        return processor(videos=frames, **settings)["pixel_values_videos"]

    assert torch.equal(views(), views(size=SIDE * 8 // 7))
    assert torch.equal(views(num_crops=3), views(num_crops=3, size=SIDE))
    assert not torch.equal(views(num_crops=3), views(num_crops=3, size=SIDE * 8 // 7))
    of_three = ILAProcessor.from_config(make_config(), num_crops=3)
    assert torch.equal(of_three(videos=frames)["pixel_values_videos"], views(num_crops=3))
    assert ILAVideoProcessor(num_crops=3).size["shortest_edge"] == 224
    assert ILAVideoProcessor(num_crops=3, size=240).size["shortest_edge"] == 240


def test_four_clips_take_other_frames_of_the_same_parts() -> None:
    frames = moving_frames(33, 40, 40)
    views = make_processor()(videos=frames, num_clips=4, num_crops=3)["pixel_values_videos"][0]
    clips = views.unflatten(0, (4, 3))
    assert clips.shape == (4, 3, FRAMES, 3, SIDE, SIDE)
    indices = rounded_clips(33, FRAMES, 4)
    low, high = indices.min(0), indices.max(0)
    assert (np.diff(low) > 0).all()
    assert (high[:-1] <= low[1:]).all()
    for clip, chosen in zip(clips, indices, strict=True):
        alone = make_processor()(videos=frames[chosen], do_sample_frames=False, num_crops=3)
        torch.testing.assert_close(alone["pixel_values_videos"][0], clip)


def test_a_file_is_opened_once_for_its_twelve_views(tmp_path: Path, monkeypatch: Any) -> None:
    path = make_clip(tmp_path / "clip.mp4", sound=False)
    opened = []

    class Counted(video_processing.VideoReader):
        def __init__(self, source: Any, *args: Any, **kwargs: Any) -> None:
            opened.append(source)
            super().__init__(source, *args, **kwargs)

    monkeypatch.setattr(video_processing, "VideoReader", Counted)
    sample = PreparedClips(make_processor(), [{"video": str(path), "label": 0}], views="4x3")[0]
    assert sample.inputs.shape == (12, FRAMES, 3, SIDE, SIDE)
    assert len(opened) == 1
