"""Linear layers computed by oneDNN equal torch's, in values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from videossl_hf.nn.onednn_linear import OneDNNLinear, linear, pointwise, weighed_linear


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


def test_its_operations_are_counted_as_torchs_are() -> None:
    counts = []
    for layer in layers():
        with FlopCounterMode(display=False) as counter:
            layer(torch.ones(2, 3, 8, requires_grad=True)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [3 * 2 * 6 * 8 * 5] * 2


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_weighed_rows_are_kept_as_they_were_before(is_frozen: bool, autocast: bool) -> None:
    ours, plain = layers()
    dtype = torch.bfloat16 if autocast else torch.float32
    x, weights = torch.randn(2, 3, 8).to(dtype), torch.rand(2, 3).to(dtype)
    kept: list[Tensor] = []
    results = []
    for layer in (ours, plain):
        layer.weight.requires_grad_(not is_frozen)
        given = [x.clone().requires_grad_(), weights.clone().requires_grad_()]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if layer is ours:
                with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
                    y = weighed_linear(*given, layer)
            else:
                y = weighed_linear(*given, layer)
        y.float().square().sum().backward()
        results.append([y.detach(), *(value.grad for value in (*given, layer.weight, layer.bias))])
    torch.testing.assert_close(*results)
    assert {tuple(tensor.shape) for tensor in kept} == {(2, 3, 8), (2, 3), (5, 8)}
    assert torch.equal(kept[0], x)


def test_a_pointwise_convolution_is_a_linear_layer() -> None:
    maps, weight = torch.randn(2, 6, 3, 4), torch.randn(5, 6, 1, 1)
    torch.testing.assert_close(pointwise(maps, weight), F.conv2d(maps, weight))
