"""The released sizes: both official layouts convert without a remainder, and B/16 trains in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videossl_hf import ILAConfig, ILAForVideoClassification
from videossl_hf.models.ila.conversion_ila import infer_config, load_official, official_state_dict


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("branch", ["k400", "ssv2"])
def test_full_size_weights_give_equal_outputs(branch: str) -> None:
    torch.manual_seed(0)
    model = ILAForVideoClassification(ILAConfig.from_preset(f"ila-base-patch32-8f-{branch}")).eval()
    if branch == "k400":
        tokens = F.pad(torch.randint(1, 49405, (400, 6)), (0, 1), value=49407).tolist()
        model.config.label_tokens = dict(zip(model.config.id2label.values(), tokens, strict=True))
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.randn_like(tensor).abs())
    state = copy.deepcopy(official_state_dict(model))

    loaded = load_official(state, infer_config(state))
    loaded.config.id2label, loaded.config.label_tokens = model.config.id2label, model.config.label_tokens
    videos = torch.randn(1, 8, 3, 224, 224)
    expected = model(videos).logits
    assert expected.isfinite().all()
    assert expected.std() > 0
    assert torch.equal(loaded(videos).logits, expected)
    assert all(torch.equal(value, state[key]) for key, value in official_state_dict(loaded).items())


@pytest.mark.slow
def test_the_full_size_trains_in_bfloat16_as_in_float32() -> None:
    torch.manual_seed(0)
    model = ILAForVideoClassification(
        ILAConfig.from_preset("ila-base-patch16-8f-k400", head="linear")
    ).train()
    with torch.no_grad():
        for parameter in model.parameters():  # nothing is zero, so that every part has a gradient
            parameter.add_(0.01 * torch.randn_like(parameter))
    videos, labels = torch.randn(2, 8, 3, 224, 224), torch.tensor([3, 7])

    def step(autocast: bool) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(1)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(videos, labels=labels).loss
        loss.backward()
        gradients = {n: p.grad.flatten() for n, p in model.named_parameters() if p.grad is not None}
        return loss.detach(), gradients

    expected, exact = step(autocast=False)
    found, rounded = step(autocast=True)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
    assert rounded.keys() == exact.keys()
    # A bias before a BatchNorm has no gradient but noise.
    weights = [name for name in exact if name.endswith("weight")]
    alike = {name: F.cosine_similarity(exact[name], rounded[name], dim=0) for name in weights}
    assert len(alike) > 150
    assert min(alike.values()) > 0.9, {name: value for name, value in alike.items() if value <= 0.9}
