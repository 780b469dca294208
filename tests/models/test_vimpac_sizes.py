"""Sizes that the paper and the README state, on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import videossl_hf
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
