"""Linear layers whose input is computed again in the backward pass instead of being kept.

A pre-norm transformer block in training keeps the input of each of its linear layers, for the gradient of
the weights. Two of the four inputs follow from a tensor that is kept anyway by one cheap pass: the layer norm
of the residual stream, and the activation of the hidden layer. Without them a block keeps about 0.6 times
the memory; values and gradients are the same (on a CPU up to rounding, see multiply.py), and no matrix
product is done twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .multiply import multiply

__all__ = ["activation_linear", "norm_and_linear", "norm_linear", "plain_linear"]


def norm_linear(x: Tensor, norm: nn.Module, linear: nn.Module) -> Tensor:
    """`linear(norm(x))`, keeping `x` and not the norm of it.

    Args:
        x: `(..., size)`.
        norm, linear: a layer norm and a linear layer. Anything else (an adapter, quantised weights, a module
            with hooks) is called as it is, and compiled code too: there the compiler chooses what is kept.

    Returns:
        `(..., out_features)`.
    """
    return norm_and_linear(x, norm, linear)[1]


def norm_and_linear(x: Tensor, norm: nn.Module, linear: nn.Module) -> tuple[Tensor, Tensor]:
    """`norm(x)`, which a residual connection adds later, and `linear(norm(x))`, see `norm_linear`.

    Of the two the backward pass keeps none: a post-norm block, whose residual stream is normed, keeps one
    tensor for each norm.
    """
    if not (
        isinstance(norm, nn.LayerNorm)
        and norm.elementwise_affine
        and _is_plain(norm, nn.LayerNorm)
        and _is_plain(linear, nn.Linear)
        and _is_trained(x)
    ):
        y = norm(x)
        return y, plain_linear(y, linear)
    assert isinstance(linear, nn.Linear)
    shape, dtype = norm.normalized_shape, _autocast_dtype(x)
    if dtype is not None and x.dtype != torch.float32:
        y = norm(x)  # what autocast norms in differs from device to device
        return y, linear(y)
    return _NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, shape, norm.eps, dtype)


def plain_linear(x: Tensor, linear: nn.Module) -> Tensor:
    """`linear(x)`, as fast as the others, see multiply.py. It keeps `x`."""
    return activation_linear(x, _IDENTITY, linear)


def activation_linear(x: Tensor, activation: nn.Module, linear: nn.Module) -> Tensor:
    """`linear(activation(x))`, keeping `x` and not its activation.

    Args:
        x: `(..., in_features)`.
        activation: elementwise and without randomness. One with parameters, and a `linear` that is more than
            a linear layer, are called as they are, see `norm_linear`.
        linear: a linear layer.

    Returns:
        `(..., out_features)`.
    """
    if not (
        not any(True for _ in activation.parameters())
        and _is_plain(activation, type(activation))
        and _is_plain(linear, nn.Linear)
        and _is_trained(x)
    ):
        return linear(activation(x))
    assert isinstance(linear, nn.Linear)
    return _ActivationLinear.apply(x, linear.weight, linear.bias, activation, _autocast_dtype(x))


_IDENTITY = nn.Identity()


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` is no more than what `kind` does with its parameters."""
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
    )


def _is_trained(x: Tensor) -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes linear layers of `x` in; None outside of autocast."""
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def _cast(dtype: torch.dtype | None, *tensors: Tensor | None) -> list[Any]:
    """What a linear layer computes with.

    Cast here and not by autocast, whose cache would hand these weights, which have no gradient of their own,
    to other layers.
    """
    return [x if x is None or dtype is None else x.to(dtype) for x in tensors]


def _linear_backward(
    ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of a linear layer's input, weight and bias, of which some are wanted."""
    rows = gradient.flatten(0, -2)
    x_gradient = weight_gradient = bias_gradient = None
    if wanted[1]:
        weight_gradient = (rows.T @ x.to(rows.dtype).flatten(0, -2)).to(ctx.weight_dtype)
    if wanted[2]:
        bias_gradient = rows.sum(0).to(ctx.weight_dtype)
    if wanted[0]:
        x_gradient = multiply(gradient, weight.T).to(x.dtype)
    return x_gradient, weight_gradient, bias_gradient


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        eps: float,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.eps, ctx.weight_dtype = shape, eps, weight.dtype
        ctx.set_materialize_grads(False)
        with torch.autocast(x.device.type, enabled=False):
            y, mean, rstd = torch.native_layer_norm(x, shape, norm_weight, norm_bias, eps)
            cast, weight, bias = _cast(dtype, y, weight, bias)
            ctx.save_for_backward(x, norm_weight, norm_bias, weight, mean, rstd)
            return y, multiply(cast, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight, mean, rstd = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        y_gradient, gradient = gradients
        linear: list[Tensor | None] = [None, None]
        with torch.autocast(x.device.type, enabled=False):
            if gradient is not None:
                y = torch.native_layer_norm(x, ctx.shape, norm_weight, norm_bias, ctx.eps)[0]
                inner = (any(wanted[:3]), *wanted[3:5])
                added, *linear = _linear_backward(ctx, gradient, y, weight, inner)
                del y
                if added is not None:
                    y_gradient = added if y_gradient is None else added.add_(y_gradient)
            if y_gradient is None or not any(wanted[:3]):
                return None, None, None, *linear, None, None, None
            x_gradient, *norm = torch.ops.aten.native_layer_norm_backward(
                y_gradient, x, ctx.shape, mean, rstd, norm_weight, norm_bias, list(wanted[:3])
            )
        return x_gradient, *norm, *linear, None, None, None


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        activation: nn.Module,
        dtype: torch.dtype | None,
    ) -> Tensor:
        ctx.activation, ctx.weight_dtype = activation, weight.dtype
        with torch.autocast(x.device.type, enabled=False):
            y, weight, bias = _cast(dtype, activation(x), weight, bias)
            ctx.save_for_backward(x, weight)
            return multiply(y, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            with torch.enable_grad():
                x = x.detach().requires_grad_(ctx.needs_input_grad[0])
                y = ctx.activation.forward(x)  # computed again, not called again: its hooks have run
            wanted = ctx.needs_input_grad[:3]
            y_gradient, *linear = _linear_backward(ctx, gradients[0], y.detach(), weight, wanted)
            x_gradient = None if y_gradient is None else torch.autograd.grad(y, x, y_gradient)[0]
        return x_gradient, *linear, None, None
