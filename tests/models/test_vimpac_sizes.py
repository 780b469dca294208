"""Sizes that the paper and the README state, on the meta device."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import videossl_hf
from videossl_hf.hub.description import describe_config
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining, VIMPACModel

SIZES = {
    "small": (VIMPACConfig.small(), 29_442_048, 31_292_933),
    "base": (VIMPACConfig.base(), 119_748_096, 141_344_517),
    "large-half": (VIMPACConfig.large_half(), 210_106_368, 233_210_885),
    "large": (VIMPACConfig.large_half(halve_att=False, halve_mlp=False), 411_555_840, None),
    "T,H,W": (VIMPACConfig(layout="T,H,W"), 35_751_936, None),
    "T": (VIMPACConfig(layout="T"), 23_132_160, None),
    "T,H": (VIMPACConfig(layout="T,H"), 29_442_048, None),
}


# Frames and frame size of a clip, and its GFLOP in the official code: without and with both heads, on all
# places.
OFFICIAL_GFLOP = [
    ("small", 5, 128, 68.0, 79.4),
    ("small", 10, 128, 133.8, 156.6),
    ("small", 5, 256, 271.5, 317.2),
    ("small", 10, 256, 533.9, 625.2),
    ("base", 5, 128, 305.5, 323.2),
    ("base", 10, 128, 600.5, 635.8),
    ("base", 5, 256, 1217.8, 1288.4),
    ("base", 10, 256, 2393.9, 2535.0),
    ("large-half", 5, 128, 542.6, 566.8),
    ("large-half", 10, 128, 1066.2, 1114.6),
    ("large-half", 5, 256, 2161.6, 2258.3),
    ("large-half", 10, 256, 4248.1, 4441.5),
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_has_the_published_number_of_parameters(name: str) -> None:
    config, backbone, whole = SIZES[name]
    with torch.device("meta"):
        assert count(VIMPACModel(config)) == backbone
        if whole is not None:
            assert count(VIMPACForPreTraining(config)) == whole


def test_parts_have_the_published_sizes() -> None:
    with torch.device("meta"):
        model = VIMPACForPreTraining(VIMPACConfig())
        joint = VIMPACModel(VIMPACConfig(positions="joint"))
    assert count(model.vimpac.embeddings.positions) == 19_456
    assert count(joint.embeddings.positions) == 655_872
    assert count(model.vimpac.layers[0]) == 4_204_032
    assert count(model.token_head) == 271_877
    assert count(model.projection) == 1_579_008


def test_the_readme_states_these_numbers() -> None:
    text = (Path(videossl_hf.__file__).parent / "models/vimpac/README.md").read_text()
    for name in ("small", "base", "large-half"):
        assert f"{SIZES[name][1]:,}" in text


def changed(name: str, **settings: int) -> VIMPACConfig:
    return VIMPACConfig(**SIZES[name][0].to_dict() | settings)


def gflop(config: VIMPACConfig, project_cls_in_every_row: bool) -> float:
    """Matrix products of the transformer for one clip, two FLOP a multiply-add.

    CLS is a token of every row: the official code projects it to queries, keys and values in each of them,
    ours once.
    """
    width, inner, hidden = config.hidden_size, config.attention_size, config.intermediate_size
    places = math.prod(config.grid)
    total = 2 * (places + 1) * 2 * width * hidden  # MLP
    for axes in config.steps:
        total += 2 * (places + 1) * inner * width  # mixture of the axes
        for axis in axes:
            length, size = config.grid["THW".index(axis)], inner // len(axes)
            rows = places // length
            projected = rows * (length + 1) if project_cls_in_every_row else places + 1
            total += 2 * projected * width * 3 * size
            total += 2 * 2 * rows * (length + 1) ** 2 * size  # scores, and the mixture of values
    return config.num_hidden_layers * total / 1e9


def head_gflop(config: VIMPACConfig) -> float:
    """Both heads, the token head on all places."""
    width, vocabulary = config.hidden_size, config.vocab_size or 0
    widths = [width, *[config.projection_hidden] * (config.projection_layers - 1), config.projection_dim]
    projection = sum(a * b for a, b in itertools.pairwise(widths))
    return 2 * (math.prod(config.grid) * width * (width + vocabulary) + projection) / 1e9


@pytest.mark.parametrize(("name", "frames", "size", "backbone", "whole"), OFFICIAL_GFLOP)
def test_the_formula_gives_what_was_counted_of_the_official_code(
    name: str, frames: int, size: int, backbone: float, whole: float
) -> None:
    config = changed(name, num_frames=frames, image_size=size)
    assert gflop(config, True) == pytest.approx(backbone, abs=0.051)
    assert gflop(config, True) + head_gflop(config) == pytest.approx(whole, abs=0.051)


@pytest.mark.parametrize(("name", "frames", "size"), [("small", 5, 128), ("large-half", 10, 256)])
def test_ours_takes_what_the_formula_says_with_cls_projected_once(name: str, frames: int, size: int) -> None:
    config = changed(name, num_frames=frames, image_size=size, num_hidden_layers=2)
    assert describe_config(config).gflop == pytest.approx(gflop(config, False), rel=1e-9)
    assert gflop(config, False) < gflop(config, True)


def test_the_readme_states_the_work_of_a_clip() -> None:
    text = (Path(videossl_hf.__file__).parent / "models/vimpac/README.md").read_text()
    for name in ("small", "base", "large-half"):
        config = SIZES[name][0]
        assert f"| {gflop(config, True):.1f} | {gflop(config, False):.1f} |" in text
