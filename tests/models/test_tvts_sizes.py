"""The spec's table of parameters and of floating point operations, on tensors without storage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining, TVTSForVideoClassification
from videossl_hf.models.tvts.text_encoding_tvts import encode_texts

PATCHES = 3.70
"""10^9 operations of embedding all patches of 16 frames."""


@cache
def model(is_v2: bool = False) -> TVTSForPreTraining:
    with torch.device("meta"):
        built = TVTSForPreTraining(TVTSConfig.v2() if is_v2 else TVTSConfig()).eval()
    built.set_attn_implementation("eager")
    return built


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def giga_flops(function: Callable[..., Any], *arguments: torch.Tensor) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops() / 1e9


def clip(frames: int) -> torch.Tensor:
    return torch.empty(1, frames, 3, 224, 224, device="meta")


def kept(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64, device="meta")


def test_the_whole_model_and_its_parts_have_the_published_number_of_parameters() -> None:
    built = model()
    assert count(built) == 167_333_124
    assert count(built.tvts.video_model) == 86_394_624
    assert count(built.tvts.text_model) == 66_362_880
    assert count(built.tvts.video_projection) == count(built.tvts.text_projection) == 196_864
    assert count(built.sorting_head) == 14_181_892


def test_the_second_version_has_the_published_number_of_parameters() -> None:
    assert count(model(True).tvts.video_model) == 114_568_704
    assert count(model(True).sorting_head) == 6_308_868
    with torch.device("meta"):
        coarse = TVTSForPreTraining(TVTSConfig.v2("base_patch32"))
        huge = TVTSForPreTraining(TVTSConfig.v2("huge_patch14"))
    assert count(coarse.tvts.video_model) == 116_225_280
    assert round(count(huge.tvts.text_model) / 1e6) == 354
    attention_over_time = sum(
        count(part)
        for layer in huge.tvts.video_model.layers
        for part in (layer.temporal_attention, layer.temporal_norm)
    )
    assert round((count(huge.tvts.video_model) - attention_over_time) / 1e6) == 632
    assert huge.config.num_kept == 76


def test_the_classifier_of_something_something_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        classifier = TVTSForVideoClassification(TVTSConfig(num_labels=174)).classifier
    assert count(classifier) == 133_806


@pytest.mark.parametrize(("frames", "expected"), [(16, 360.97), (4, 73.38), (2, 35.36)])
def test_the_video_tower_costs_the_published_operations(frames: int, expected: float) -> None:
    assert giga_flops(model().tvts.video_model, clip(frames)) == pytest.approx(expected, abs=0.006)


def test_dropped_patches_are_not_even_embedded() -> None:
    found = giga_flops(model().tvts.video_model, clip(16), kept(1, 8, 49))
    assert found == pytest.approx(76.15 - 0.75 * PATCHES, abs=0.006)


def test_the_text_tower_costs_the_published_operations() -> None:
    assert giga_flops(model().tvts.text_model, kept(4, 50)) == pytest.approx(17.17, abs=0.006)


def test_pre_training_saves_what_the_last_text_block_would_do_for_other_tokens_than_the_first() -> None:
    width, tokens, others = 768, 50, 4 * 49
    # Queries, output projection and perceptron of all tokens but the first, and their attention.
    saved = 2 * others * (2 * width**2 + 8 * width**2 + 2 * tokens * width) / 1e9
    found = giga_flops(lambda ids: encode_texts(model().tvts.text_model, ids, None, False), kept(4, 50))
    assert found == pytest.approx(17.17 - saved, abs=0.006)


def test_the_sorting_head_saves_what_its_last_layer_would_do_for_the_video() -> None:
    video, scripts = torch.empty(1, 393, 768, device="meta"), torch.empty(1, 4, 768, device="meta")
    width, tokens, video_tokens = 768, 397, 393
    # Queries, output projection and perceptron (of four times the width) of the video's tokens, and their
    # attention.
    saved = 2 * video_tokens * (2 * width**2 + 8 * width**2 + 2 * tokens * width) / 1e9
    assert giga_flops(model().sorting_head, video, scripts) == pytest.approx(12.21 - saved, abs=0.006)


def test_the_second_version_costs_the_published_operations() -> None:
    tower = model(True).tvts.video_model
    assert giga_flops(tower, clip(12)) == pytest.approx(555.9, abs=0.06)
    # The official code embeds all 196 patches of a frame before half of them are dropped.
    embedding = 2 * 12 * 98 * 3 * 16 * 16 * 768 / 1e9
    assert giga_flops(tower, clip(12), kept(1, 98)) == pytest.approx(275.2 - embedding, abs=0.06)
