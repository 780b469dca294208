"""The spec's tables of parameters and of floating point operations, on tensors without storage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videossl_hf.errors import ConfigurationError
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining
from videossl_hf.models.stica.pooling_stica import STiCAPooling


def build(**overrides: Any) -> STiCAForPreTraining:
    with torch.device("meta"):
        return STiCAForPreTraining(STiCAConfig(**overrides)).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def giga_flops(module: nn.Module, *shape: int) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, 42_242_781),
        ({"pooling_layers": 0}, 36_988_637),
        ({"objective": "gdt"}, 36_988_637),
        ({"pooling_full_qkv": True, "pooling_position": True}, 42_242_781 - 5_254_144 + 6_337_536),
        ({"backbone": "r2plus1d_34"}, 42_242_781 - 31_300_125 + 61_626_461),
    ],
    ids=["stica", "average", "gdt", "full attention", "34 layers"],
)
def test_models_have_the_published_number_of_parameters(overrides: dict[str, Any], expected: int) -> None:
    assert count(build(**overrides)) == expected


def test_parts_have_the_published_number_of_parameters() -> None:
    model = build()
    backbone = model.stica.video_model.backbone
    assert count(backbone.stem) == 15_473
    assert [count(stage) for stage in backbone.stages] == [444_032, 1_470_360, 5_874_736, 23_495_524]
    assert count(model.stica.audio_model) == 4_899_520
    assert [count(layer) for layer in model.stica.video_model.pooling.layers] == [2_627_072] * 2
    assert [count(head) for head in (model.video_projection, model.audio_projection)] == [394_496] * 2


@pytest.mark.parametrize(
    ("frames", "size", "expected"),
    [(30, 112, 153.6), (60, 112, 304.9), (32, 112, 162.1), (32, 128, 211.7), (16, 112, 81.0), (30, 96, 112.9),
     (30, 64, 50.2), (30, 128, 200.7)],
)  # fmt: skip
def test_video_network_costs_the_published_operations(frames: int, size: int, expected: float) -> None:
    backbone = build().stica.video_model.backbone
    assert giga_flops(backbone, 1, 3, frames, size, size) == pytest.approx(expected, abs=0.06)


def test_stages_cost_the_published_operations() -> None:
    backbone = build().stica.video_model.backbone
    shapes = [(64, 30, 56, 56), (64, 30, 56, 56), (128, 15, 28, 28), (256, 8, 14, 14)]
    assert giga_flops(backbone.stem, 1, 3, 30, 112, 112) == pytest.approx(2.9, abs=0.06)
    for stage, shape, expected in zip(backbone.stages, shapes, (83.2, 37.6, 19.9, 10.0), strict=True):
        assert giga_flops(stage, 1, *shape) == pytest.approx(expected, abs=0.06)


def test_the_34_layer_network_costs_the_published_operations() -> None:
    backbone = build(backbone="r2plus1d_34").stica.video_model.backbone
    assert giga_flops(backbone, 1, 3, 30, 112, 112) == pytest.approx(286.8, abs=0.06)


@pytest.mark.parametrize(
    ("mels", "steps", "expected"), [(257, 99, 0.959), (257, 199, 1.807), (40, 99, 0.170)]
)
def test_sound_network_costs_the_published_operations(mels: int, steps: int, expected: float) -> None:
    assert giga_flops(build().stica.audio_model, 1, 1, mels, steps) == pytest.approx(expected, abs=0.0006)


@pytest.mark.parametrize(("tokens", "expected"), [(4, 0.042), (8, 0.084)])
def test_pooling_costs_the_published_operations(tokens: int, expected: float) -> None:
    with torch.device("meta"):
        config = STiCAConfig(pooling_tokens=tokens)
        config._attn_implementation = "eager"
        pooling = STiCAPooling(config).eval()
    assert giga_flops(pooling, 1, 512, 4, 7, 7) == pytest.approx(expected, abs=0.0006)


def test_gdt_preset_is_the_published_baseline() -> None:
    config = STiCAConfig.gdt()
    assert (config.objective, config.num_frames, config.num_mel_bins, config.pooling_layers) == (
        "gdt",
        30,
        40,
        0,
    )
    assert STiCAConfig.gdt(num_frames=8).num_frames == 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"video_widths": [64, 128]},
        {"audio_depths": []},
        {"pooling_heads": 3},
        {"pooling_layers": 10**9},
        {"video_stem_width": 0},
        {"temperature_cross": 0.0},
        {"space_large_crops": 3},
        {"space_small_fraction": 1.5},
        {"alpha": float("nan")},
        {"projection_dropout": -0.1},
        {"objective": "moco"},
        {"backbone": "os.system"},
        {"num_frames": "many"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        STiCAConfig(**wrong)
