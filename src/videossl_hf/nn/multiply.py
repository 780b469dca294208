"""The product of a linear layer, by the faster of torch's two libraries.

On a CPU torch leaves products of float32 matrices to MKL, and convolutions and bfloat16 to oneDNN. On
processors that MKL does not know well oneDNN is faster for both: by a tenth on AMD's Zen 4, in one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

__all__ = ["multiply", "onednn_product"]

_LEAST = 2**22
"""Multiplications below which the set-up of oneDNN costs more than it gains."""


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, for use where no gradient is recorded and nothing is compiled.

    Args:
        x: `(..., in_features)`.
        weight: `(out_features, in_features)`; bias `(out_features,)`.

    Returns:
        `(..., out_features)`.
    """
    is_float = x.dtype == weight.dtype == torch.float32
    on_cpu = x.device.type == weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    is_small = x.ndim < 2 or x.numel() * weight.shape[0] < _LEAST
    if is_small or not (is_float and on_cpu and torch.backends.mkldnn.enabled):
        return F.linear(x, weight, bias)
    return onednn_product(x, weight, bias)


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` by oneDNN, whatever the size: of float32, and of bfloat16 where the processor knows it."""
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # for other strides oneDNN has nothing but a reference loop
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


# Code that lies beside a checkpoint is a module of its own, beside the package's and other checkpoints'.
if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._linear_pointwise not in flop_registry:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _operations(x_shape: Sequence[int], weight_shape: Sequence[int], *_: Any, **__: Any) -> int:
        """For torch's counter, which does not know this product."""
        return 2 * math.prod(x_shape) * weight_shape[0]
