"""The released size: an official file with foreign objects in it converts without a remainder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.test_tvts_conversion import Executed, official_file, official_state
from parity import reference_tvts as reference
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.conversion_tvts import convert
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining


@pytest.mark.slow
@torch.no_grad()
def test_full_size_weights_give_equal_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    state = official_state(TVTSForPreTraining(TVTSConfig()))
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.randn_like(tensor).abs())
    model = convert(official_file(tmp_path / "TVTS_yt_pt.pth", state, monkeypatch)).eval()
    assert not Executed.ran
    found = official_state(model)
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in found.items())

    clips, kept = (
        torch.randn(1, 4, 3, 224, 224).double(),
        torch.stack([torch.randperm(196)[:49] for _ in range(2)]),
    )
    tower = {
        key.removeprefix("video_model."): value.double()
        for key, value in state.items()
        if "video_model." in key
    }
    expected = reference.encode(clips, kept[None], tower, heads=12, depth=12)
    tokens, _ = model.double().tvts.video_model(clips, kept[None])
    torch.testing.assert_close(tokens, expected, atol=1e-9, rtol=1e-9)
