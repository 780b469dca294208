"""The published tables of parameters and of floating point operations, on tensors without storage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.tiny_videomoco import make_config, make_model
from videossl_hf.errors import ConfigurationError, InputError
from videossl_hf.models.videomoco.configuration_videomoco import VideoMoCoConfig, generator_map_side
from videossl_hf.models.videomoco.generator_videomoco import VideoMoCoGenerator
from videossl_hf.models.videomoco.modeling_videomoco import VideoMoCoForPreTraining, VideoMoCoModel


def build(**overrides: Any) -> VideoMoCoForPreTraining:
    with torch.device("meta"):
        return VideoMoCoForPreTraining(VideoMoCoConfig(**overrides)).eval()


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def giga_flops(module: nn.Module, *shape: int) -> float:
    device = next(module.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(shape, device=device))
    return counter.get_total_flops() / 1e9


# Published for the networks with a last layer of 512 to 128; MC3's follows from torchvision's 11,695,440 with
# 400 classes.
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"arch": "r3d_18"}, 33_231_936),
        ({"arch": "r2plus1d_18"}, 31_365_789),
        ({"arch": "mc3_18"}, 11_695_440 - 272 * 513),
        ({"arch": "r3d_18", "mlp": True}, 33_494_592),
        ({"arch": "r2plus1d_18", "mlp": True}, 31_628_445),
    ],
    ids=str,
)
def test_encoders_have_the_published_number_of_parameters(overrides: dict[str, Any], expected: int) -> None:
    model = build(**overrides)
    assert count(model.videomoco, model.projection) == expected
    assert count(model.key_encoder, model.key_projection) == expected
    assert count(model) == 2 * expected + 558_560


@pytest.mark.parametrize(
    ("arch", "stem", "stages"),
    [
        ("r3d_18", 28_352, [442_880, 1_557_760, 6_228_480, 24_908_800]),
        ("r2plus1d_18", 15_473, [444_032, 1_470_360, 5_874_736, 23_495_524]),
    ],
)
def test_stages_have_the_published_number_of_parameters(arch: str, stem: int, stages: list[int]) -> None:
    backbone = build(arch=arch).videomoco.encoder.backbone
    assert count(backbone.stem) == stem
    assert [count(stage) for stage in backbone.stages] == stages


def test_generator_has_the_published_sizes() -> None:
    generator = build().generator
    assert count(generator) == 558_560
    assert len(generator.state_dict()) == 42
    assert count(generator.lstm) == 120_320
    assert count(generator.stem_conv, generator.stem_norm) == 83_136
    assert count(generator.fuse_conv) == 46_176
    generator = VideoMoCoGenerator(VideoMoCoConfig()).eval()
    assert giga_flops(generator, 1, 32, 3, 112, 112) == pytest.approx(14.37, abs=0.006)


@pytest.mark.parametrize(
    ("arch", "frames", "size", "expected"),
    [("r3d_18", 32, 112, 162.8), ("r3d_18", 16, 112, 81.4), ("r3d_18", 32, 224, 651.1),
     ("r3d_18", 8, 56, 10.4), ("r2plus1d_18", 32, 112, 162.1), ("r2plus1d_18", 16, 112, 81.0),
     ("r2plus1d_18", 32, 224, 648.3), ("r2plus1d_18", 8, 56, 10.3)],
)  # fmt: skip
def test_networks_cost_the_published_operations(arch: str, frames: int, size: int, expected: float) -> None:
    backbone = build(arch=arch).videomoco.encoder.backbone
    assert giga_flops(backbone, 1, 3, frames, size, size) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("arch", "frames"), [("r3d_18", 4), ("r2plus1d_18", 4), ("mc3_18", 32)])
def test_maps_have_the_published_shapes(arch: str, frames: int) -> None:
    with torch.device("meta"):
        model = VideoMoCoModel(VideoMoCoConfig(arch=arch)).eval()
        output = model(torch.empty(1, 32, 3, 112, 112), output_hidden_states=True)
    assert output.pooler_output.shape == (1, 512)
    assert output.last_hidden_state.shape == (1, frames * 7 * 7, 512)
    assert output.hidden_states[0].shape == (1, 64, 32, 56, 56)
    assert output.hidden_states[-1].shape == (1, 512, frames, 7, 7)


@pytest.mark.parametrize("arch", ["r3d_18", "r2plus1d_18", "mc3_18"])
def test_any_width_depth_and_clip_size_works(arch: str) -> None:
    model = VideoMoCoModel(make_config(arch=arch, widths=[4, 10, 6], depths=[1, 3, 2])).eval()
    assert model(torch.randn(2, 5, 3, 23, 41)).pooler_output.shape == (2, 6)
    assert model(torch.randn(1, 1, 3, 16, 16)).pooler_output.shape == (1, 6)


def test_the_generator_takes_the_sizes_of_the_official_one() -> None:
    assert {size for size in range(11, 300) if generator_map_side(size) == 13} == set(range(107, 115))
    generator = build().generator
    generator.check_size(32, 107, 114)
    for frames, height, width in ((16, 112, 112), (32, 106, 112), (32, 112, 115), (32, 56, 56), (32, 3, 3)):
        with pytest.raises(InputError, match="107 to 114"):
            generator.check_size(frames, height, width)


def test_clips_that_the_generator_does_not_fit_are_refused() -> None:
    model = make_model()
    for shape in ((2, 4, 3, 32, 32), (2, 8, 3, 48, 48)):
        with pytest.raises(InputError, match="does not fit clips of"):
            model(torch.randn(shape), torch.randn(shape))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 10},
        {"generator_features": 168},
        {"num_dropped_frames": 32},
        {"drop_ratio": 1.0},
    ],
    ids=str,
)
def test_generators_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        build(**wrong)
    build(**wrong, dropped_frames="none")


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": [64, 128]},
        {"depths": []},
        {"arch": "resnet50"},
        {"queue_size": 0},
        {"momentum": 1.1},
        {"temperature": 0.0},
        {"temporal_decay": 0.0},
        {"temporal_decay": 1.01},
        {"temporal_decay": "slow"},
        {"temporal_decay": "adversarial", "dropped_frames": "random"},
        {"decay_mode": "linear"},
        {"dropped_frames": "all"},
        {"drop_ratio": 0.0},
        {"generator_hidden": 7},
        {"key_batch_splits": 0},
        {"num_frames": "many"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        VideoMoCoConfig(**wrong)


def test_presets_are_the_published_variants() -> None:
    assert (VideoMoCoConfig.moco().dropped_frames, VideoMoCoConfig.moco().temporal_decay) == ("none", 1.0)
    assert VideoMoCoConfig.plus(queue_size=8).temporal_decay == "adversarial"
    assert [VideoMoCoConfig().dropped_frame_count(frames) for frames in (32, 16, 2)] == [8, 4, 1]
    assert VideoMoCoConfig(num_dropped_frames=3).dropped_frame_count(32) == 3
