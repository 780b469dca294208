"""What every processor of the package must pass; the test class of each derives from `ProcessorChecks`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.media import make_clip, moving_frames
from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DecodeError, InputError


class ProcessorChecks:
    """The checks; each test is one behaviour."""

    def make_processor(self) -> Any:
        """A processor of small clips, at 12 frames a second if it samples by time."""
        raise NotImplementedError

    @pytest.fixture
    def processor(self) -> Any:
        return self.make_processor()

    @pytest.fixture(scope="class")
    def clip(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return make_clip(tmp_path_factory.mktemp("media") / "clip.mp4")

    def pixels(self, processor: Any, videos: Any, **settings: Any) -> torch.Tensor:
        return processor(videos=videos, **settings)["pixel_values_videos"]

    def frame_size(self, processor: Any) -> tuple[int, int]:
        crop = processor.video_processor.crop_size
        return crop["height"], crop["width"]

    def test_gives_normalised_clips_of_the_documented_shape(self, processor: Any, clip: Path) -> None:
        pixels = self.pixels(processor, clip)
        assert pixels.shape == (1, processor.video_processor.num_frames, 3, *self.frame_size(processor))
        assert pixels.dtype == torch.float32
        assert pixels.abs().max() < 10
        assert self.pixels(processor, [clip, clip]).shape[0] == 2

    def test_every_way_to_name_a_file_gives_the_same_clip(self, processor: Any, clip: Path) -> None:
        expected = self.pixels(processor, clip)
        data = clip.read_bytes()
        cells = [
            {"bytes": data, "path": None},
            {"bytes": None, "path": str(clip)},
            {"bytes": data, "path": "gone.mp4"},
        ]
        for source in [str(clip), data, io.BytesIO(data), *cells]:
            assert torch.equal(self.pixels(processor, source), expected)
        with clip.open("rb") as file:
            assert torch.equal(self.pixels(processor, file), expected)

    def test_every_form_of_decoded_frames_gives_the_same_clip(self, processor: Any) -> None:
        frames = moving_frames(processor.video_processor.num_frames)
        expected = self.pixels(processor, frames)
        tensor = torch.from_numpy(frames)
        forms = [
            tensor,
            tensor.permute(0, 3, 1, 2),
            frames.transpose(0, 3, 1, 2),
            list(frames),
            [Image.fromarray(frame) for frame in frames],
            [frames],
            frames[None],
        ]
        for form in forms:
            assert torch.equal(self.pixels(processor, form), expected)
        torch.testing.assert_close(self.pixels(processor, tensor.float() / 255), expected, rtol=0, atol=1e-4)

    def test_a_file_and_its_decoded_frames_give_the_same_clip_when_torch_resizes(
        self, processor: Any, clip: Path
    ) -> None:
        with VideoReader(clip) as reader:
            frames, fps = reader.frames(range(len(reader))), reader.info.fps
        from_file = self.pixels(processor, clip, resize_while_decoding=False)
        from_frames = self.pixels(
            processor, frames, video_metadata={"fps": fps, "total_num_frames": len(frames)}
        )
        assert torch.equal(from_file, from_frames)

    def test_letting_the_decoder_resize_changes_little(self, processor: Any, clip: Path) -> None:
        difference = self.pixels(processor, clip) - self.pixels(processor, clip, resize_while_decoding=False)
        assert difference.abs().mean() < 0.05

    def test_is_deterministic(self, processor: Any, clip: Path) -> None:
        assert torch.equal(self.pixels(processor, clip), self.pixels(processor, clip))

    def test_round_trip_through_a_folder_is_bitwise(self, processor: Any, clip: Path, tmp_path: Path) -> None:
        processor.save_pretrained(tmp_path)
        loaded = type(processor).from_pretrained(tmp_path)
        assert loaded.to_json_string() == processor.to_json_string()
        assert torch.equal(self.pixels(loaded, clip), self.pixels(processor, clip))
        loaded.save_pretrained(tmp_path / "again")
        for path in (tmp_path / "again").iterdir():
            assert path.read_bytes() == (tmp_path / path.name).read_bytes()

    def test_views_are_clips_times_crops_and_the_middle_one_is_the_single_view(
        self, processor: Any, clip: Path
    ) -> None:
        single = self.pixels(processor, clip)
        # A method's three crops may be of frames of another size than its single view.
        size = dict(getattr(processor, "video_processor", processor).size)
        crops = self.pixels(processor, clip, num_crops=3, size=size)
        assert crops.shape == (1, 3, *single.shape[1:])
        assert torch.equal(crops[:, 1], single)
        views = self.pixels(processor, clip, num_clips=3, num_crops=3, size=size)
        assert views.shape == (1, 9, *single.shape[1:])
        assert torch.equal(views[:, 3:6], crops)
        assert not torch.equal(views[:, :3], crops)

    def test_a_call_can_ask_for_another_number_of_frames_as_pipelines_do(
        self, processor: Any, clip: Path
    ) -> None:
        features = processor.video_processor(
            str(clip), num_frames=3, do_sample_frames=True, return_tensors="pt"
        )
        assert features["pixel_values_videos"].shape[1] == 3

    def test_short_clips_repeat_their_last_frame(self, processor: Any) -> None:
        length = processor.video_processor.num_frames
        pixels = self.pixels(processor, moving_frames(length - 2))
        assert pixels.shape[1] == length
        assert torch.equal(pixels[:, -1], pixels[:, -3])

    def test_numpy_and_torch_results_agree(self, processor: Any) -> None:
        frames = moving_frames(4)
        found = processor(videos=frames, return_tensors="np")["pixel_values_videos"]
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, self.pixels(processor, frames).numpy())

    @pytest.mark.parametrize(
        ("wrong", "names"),
        [
            (np.zeros((4, 20, 30, 4), np.uint8), "three channels"),
            (np.zeros((4, 20, 30, 1), np.uint8), "three channels"),
            (np.zeros((20, 30), np.uint8), "expected"),
            (np.zeros((0, 20, 30, 3), np.uint8), "expected"),
            (np.zeros((4, 3, 30, 3), np.uint8), "input_data_format"),
            (np.zeros((4, 20, 30, 3), np.int64), "int64"),
            (np.full((4, 20, 30, 3), np.nan, np.float32), "NaN"),
            (np.full((4, 20, 30, 3), np.inf, np.float32), "NaN or infinite"),
            (np.full((4, 20, 30, 3), 254.0, np.float32), r"\[0, 1\]"),
            (np.full((4, 20, 30, 3), -1.0, np.float32), r"\[0, 1\]"),
            ([], "empty"),
            (3.5, "float"),
            ([np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8)], "differ in shape"),
        ],
    )
    def test_says_what_is_wrong_with_an_input(self, processor: Any, wrong: Any, names: str) -> None:
        with pytest.raises(InputError, match=names):
            processor(videos=wrong)

    def test_a_named_layout_settles_an_ambiguous_shape(self, processor: Any) -> None:
        frames = np.random.default_rng(0).integers(0, 255, (4, 3, 40, 3), dtype=np.uint8)
        first = self.pixels(
            processor, frames, input_data_format="channels_last", size={"height": 40, "width": 40}
        )
        second = self.pixels(
            processor, frames, input_data_format="channels_first", size={"height": 40, "width": 40}
        )
        assert not torch.equal(first, second)

    @pytest.mark.parametrize(
        "settings",
        [
            {"num_frames": 0},
            {"num_frames": "three"},
            {"num_frames": 2.5},
            {"num_crops": 2},
            {"num_clips": -1},
            {"frame_stride": 0},
            {"sampling": "random"},
            {"fps": -3.0},
            {"resample": 77},
            {"crop_size": 4000},
            {"image_mean": [0.5, 0.5]},
            {"frames": 4},
        ],
    )
    def test_refuses_settings_that_cannot_work(self, processor: Any, settings: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=next(iter(settings))):
            self.pixels(processor, moving_frames(8), **settings)

    def test_a_file_that_is_no_video_is_a_decode_error(self, processor: Any, tmp_path: Path) -> None:
        path = tmp_path / "noise.mp4"
        path.write_bytes(os.urandom(5000))
        with pytest.raises(DecodeError):
            processor(videos=path)
        with pytest.raises(DecodeError):
            processor(videos=b"")
