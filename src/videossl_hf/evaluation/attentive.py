"""Attentive probe: a learned query that attends to a frozen backbone's tokens, as V-JEPA is evaluated.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (2024), section
4: one cross-attention block whose query is learned, an MLP, and a linear classifier. What the probe can read
that a mean over tokens cannot is where in space and time something is.
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
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.norm_tokens, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_query, self.to_key, self.to_value = (nn.Linear(width, width) for _ in range(3))
        hidden = round(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.classifier = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(samples, tokens, width) -> (samples, classes)."""
        known = self.norm_tokens(tokens)
        query = self.query.expand(len(tokens), -1, -1)
        asked, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_query(query), self.to_key(known), self.to_value(known))
        )
        found = F.scaled_dot_product_attention(asked, keys, values).transpose(1, 2).flatten(2)
        pooled = query + found
        pooled = pooled + self.mlp(self.norm(pooled))
        return self.classifier(pooled[:, 0])


def make_attentive_head(tokens: Tensor, classes: int) -> AttentiveHead:
    """A fresh head for tokens (samples, tokens, width)."""
    return AttentiveHead(tokens.shape[2], classes)
