"""For inference: BatchNorms that became part of the convolutions in front of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .alignment_ila import ILADepthwise, ILAInteractiveBlock, ILAPointHead

__all__ = ["fold_batch_norms"]

_PAIRS: dict[type[nn.Module], list[tuple[str, str]]] = {
    ILADepthwise: [("conv", "norm")],
    ILAInteractiveBlock: [("join", "join_norm"), ("conv", "norm")],
    ILAPointHead: [("conv1", "norm1"), ("conv2", "norm2")],
}


@torch.no_grad()
def fold_batch_norms(model: Any) -> Any:
    """A copy of a model, in evaluation mode, whose alignments have no BatchNorms any more."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for kind, pairs in _PAIRS.items():
            if isinstance(module, kind):
                for convolution, norm in pairs:
                    _fold(getattr(module, convolution), getattr(module, norm))
                    setattr(module, norm, nn.Identity())
    return model


def _fold(convolution: Any, norm: Any) -> None:
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    weight, bias = convolution.weight, convolution.bias
    bias.copy_((bias.double() - norm.running_mean.double()) * scale + norm.bias.double())
    weight.copy_(weight.double() * scale.view(-1, *[1] * (weight.ndim - 1)))
