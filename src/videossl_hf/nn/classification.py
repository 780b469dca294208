"""The loss of every `...ForVideoClassification`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

__all__ = ["classification_loss"]


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, in float32 or better.

    Args:
        logits: `(batch, labels)`.
        labels: classes `(batch,)` int64, or their probabilities `(batch, labels)`.
        label_smoothing: share of the target that is spread over all labels.

    Raises:
        InputError: the labels have another shape.
    """
    if labels.shape not in (logits.shape[:1], logits.shape):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}; give ({len(logits)},) classes or"
            f" {tuple(logits.shape)} probabilities"
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, labels, label_smoothing=label_smoothing)
