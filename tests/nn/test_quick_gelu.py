"""CLIP's activation against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videossl_hf.nn.quick_gelu import QuickGELU


def formula(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_values_and_gradients_are_those_of_the_formula(dtype: torch.dtype, tolerance: float) -> None:
    values = torch.cat([torch.linspace(-30, 30, 2001), torch.tensor([-1e4, 1e4, 0.0])]).to(dtype)
    results = []
    for function in (QuickGELU(), formula):
        x = values.clone().requires_grad_()
        y = function(x)
        assert y.dtype == dtype
        y.backward(torch.ones_like(y))
        assert x.grad is not None
        assert torch.equal(x.detach(), values), "the input is left as it is"
        results.append((y.detach(), x.grad))
    (found, found_gradient), (expected, expected_gradient) = results
    assert torch.equal(found, expected)
    torch.testing.assert_close(found_gradient, expected_gradient, rtol=tolerance, atol=tolerance)


def test_only_the_input_is_kept_for_the_backward_pass() -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        QuickGELU()(x)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]
