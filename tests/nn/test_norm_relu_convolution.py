"""BatchNorm, ReLU and a convolution in one step equal the three, with less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videossl_hf.nn.batch_norm import BatchNorm3d
from videossl_hf.nn.norm_relu_convolution import convolve


def make_parts(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=dtype) * 2 + 1
    norm = BatchNorm3d(shape[1]).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(generator=generator)
    kernel = (3,) * (len(shape) - 2)
    weight = torch.randn(4, shape[1], *kernel, generator=generator, dtype=dtype)
    return x.requires_grad_(), norm, weight.requires_grad_()


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (2, 3, 4, 6, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_are_those_of_the_three_steps(
    shape: tuple[int, ...], dtype: torch.dtype, training: bool
) -> None:
    x, norm, weight = make_parts(shape, dtype)
    reference = copy.deepcopy(norm).train(training)
    norm.train(training)
    axes = len(shape) - 2
    y = convolve(x, weight, [2] * axes, [1] * axes, norm)
    plain = F.conv2d if axes == 2 else F.conv3d
    expected = plain(F.relu(reference.normalize(x)), weight, None, 2, 1)
    torch.testing.assert_close(y, expected)
    pull = torch.randn_like(y)
    found = torch.autograd.grad((y * pull).sum(), [x, weight, norm.weight, norm.bias])
    wanted = torch.autograd.grad((expected * pull).sum(), [x, weight, reference.weight, reference.bias])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(norm.named_buffers()), dict(reference.named_buffers()))


def test_a_backward_pass_may_be_taken_twice_and_for_some_inputs_alone() -> None:
    x, norm, weight = make_parts((2, 3, 4, 6, 7), torch.float32)
    y = convolve(x, weight, [1] * 3, [1] * 3, norm)
    (alone,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, alone)
    assert weight.grad is not None


def test_a_weight_that_no_gradient_is_asked_of_costs_nothing() -> None:
    masks: list[list[bool]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.convolution_backward.default:
                masks.append(args[-1])
            return function(*args, **(kwargs or {}))

    x, norm, weight = make_parts((2, 3, 4, 6, 7), torch.float32)
    y = convolve(x, weight, [1] * 3, [1] * 3, norm).sum()
    with Watch():
        torch.autograd.grad(y, x, retain_graph=True)
        y.backward()
    assert masks == [[True, False, False], [True, True, False]]


def test_the_convolution_input_is_not_kept() -> None:
    def kept(step: object) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = step()  # noqa: F841 - it keeps the graph alive
        return sum(sizes.values())

    x, norm, weight = make_parts((2, 16, 4, 12, 12), torch.float32)
    one = kept(lambda: convolve(x, weight, [1] * 3, [1] * 3, norm))
    three = kept(lambda: F.conv3d(F.relu(norm(x)), weight, None, 1, 1))
    assert three - one >= 0.9 * x.numel() * x.itemsize


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_maps_of_either_type_are_trained(dtype: torch.dtype) -> None:
    x, norm, weight = make_parts((2, 8, 6, 7), torch.float32)
    given = x.detach().to(dtype).requires_grad_()
    reference = copy.deepcopy(norm)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(given, weight, [1, 1], [1, 1], norm)
    expected = F.conv2d(F.relu(reference.normalize(x)), weight, None, 1, 1)
    found = torch.autograd.grad(y.float().square().sum(), [given, weight])
    wanted = torch.autograd.grad(expected.square().sum(), [x, weight])
    for one, other in zip((y, *found), (expected, *wanted), strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
