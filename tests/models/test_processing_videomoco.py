from __future__ import annotations

import numpy as np
import pytest
import torch

from common.media import moving_frames
from common.processor_checks import ProcessorChecks
from videossl_hf import VideoMoCoConfig, VideoMoCoProcessor, VideoMoCoVideoProcessor
from videossl_hf.errors import ConfigurationError, InputError


class TestVideoMoCoProcessor(ProcessorChecks):
    def make_processor(self) -> VideoMoCoProcessor:
        config = VideoMoCoConfig(num_frames=8, image_size=32, fps=12.0)
        return VideoMoCoProcessor.from_config(config)

    def test_defaults_are_those_of_the_official_code(self) -> None:
        processor = VideoMoCoProcessor().video_processor
        assert (processor.num_frames, processor.frame_stride, processor.fps) == (32, 1, None)
        assert processor.crop_size == {"height": 112, "width": 112}
        assert tuple(processor.image_mean) == (0.485, 0.456, 0.406)
        assert tuple(processor.image_std) == (0.229, 0.224, 0.225)
        assert processor.rescale_factor == 1 / 255

    def test_frames_are_consecutive_whatever_the_rate(self) -> None:
        processor = VideoMoCoVideoProcessor()
        for fps in (None, 12.5, 60.0):
            assert np.array_equal(processor.clip_indices(100, fps)[0], 34 + np.arange(32))

    def test_the_official_test_views_can_be_said(self) -> None:
        processor = VideoMoCoProcessor.from_config(
            VideoMoCoConfig(num_frames=4), do_resize=False, crop_size=24, num_clips=10
        )
        frames = moving_frames(30, 32, 40)
        views = processor(videos=frames)["pixel_values_videos"]
        assert views.shape == (1, 10, 4, 3, 24, 24)
        video = processor.video_processor
        indices = video.clip_indices(30)
        assert (indices[0, 0], indices[-1, -1]) == (0, 29)
        pixels = torch.from_numpy(frames[indices[3], 4:28, 8:32]).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (video.image_mean, video.image_std))
        torch.testing.assert_close(views[0, 3], (pixels - mean) / std)
        with pytest.raises(InputError, match="does not fit"):
            processor(videos=moving_frames(30, 20, 40))

    def test_fits_its_configuration(self) -> None:
        config = VideoMoCoConfig(num_frames=16, image_size=56, fps=15.0, frame_stride=2)
        processor = VideoMoCoProcessor.from_config(config, num_clips=3).video_processor
        assert (processor.num_frames, processor.fps, processor.frame_stride) == (16, 15.0, 2)
        assert processor.size == {"shortest_edge": 64}
        assert processor.num_clips == 3
        with pytest.raises(ConfigurationError, match="frames_number"):
            VideoMoCoProcessor.from_config(config, frames_number=3)
