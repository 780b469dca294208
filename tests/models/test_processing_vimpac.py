"""VIMPAC's processor: pixels to codes where it has a tokeniser; stored codes pass through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from common.media import make_clip, moving_frames
from common.processor_checks import ProcessorChecks
from models import tiny_vimpac
from videossl_hf.errors import CheckpointError, ConfigurationError, InputError
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor, VIMPACVideoProcessor

PAD = tiny_vimpac.CODES + 1


class TestVIMPACProcessor(ProcessorChecks):
    def make_processor(self) -> VIMPACProcessor:
        return VIMPACProcessor.from_config(tiny_vimpac.make_config())


@pytest.fixture
def processor() -> VIMPACProcessor:
    return tiny_vimpac.make_processor()


def test_pixels_lie_where_the_tokeniser_expects_them() -> None:
    black_and_white = np.zeros((5, 128, 128, 3), np.uint8)
    black_and_white[:, :, 64:] = 255
    pixels = VIMPACVideoProcessor()(black_and_white)["pixel_values_videos"]
    assert pixels.shape == (1, 5, 3, 128, 128)
    torch.testing.assert_close(pixels[..., :64], torch.full((1, 5, 3, 128, 64), 0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels[..., 64:], torch.full((1, 5, 3, 128, 64), 0.9), atol=1e-6, rtol=0)


def test_a_tokeniser_turns_videos_into_codes(processor: VIMPACProcessor, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    codes = processor(clip)["input_codes"]
    assert codes.shape == (1, *tiny_vimpac.make_config().grid)
    assert codes.dtype == torch.int64
    without = VIMPACProcessor.from_config(tiny_vimpac.make_config())
    pixels = without(clip)["pixel_values_videos"]
    assert torch.equal(codes, tiny_vimpac.make_tokenizer().encode(pixels))
    views = processor(clip, num_clips=3, num_crops=3)["input_codes"]
    assert views.shape == (1, 9, *codes.shape[1:])
    assert torch.equal(views[:, 4], codes)


def test_short_videos_are_padded_with_whole_frames(processor: VIMPACProcessor) -> None:
    codes = processor(moving_frames(3))["input_codes"]
    assert (codes[:, 3:] == PAD).all()
    assert (codes[:, :3] < tiny_vimpac.CODES).all()
    features = VIMPACProcessor.from_config(tiny_vimpac.make_config())(moving_frames(3), num_crops=3)
    assert features["frame_mask"].tolist() == [[[True] * 3 + [False] * 2] * 3]
    assert processor(moving_frames(5))["input_codes"].max() < tiny_vimpac.CODES


def test_a_slow_video_that_repeats_frames_is_not_short() -> None:
    processor = VIMPACProcessor.from_config(tiny_vimpac.make_config())
    features = processor(moving_frames(3), video_metadata={"fps": 6.0, "total_num_frames": 3})
    assert features["frame_mask"].all()


def test_the_tokeniser_travels_with_the_processor(processor: VIMPACProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "both")
    processor.video_processor.save_pretrained(tmp_path / "video")
    frames = moving_frames(5)
    expected = processor(frames)["input_codes"]
    for loaded in (
        VIMPACProcessor.from_pretrained(tmp_path / "both"),
        VIMPACVideoProcessor.from_pretrained(tmp_path / "video"),
    ):
        assert torch.equal(loaded(frames)["input_codes"], expected)
        assert not any(parameter.requires_grad for parameter in loaded.tokenizer_model.parameters())
    assert "dvae" not in (tmp_path / "both" / "processor_config.json").read_text().lower()
    processor.save_pretrained(tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / "both" / path.name).read_bytes()


def test_another_tokeniser_can_be_given_when_loading(processor: VIMPACProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    other = tiny_vimpac.make_tokenizer(hidden_size=12)
    loaded = VIMPACProcessor.from_pretrained(tmp_path, tokenizer_model=other)
    assert loaded.tokenizer_model is other
    other.save_pretrained(tmp_path / "other")
    named = VIMPACProcessor.from_config(tiny_vimpac.make_config(), str(tmp_path / "other"))
    assert torch.equal(named(moving_frames(5))["input_codes"], loaded(moving_frames(5))["input_codes"])


def test_a_damaged_tokeniser_is_an_error(processor: VIMPACProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    file = tmp_path / "dvae.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="damaged"):
        VIMPACProcessor.from_pretrained(tmp_path)


def test_a_tokeniser_with_other_codes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="30 codes"):
        VIMPACProcessor.from_config(tiny_vimpac.make_config(), tiny_vimpac.make_tokenizer(vocab_size=30))


def stored(frames: int) -> np.ndarray:
    """(frames, 4, 4) int16, each frame filled with its number."""
    return np.broadcast_to(np.arange(frames, dtype=np.int16)[:, None, None], (frames, 4, 4))


def test_stored_codes_pass_through(processor: VIMPACProcessor) -> None:
    assert processor(codes=stored(20))["input_codes"][0, :, 0, 0].tolist() == [0, 1, 2, 3, 4]
    faster = processor(codes=stored(20), codes_fps=36.0, num_clips=2)["input_codes"]
    assert faster[0, :, :, 0, 0].tolist() == [[0, 3, 6, 9, 12], [7, 10, 13, 16, 19]]
    short = processor(codes=torch.from_numpy(stored(3).copy()))["input_codes"]
    assert short[0, :, 0, 0].tolist() == [0, 1, 2, PAD, PAD]
    assert processor(codes=[stored(20), stored(9)])["input_codes"].shape == (2, 5, 4, 4)
    found = processor(codes=stored(20), return_tensors="np")["input_codes"]
    assert isinstance(found, np.ndarray)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (np.zeros((4, 4), np.int16), "shape"),
        (np.zeros((4, 4, 4), np.float32), "float32"),
        (np.zeros((0, 4, 4), np.int16), "shape"),
        (np.full((4, 4, 4), tiny_vimpac.CODES), "another"),
        (np.full((4, 4, 4), -1), "another"),
        ([np.zeros((4, 4, 4), np.int16), np.zeros((4, 4, 5), np.int16)], "grids"),
    ],
)
def test_codes_that_do_not_fit_are_refused(processor: VIMPACProcessor, wrong: Any, names: str) -> None:
    with pytest.raises(InputError, match=names):
        processor(codes=wrong)


def test_it_takes_videos_or_codes_but_not_both(processor: VIMPACProcessor) -> None:
    for arguments in ({}, {"videos": moving_frames(5), "codes": stored(5)}):
        with pytest.raises(InputError, match="either"):
            processor(**arguments)


def test_a_saved_folder_turns_pixels_into_features_without_further_ado(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config, tokenizer = tiny_vimpac.make_config(), tiny_vimpac.make_tokenizer()
    VIMPACForPreTraining(config).save_pretrained(tmp_path)
    VIMPACProcessor.from_config(config, tokenizer).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert model.tokenizer_model is None  # not read before it is needed
    pixels = VIMPACProcessor.from_pretrained(tmp_path).video_processor.pixels(moving_frames(5, 32, 32))
    with torch.no_grad():
        features = model(pixel_values_videos=pixels).pooler_output
        assert torch.equal(features, model(tokenizer.encode(pixels)).pooler_output)
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(features, again(pixel_values_videos=pixels).pooler_output)
    assert tokenizer.fingerprint() == again.tokenizer_model.fingerprint()
