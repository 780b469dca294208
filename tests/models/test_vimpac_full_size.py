"""The released sizes: weights in the official layout convert without a remainder and give equal outputs."""

from __future__ import annotations

import pytest
import torch

from parity import reference_vimpac as reference
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.conversion_vimpac import load_official, official_state_dict
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large_half"])
def test_full_size_weights_give_equal_outputs(size: str) -> None:
    torch.manual_seed(0)
    config = getattr(VIMPACConfig, size)()
    state = official_state_dict(VIMPACForPreTraining(config))
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.randn_like(tensor).abs())
    # What is stored twice has to stay equal.
    state["mlm_head.decoder.weight"] = state["backbone.embedding.weight"]
    state["mlm_head.decoder.bias"] = state["mlm_head.bias"]
    model = load_official(state)
    assert model.config.to_dict() == config.to_dict()

    codes = torch.randint(8192, (1, *config.grid))
    codes[:, 4:] = config.pad_code
    case = {
        "pre": False,
        "pos": "hw_separation",
        "layout": config.layout,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "nce_layers": config.projection_layers,
        "bn_after": False,
    }
    with torch.no_grad():
        expected = reference.backbone(state, case, codes, config.pad_code)
        output = model.vimpac(codes)
        tokens = output.last_hidden_state.view(*codes.shape, -1)
        close = {"atol": 1e-4, "rtol": 1e-4}  # 24 blocks in float32
        torch.testing.assert_close(output.cls_hidden_state, expected["cls"], **close)
        torch.testing.assert_close(tokens[:, :4], expected["hiddens"][:, :4], **close)
        logits = reference.token_logits(state, expected["hiddens"][0, 0, 0])
        torch.testing.assert_close(model.token_logits(codes)[0, 0, 0], logits, atol=1e-4, rtol=1e-4)
        embeds = reference.projection(state, case, expected["cls"], training=False)
        torch.testing.assert_close(model.projection(output.cls_hidden_state), embeds, atol=1e-4, rtol=1e-4)
