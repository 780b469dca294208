"""What a model's features cost: parameters, and floating-point operations of one clip in one view."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .clips import PreparedClips, PreparedSample
from .features import embed

__all__ = ["clip_cost", "flop_counter"]


def flop_counter() -> FlopCounterMode:
    """Counts operations of what runs inside it, also of fused attention on the CPU, which torch omits."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={forward: _attention, backward: _attention_backward})


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


@torch.no_grad()
def clip_cost(model: nn.Module, clips: PreparedClips, space: str = "features") -> dict[str, Any]:
    """{"parameters", "gflop_per_clip"}, counting two operations per multiply-add; empty if no clip decodes.

    Args:
        model: in evaluation mode; of its operations matrix products, convolutions and attention are counted.
        clips: the first that can be decoded is run.
        space: see `embed`.
    """
    for row in range(len(clips)):
        sample = clips[row]
        if isinstance(sample, PreparedSample):
            break
    else:
        return {}
    with flop_counter() as counter:
        embed(model, sample.inputs[:1], clips.modality, space)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "gflop_per_clip": round(counter.get_total_flops() / 1e9, 6)}
