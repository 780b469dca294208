"""Parameters and multiply-adds of the published sizes, on tensors without memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from videossl_hf import ILAConfig, ILAForVideoClassification, ILAModel

# preset: parameters in millions (with 400 classes), multiply-adds of a clip in thousand millions
PUBLISHED = {
    "ila-base-patch32-8f-k400": (201.60, 50.1),
    "ila-base-patch16-8f-k400": (199.94, 199.3),
    "ila-large-patch14-336-16f-k400": (568.08, 4103.2),
    "ila-base-patch16-8f-ssv2": (167.55, 250.2),
}


def multiply_adds(config: ILAConfig) -> float:
    """Of the video encoder for one clip, in thousand millions."""
    side = config.image_size
    with torch.device("meta"), torch.no_grad():
        model = ILAModel(config).eval()
        model.set_attn_implementation("eager")  # fused attention is not counted
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, config.num_frames, 3, side, side))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_cost_are_those_of_the_official_code(name: str) -> None:
    parameters, cost = PUBLISHED[name]
    config = ILAConfig.from_preset(name, num_labels=400)
    with torch.device("meta"):
        model = ILAForVideoClassification(config)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert multiply_adds(config) == pytest.approx(cost, abs=0.06)


def test_the_token_of_the_paper_costs_less_than_what_the_released_code_adds() -> None:
    config = ILAConfig.from_preset("ila-base-patch16-8f-k400", token_mode="concat")
    assert multiply_adds(config) == pytest.approx(174.5, abs=0.06)
