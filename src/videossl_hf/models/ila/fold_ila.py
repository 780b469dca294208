"""For inference: BatchNorms that became part of the convolutions in front of them, and two linear layers that
became one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .alignment_ila import ILADepthwise, ILAInteractiveBlock, ILAPointHead
from .vision_ila import ILABlock

__all__ = ["fold_batch_norms"]

_PAIRS: dict[type[nn.Module], list[tuple[str, str]]] = {
    ILADepthwise: [("conv", "norm")],
    ILAInteractiveBlock: [("join", "join_norm"), ("conv", "norm")],
    ILAPointHead: [("conv1", "norm1"), ("conv2", "norm2")],
}


@torch.no_grad()
def fold_batch_norms(model: Any) -> Any:
    """A copy of a model, in evaluation mode, whose alignments have no BatchNorms any more, and whose
    interactive features are brought to the width of the blocks and projected at once."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, ILABlock) and module.adds:
            _join(module)
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


class ILAOwnTokenProjection(nn.Module):
    """A projection of the frame's own token alone, where the patches have been projected before.

    Args:
        projection: the linear layer.
    """

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, 1 + patches, hidden)` to the same."""
        return torch.cat([self.projection(tokens[:, :, :1]), tokens[:, :, 1:]], dim=2)


def _join(block: Any) -> None:
    """Project the patches' interactive features in the layer that brings them to the width of the block."""
    first, second = block.alignment.out_proj, block.interactive_proj
    weight, bias = second.weight.double(), second.bias.double()
    first.bias.copy_(weight @ first.bias.double() + bias)
    first.weight.copy_(weight @ first.weight.double())
    block.interactive_proj = ILAOwnTokenProjection(second)
