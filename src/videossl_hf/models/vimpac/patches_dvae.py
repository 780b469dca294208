"""A codebook of patches: the smallest tokeniser there is, for runs of minutes on a CPU.

A code is the number of the stored patch of 8 x 8 pixels that is nearest; its picture is that patch. The
convolutions of a discrete VAE take hours to become of use, this takes seconds: the patches start as a spread
of those of the first batch (k-means++, Arthur and Vassilvitskii 2007).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from .configuration_dvae import STRIDE, DVAEConfig

__all__ = ["PatchCodebook", "spread_out"]


class PatchCodebook(nn.Module):
    """The stored patches, as encoder and as decoder."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        # On the logit scale, as the decoder of a discrete VAE gives them.
        self.patches = nn.Parameter(torch.empty(config.vocab_size, config.num_channels, STRIDE, STRIDE))
        self.log_width = nn.Parameter(torch.empty(config.num_channels, 1, 1))
        self.sharpness = 0.5 / config.patch_tolerance**2

    def logits(self, pixels: Tensor) -> Tensor:
        """`(frames, channels, height, width)` to `(frames, codes, height / 8, width / 8)` float32: minus the
        squared distance of each patch, but for what all codes of a place share."""
        with torch.autocast(pixels.device.type, enabled=False):
            dtype = torch.promote_types(pixels.dtype, torch.float32)
            patches = torch.sigmoid(self.patches.to(dtype))
            bias = -patches.square().sum((1, 2, 3))
            return self.sharpness * F.conv2d(pixels.to(dtype), 2 * patches, bias, stride=STRIDE)

    def statistics(self, weights: Tensor) -> Tensor:
        """Weights of the codes `(frames, codes, rows, columns)` to peaks and logarithms of widths,
        `(frames, 2 * channels, 8 * rows, 8 * columns)` float32."""
        with torch.autocast(weights.device.type, enabled=False):
            dtype = torch.promote_types(weights.dtype, torch.float32)
            peaks = F.conv_transpose2d(weights.to(dtype), self.patches.to(dtype), stride=STRIDE)
            return torch.cat([peaks, self.log_width.to(dtype).expand_as(peaks)], dim=1)

    @torch.no_grad()
    def start_from(self, pixels: Tensor) -> None:
        """Take a spread of the patches of some frames `(frames, channels, height, width)` within (0, 1)."""
        patches = F.unfold(pixels.float(), STRIDE, stride=STRIDE).transpose(1, 2).flatten(0, 1)
        chosen = spread_out(patches.cpu(), len(self.patches), torch.Generator().manual_seed(0))
        self.patches.copy_(torch.logit(chosen).view_as(self.patches))


def spread_out(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the points `(points, dim)`, each drawn with a probability that grows with the square of its
    distance from those drawn before.

    Raises:
        InputError: there are fewer points.
    """
    if len(points) < count:
        raise InputError(
            f"{len(points)} patches cannot start {count} codes: give more frames a batch, or fewer codes"
        )
    chosen = [points[0]]
    distance = torch.full((len(points),), torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - chosen[-1]).square().sum(1))
        # Where all points are chosen already, any will do.
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        chosen.append(points[int(torch.multinomial(weights, 1, generator=generator))])
    return torch.stack(chosen)
