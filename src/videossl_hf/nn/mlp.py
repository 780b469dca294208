"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .lean_linear import activation_linear, norm_linear
from .quick_gelu import QuickGELU

__all__ = ["Mlp"]


class Mlp(nn.Module):
    """Linear layer, activation, linear layer; what comes out is as wide as what goes in.

    For the backward pass it keeps its input and the hidden layer before the activation.

    Args:
        size: width of input and output.
        hidden_size: width in between.
        activation: transformers' name of the activation: "gelu" (exact), "quick_gelu", "relu", ...
        linear: class of the two linear layers.
    """

    def __init__(
        self, size: int, hidden_size: int, activation: str = "gelu", linear: type[nn.Linear] = nn.Linear
    ) -> None:
        super().__init__()
        self.fc1 = linear(size, hidden_size)
        self.activation = QuickGELU() if activation == "quick_gelu" else ACT2FN[activation]
        self.fc2 = linear(hidden_size, size)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """`(..., size)` to the same; of `norm(x)`, which is then not kept, where a norm is given."""
        hidden = self.fc1(x) if norm is None else norm_linear(x, norm, self.fc1)
        return activation_linear(hidden, self.activation, self.fc2)
