"""Outputs that several methods return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

__all__ = ["VideoClassifierOutput"]


@dataclass
class VideoClassifierOutput(ModelOutput):
    """Output of every `...ForVideoClassification`.

    Attributes:
        loss: scalar, when labels were given.
        logits: `(batch, labels)`, before softmax.
        pooler_output: `(batch, hidden)`, what the classifier saw.
        hidden_states: of the backbone, on request.
        attentions: of the backbone, on request.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
