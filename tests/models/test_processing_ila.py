"""The 4 x 3 views of ILA's test: frames of the same parts, the whole long side, one file opened once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.media import make_clip, moving_frames
from models.tiny_ila import FRAMES, SIDE, make_processor
from videossl_hf.data import video_processing
from videossl_hf.data.rounded_segments import rounded_clips
from videossl_hf.evaluation.clips import PreparedClips

RAW = {"do_normalize": False, "do_rescale": False}


def test_three_crops_of_the_size_of_the_short_side_show_the_whole_long_side() -> None:
    frames = np.zeros((FRAMES, SIDE, 2 * SIDE, 3), np.uint8)
    frames[:] = np.arange(2 * SIDE)[:, None]  # a pixel's value is its column
    videos = make_processor()(videos=frames, num_crops=3, size=SIDE, **RAW)["pixel_values_videos"]
    assert videos.shape == (1, 3, FRAMES, 3, SIDE, SIDE)
    columns = {round(view[0, 0, 0, 0].item()) for view in videos[0]}
    assert columns == {0, SIDE // 2, SIDE}


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
