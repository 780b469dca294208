"""Which parameters of TVTS learn at which rate, in pre-training and in fine-tuning."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["classifier_groups", "classifier_settings", "pretraining_groups"]

_NEW_IN_V2 = re.compile(r"sorting_head\.|.*\.temporal_(norm|attention)\.")
_FIRST = re.compile(r".*video_model\.embeddings\.(class_token|spatial_positions|patches\..*)$")
_BLOCK = re.compile(r".*video_model\.layers\.(\d+)\.")
_NEVER_DECAYED = re.compile(r".*\.(class_token|spatial_positions)$")


def pretraining_groups(model: Any, optimizer: Any) -> list[dict[str, Any]]:
    """One rate for all of TVTS; of TVTSv2 what is new (attention over time, sorting head) at the full rate
    and what comes from CLIP, the temporal table included, at `pretrained_lr_scale` times that.

    Args:
        model: a `TVTSForPreTraining`.
        optimizer: has `lr`, `weight_decay`, and `decay_norm_and_bias`, which says whether vectors decay too.
    """
    scale = model.config.pretrained_lr_scale if model.config.attention_type == "divided" else 1.0

    def settings(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        decayed = optimizer.decay_norm_and_bias or parameter.ndim > 1
        rate = 1.0 if _NEW_IN_V2.match(name) else scale
        return optimizer.lr * rate, optimizer.weight_decay if decayed else 0.0

    return _groups(model, settings)


def classifier_settings(model: Any, name: str, parameter: nn.Parameter) -> tuple[float, bool]:
    """Multiple of the rate of a classifier's parameter, and whether it decays.

    The multiple is `layer_decay ** (distance from the end)`: embeddings are farthest, then the blocks; what
        stands
    behind them has 1, and so has the temporal table, as in the official code
    (`v1/downstream/optim_factory.py`). Vectors, class token and spatial table never decay.
    """
    depth = model.config.num_hidden_layers
    block = _BLOCK.match(name)
    place = 0 if _FIRST.match(name) else int(block[1]) + 1 if block else depth + 1
    return model.config.layer_decay ** (depth + 1 - place), parameter.ndim > 1 and not _NEVER_DECAYED.match(
        name
    )


def classifier_groups(model: Any, optimizer: Any) -> list[dict[str, Any]]:
    """Groups by `classifier_settings` for a `TVTSForVideoClassification`."""

    def settings(name: str, parameter: nn.Parameter) -> tuple[float, float]:
        multiple, decayed = classifier_settings(model, name, parameter)
        return optimizer.lr * multiple, optimizer.weight_decay if decayed else 0.0

    return _groups(model, settings)


def _groups(
    model: nn.Module, settings: Callable[[str, nn.Parameter], tuple[float, float]]
) -> list[dict[str, Any]]:
    """torch's parameter groups, one for each rate and decay, of what is trained."""
    members: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[settings(name, parameter)].append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]
