"""The product of a linear layer, by the faster of torch's two libraries.

On a CPU torch leaves products in float32 to MKL and convolutions to oneDNN. On processors that MKL does not
know well oneDNN is faster, by a seventh on AMD's Zen 4 and never much slower, so that a linear layer in
training is computed as the convolution that it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["multiply"]

_FEWEST_ROWS = 256
"""With fewer, a convolution takes longer to set up than it gains."""


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, for use where no gradient is recorded.

    Args:
        x: `(..., in_features)`.
        weight: `(out_features, in_features)`; bias `(out_features,)`.

    Returns:
        `(..., out_features)`.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    in_float32 = x.dtype == weight.dtype == torch.float32
    on_cpu = x.device.type == weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if rows < _FEWEST_ROWS or not (in_float32 and on_cpu):
        return F.linear(x, weight, bias)
    picture = x.reshape(1, rows, 1, -1).permute(0, 3, 1, 2)  # one column of pixels, its channels last
    kernel = weight[:, :, None, None]
    y = torch.mkldnn_convolution(picture, kernel, bias, (0, 0), (1, 1), (1, 1), 1)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
