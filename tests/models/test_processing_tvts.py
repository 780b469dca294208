from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.media import moving_frames
from common.processor_checks import ProcessorChecks
from models import tiny_tvts
from videossl_hf.errors import ConfigurationError, InputError
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.processing_tvts import TVTSProcessor


class TestTVTSProcessor(ProcessorChecks):
    def make_processor(self) -> TVTSProcessor:
        return tiny_tvts.make_processor()

    def test_scripts_of_a_clip_come_as_one_block_padded_to_the_longest(self, processor: Any) -> None:
        features = processor(text=[["it moves", "it"], ["now it moves left", "grows"]])
        assert features["input_ids"].shape == features["attention_mask"].shape == (2, 2, 6)
        assert features["attention_mask"].sum(-1).tolist() == [[4, 3], [6, 3]]
        assert torch.equal(features["input_ids"][1, 0], processor(text="now it moves left")["input_ids"][0])

    def test_long_texts_are_cut_and_empty_ones_are_two_tokens(self, processor: Any) -> None:
        features = processor(text=["it " * 50, ""])
        assert features["input_ids"].shape == (2, 12)
        assert features["input_ids"][0, -1] == 3
        assert features["attention_mask"][1].sum() == 2

    @pytest.mark.parametrize("text", [[], [[]], [["a"], ["a", "b"]], [["a"], "b"], [3]])
    def test_says_what_is_wrong_with_a_text(self, processor: Any, text: Any) -> None:
        with pytest.raises(InputError, match="text"):
            processor(text=text)

    def test_videos_and_texts_go_together_and_neither_is_an_error(self, processor: Any) -> None:
        features = processor(videos=moving_frames(8), text="it moves")
        assert {name: len(value) for name, value in features.items()} == {
            "pixel_values_videos": 1,
            "input_ids": 1,
            "attention_mask": 1,
        }
        with pytest.raises(InputError, match="give videos"):
            processor()

    def test_without_a_tokenizer_it_takes_videos_alone_and_is_saved_so(
        self, processor: Any, tmp_path: Path
    ) -> None:
        alone = TVTSProcessor.from_config(tiny_tvts.make_config())
        with pytest.raises(InputError, match="no tokenizer"):
            alone(text="it moves")
        alone.save_pretrained(tmp_path)
        loaded = TVTSProcessor.from_pretrained(tmp_path)
        assert loaded.tokenizer is None
        frames = moving_frames(8)
        assert torch.equal(self.pixels(loaded, frames), self.pixels(processor, frames))

    def test_a_tokenizer_comes_from_its_folder(self, processor: Any, tmp_path: Path) -> None:
        tiny_tvts.make_tokenizer().save_pretrained(tmp_path)
        loaded = TVTSProcessor.from_config(tiny_tvts.make_config(max_text_length=5), tmp_path)
        assert processor(text="it moves left now")["input_ids"].shape == (1, 6)
        assert loaded(text="it moves left now")["input_ids"].shape == (1, 5)
        with pytest.raises(ConfigurationError, match="cannot load a tokenizer"):
            TVTSProcessor.from_config(tiny_tvts.make_config(), tmp_path / "absent")
        with pytest.raises(ConfigurationError, match="nonsense"):
            TVTSProcessor.from_config(tiny_tvts.make_config(), nonsense=3)


def test_one_clip_takes_the_middle_of_each_part_and_two_take_starts_and_middles_in_turn() -> None:
    processor = TVTSProcessor.from_config(TVTSConfig()).video_processor
    assert processor.clip_indices(160)[0].tolist() == list(range(4, 160, 10))
    starts, middles = processor.clip_indices(160, num_clips=2)
    assert starts.tolist() == list(range(0, 160, 10))
    assert middles.tolist() == list(range(5, 160, 10))


def test_the_second_version_spreads_frames_from_end_to_end_and_gives_up_the_aspect() -> None:
    processor = TVTSProcessor.from_config(TVTSConfig.v2())
    indices = processor.video_processor.clip_indices(111)[0]
    np.testing.assert_array_equal(indices, np.linspace(0, 110, 12).astype(int))
    pixels = processor(moving_frames(12, 40, 90))["pixel_values_videos"]
    assert pixels.shape == (1, 12, 3, 224, 224)
