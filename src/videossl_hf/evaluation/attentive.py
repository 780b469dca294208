"""Attentive probe: a learned query that attends to a frozen backbone's tokens, as V-JEPA is evaluated.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (2024), section
4: one cross-attention block whose query is learned, an MLP, and a linear classifier. What the probe can read
that a mean over tokens cannot is where in space and time something is.

There is one query, the same for all samples, so no token ever needs its key and its value: the query is taken
through the keys' weights once, and what it finds through the values'. Multiplications fall from 2 tokens x
width x width a sample to 2 tokens x width x heads, with the same result. (A bias of the keys would add the
same to every score, and softmax takes it away again: there is none.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AttentiveHead", "make_attentive_head"]


class AttentiveHead(nn.Module):
    """Query, cross-attention, MLP, classifier.

    Args:
        width: of a token.
        classes: of the answers.
        heads: of the attention; by default one for every 64 channels, as far as that divides the width.
        mlp_ratio: width of the MLP over that of a token.
    """

    def __init__(self, width: int, classes: int, heads: int | None = None, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        wanted = heads or max(1, width // 64)
        self.heads = max(count for count in range(1, wanted + 1) if width % count == 0)
        self.query = nn.Parameter(torch.empty(width))
        self.norm_tokens, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_query, self.to_value = nn.Linear(width, width), nn.Linear(width, width)
        self.to_key = nn.Linear(width, width, bias=False)
        hidden = round(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.classifier = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(samples, tokens, width) -> (samples, classes)."""
        norm = self.norm_tokens
        standard = F.layer_norm(tokens, tokens.shape[-1:], eps=norm.eps)
        query = self.to_query(self.query).unflatten(0, (self.heads, -1))
        keys = self.to_key.weight.unflatten(0, (self.heads, -1))  # (heads, width / heads, width)
        asked = torch.einsum("hd,hdw->hw", query, keys) * norm.weight * query.shape[1] ** -0.5
        attention = (standard @ asked.T).softmax(dim=1)  # (samples, tokens, heads)
        known = attention.transpose(1, 2) @ standard * norm.weight + norm.bias
        values = self.to_value.weight.unflatten(0, (self.heads, -1))
        found = torch.einsum("shw,hdw->shd", known, values).flatten(1) + self.to_value.bias
        pooled = self.query + found
        pooled = pooled + self.mlp(self.norm(pooled))
        return self.classifier(pooled)


def make_attentive_head(tokens: Tensor, classes: int) -> AttentiveHead:
    """A fresh head for tokens (samples, tokens, width)."""
    return AttentiveHead(tokens.shape[2], classes)
