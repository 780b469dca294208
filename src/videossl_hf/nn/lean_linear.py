"""Linear layers whose input is computed again in the backward pass instead of being kept.

A pre-norm transformer block in training keeps the input of each of its linear layers, for the gradient of
the weights. Two of the four inputs follow from a tensor that is kept anyway by one cheap pass: the layer norm
of the residual stream, and the activation of the hidden layer. Without them a block keeps about 0.6 times
the memory; values and gradients are the same (on a CPU up to rounding, see multiply.py), and no matrix
product of a linear layer is done twice.

A function that can give its result once more says so: its `ctx.again` takes the `ctx` and does. A linear
layer right behind it then keeps that, and not the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .multiply import multiply

__all__ = ["activation_linear", "lean_norm", "norm_and_linear", "norm_linear", "plain_linear", "saved_once"]


_PART = 8 * 2**20
"""Bytes of a large temporary tensor on a CPU. What is larger than 32 MiB the C library takes from the system
and gives back each time, and clearing its pages costs about as much as an activation."""


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
    if not (_is_lean(norm, x) and _is_plain(linear, nn.Linear)):
        y = norm(x)
        return y, plain_linear(y, linear)
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(linear, nn.Linear)
    shape, dtype = norm.normalized_shape, _autocast_dtype(x)
    return _NormLinear.apply(x, norm.weight, norm.bias, linear.weight, linear.bias, shape, norm.eps, dtype)


def lean_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """`norm(x)`, which a `plain_linear` right behind need not keep. Other norms: see `norm_linear`."""
    if not _is_lean(norm, x):
        return norm(x)
    assert isinstance(norm, nn.LayerNorm)
    return _Norm.apply(x, norm.weight, norm.bias, norm.normalized_shape, norm.eps)


def plain_linear(x: Tensor, linear: nn.Module) -> Tensor:
    """`linear(x)`, as fast as the others, see multiply.py. It keeps `x`, unless what gave it can give it
    once more."""
    if not (_is_plain(linear, nn.Linear) and _is_trained(x)):
        return linear(x)
    assert isinstance(linear, nn.Linear)
    source = x.grad_fn if hasattr(x.grad_fn, "again") else None
    return _PlainLinear.apply(x, linear.weight, linear.bias, source, _autocast_dtype(x))


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


def saved_once(ctx: Any, for_more: bool = False) -> tuple[Any, ...]:
    """`ctx.saved_tensors` of a function with `ctx.again`, which gradient checkpointing hands out once alone.

    Args:
        for_more: whether the backward pass of the function, which comes next, asks for them too.
    """
    saved = vars(ctx).pop("unpacked", None) or ctx.saved_tensors
    if for_more:
        ctx.unpacked = saved
    return saved


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` is no more than what `kind` does with its parameters."""
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
    )


def _is_lean(norm: nn.Module, x: Tensor) -> bool:
    """Whether `norm` is a layer norm that is taken apart here."""
    is_norm = isinstance(norm, nn.LayerNorm) and norm.elementwise_affine and _is_plain(norm, nn.LayerNorm)
    if not (is_norm and _is_trained(x)):
        return False
    # What autocast norms in differs from device to device.
    return x.dtype == torch.float32 or _autocast_dtype(x) is None


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
        weight_gradient = _multiply_rows(rows, x.to(rows.dtype).flatten(0, -2)).to(ctx.weight_dtype)
    if wanted[2]:
        bias_gradient = rows.sum(0).to(ctx.weight_dtype)
    if wanted[0]:
        x_gradient = multiply(gradient, weight.T).to(x.dtype)
    return x_gradient, weight_gradient, bias_gradient


def _multiply_rows(left: Tensor, right: Tensor) -> Tensor:
    """`left.T @ right`; of the two the smaller one is copied, to lie as oneDNN wants it."""
    if left.shape[1] <= right.shape[1]:
        return multiply(left.T, right.T)
    return multiply(right.T, left.T).T


class _PlainLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        source: Any,
        dtype: torch.dtype | None,
    ) -> Tensor:
        ctx.source, ctx.weight_dtype = source, weight.dtype
        with torch.autocast(x.device.type, enabled=False):
            cast, weight, bias = _cast(dtype, x, weight, bias)
            ctx.save_for_backward(x if source is None else None, weight)
            return multiply(cast, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast(gradients[0].device.type, enabled=False):
            x = ctx.source.again(ctx.source) if x is None else x
            return *_linear_backward(ctx, gradients[0], x, weight, ctx.needs_input_grad[:3]), None, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...], eps: float
    ) -> Tensor:
        ctx.shape, ctx.eps, ctx.again = shape, eps, _norm_again
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = saved_once(ctx)
        found = torch.ops.aten.native_layer_norm_backward(
            gradients[0], x, ctx.shape, mean, rstd, weight, bias, list(ctx.needs_input_grad[:3])
        )
        return *found, None, None


def _norm_again(ctx: Any) -> Tensor:
    x, weight, bias, *_ = saved_once(ctx, for_more=True)
    return torch.native_layer_norm(x, ctx.shape, weight, bias, ctx.eps)[0]


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
            weight, bias = _cast(dtype, weight, bias)
            ctx.save_for_backward(x, weight)
            outputs = [multiply(_cast(dtype, activation(part))[0], weight, bias) for part in _in_parts(x)]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        parts = _in_parts(x)
        with torch.autocast(x.device.type, enabled=False):
            if len(parts) == 1:
                return *_activation_backward(ctx, x, gradients[0], weight), None, None
            x_gradient = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
            sums: list[Any] = [None, None]  # of the weight and the bias
            rows = 0
            for part in parts:
                place = slice(rows, rows := rows + len(part))
                gradient = gradients[0].flatten(0, -2)[place]
                of_part, *linear = _activation_backward(ctx, part, gradient, weight)
                if x_gradient is not None:
                    x_gradient.flatten(0, -2)[place] = of_part
                sums = [new if old is None else old.add_(new) for old, new in zip(sums, linear, strict=True)]
        return x_gradient, *sums, None, None


def _activation_backward(
    ctx: Any, x: Tensor, gradient: Tensor, weight: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, the weight and the bias."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(ctx.needs_input_grad[0])
        y = ctx.activation.forward(x)  # computed again, not called again: its hooks have run
    wanted = ctx.needs_input_grad[:3]
    y_gradient, of_weight, of_bias = _linear_backward(ctx, gradient, y.detach(), weight, wanted)
    x_gradient = None if y_gradient is None else torch.autograd.grad(y, x, y_gradient)[0]
    return x_gradient, of_weight, of_bias


def _in_parts(x: Tensor) -> Sequence[Tensor]:
    """`x`, or where an activation of it is best taken in parts, these: `(rows, size)`."""
    count = -(-x.nbytes // _PART) if x.device.type == "cpu" else 1
    return x.flatten(0, -2).chunk(count) if count > 1 else [x]
