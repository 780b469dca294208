"""Linear layers computed by oneDNN equal torch's, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from videossl_hf.nn.onednn_linear import OneDNNLinear, linear


def layers(bias: bool = True) -> tuple[OneDNNLinear, nn.Linear]:
    torch.manual_seed(0)
    ours, plain = OneDNNLinear(8, 5, bias=bias), nn.Linear(8, 5, bias=bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def trained(layer: nn.Module, x: Tensor, autocast: bool) -> tuple[Tensor, list[Tensor | None]]:
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x[:, :, 1:])
    y.float().square().sum().backward()
    return y.detach(), [x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(bias: bool, autocast: bool) -> None:
    ours, plain = layers(bias)
    x = torch.randn(2, 3, 7, 8)
    for found, expected in zip(trained(ours, x, autocast), trained(plain, x, autocast), strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        torch.testing.assert_close(ours(x), plain(x))


def test_a_frozen_layer_keeps_nothing_of_its_input_and_gets_no_gradient() -> None:
    ours, _ = layers()
    ours.requires_grad_(False)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ours(torch.randn(3, 8, requires_grad=True)).sum().backward()
    assert [tuple(tensor.shape) for tensor in kept] == [(5, 8)]
    assert ours.weight.grad is None


def test_half_of_a_weight_is_multiplied_as_it_lies() -> None:
    weight = torch.randn(6, 16, requires_grad=True)
    x = torch.randn(4, 8, requires_grad=True)
    found = torch.autograd.grad(linear(x, weight[:, 8:], None).square().sum(), (x, weight))
    expected = torch.autograd.grad((x @ weight[:, 8:].T).square().sum(), (x, weight))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 0, 8)])
def test_one_row_and_none_are_torchs(shape: tuple[int, ...]) -> None:
    ours, plain = layers()
    torch.testing.assert_close(ours(torch.ones(shape)), plain(torch.ones(shape)))
