"""ILA's alignment of neighbouring frames: interactive points, masks around them, what they let through.

For each pair of neighbouring frames a small convolutional network predicts one point in each of the two. A
mask around a frame's point weighs that frame's patches. Positions in a frame run from -1 to 1 on both axes,
x along the columns and y along the rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...nn.batch_norm import BatchNorm2d
from ...nn.norm_relu_convolution import convolve
from ...nn.onednn_linear import OneDNNLinear, linear, pointwise, weighed_linear
from .configuration_ila import ILAConfig
from .layers_ila import started

__all__ = ["Alignment", "ILAAligner", "ILAPointHead", "interaction_masks", "interactive_block"]


class Alignment(NamedTuple):
    """What aligning the frames of clips gives.

    Attributes:
        tokens: `(batch, frames, tokens, hidden)`, what was aligned.
        interactive: the same shape, features of the pairs, brought back to frames (and projected, where that
            was asked for); None without.
        points: `(batch, pairs, 4)`: x and y in the earlier frame, x and y in the later one.
        masks: `(batch, frames, patches)`, of each frame the mean of its one or two masks.
        loss: scalar, how far the masked frames of a pair are from pointing the same way; None if not wanted.
    """

    tokens: Tensor
    interactive: Tensor | None
    points: Tensor
    masks: Tensor
    loss: Tensor | None

    @property
    def aligned(self) -> Tensor:
        """`(batch, frames, tokens, hidden)`, tokens with the patches weighed by the masks."""
        return self.tokens * self._weights()[..., None]

    def projected(self, layer: nn.Linear) -> Tensor:
        """`layer(aligned)`."""
        return weighed_linear(self.tokens, self._weights(), layer)

    def _weights(self) -> Tensor:
        return F.pad(self.masks, (1, 0), value=1.0).to(self.tokens.dtype)  # the frame's own token stays


def _profile(centres: Tensor, side: int, radius: float, slope: float, shift: Tensor | None) -> Tensor:
    """Mask along one axis, `(..., side)`, around centres `(...)`; with a shift the mean of three."""
    positions = torch.linspace(-1, 1, side, dtype=centres.dtype, device=centres.device)
    centres = centres[..., None, None]
    if shift is not None:
        steps = torch.arange(-1, 2, dtype=centres.dtype, device=centres.device)
        centres = centres + (steps * shift.to(centres.dtype))[:, None]
    distance = (positions - centres).abs()
    return (1 - slope * (distance - radius)).clamp(0, 1).mean(-2)


def interaction_masks(
    points: Tensor, side: int, radius: float = 0.25, slope: float = 1.5, shift: Tensor | None = None
) -> Tensor:
    """Masks around points: 1 up to `radius` along both axes, then falling by `slope`, axis by axis.

    Args:
        points: `(..., 2)`, x and y.
        side: rows and columns of the mask.
        radius: half width of the plateau.
        slope: fall per unit of distance; the two axes are multiplied.
        shift: scalar tensor: the mean of the nine masks at the point and shifted by this, either way along
            both axes. As the mask is a product, that mean is the product of the means along the axes.

    Returns:
        `(..., side, side)`, rows first.
    """
    along_x, along_y = _profile(points, side, radius, slope, shift).unbind(-2)
    return along_y[..., :, None] * along_x[..., None, :]


def to_frames(earlier: Tensor, later: Tensor) -> Tensor:
    """Values of pairs `(batch, pairs, ...)`, for the earlier and the later frame of each, to the mean of each
    frame's one or two, `(batch, pairs + 1, ...)`."""
    middle = (earlier[:, 1:] + later[:, :-1]) / 2
    return torch.cat([earlier[:, :1], middle, later[:, -1:]], dim=1)


class _Frames(torch.autograd.Function):
    """Tokens `(batch, frames, 1 + patches, hidden)` to the frames' own `(batch, frames, 1, hidden)` and the
    patches of the earlier and the later frame of each pair, `(batch, pairs, patches, hidden)`.

    As slices they would each have a gradient of the tokens' size, most of it copied zeros.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.shape = tokens.shape
        return tokens[:, :, :1], tokens[:, :-1, 1:], tokens[:, 1:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        own, earlier, later = gradients
        given = next((gradient for gradient in gradients if gradient is not None), None)
        if given is None:
            return None
        result = given.new_empty(ctx.shape)
        for part, gradient in ((result[:, :, :1], own), (result[:, :-1, 1:], earlier)):
            if gradient is None:
                part.zero_()
            else:
                part.copy_(gradient)
        result[:, -1, 1:] = 0
        if later is not None:
            result[:, 1:, 1:] += later
        return result


class ILAPairConv(nn.Conv2d):
    """Convolution of the maps of two frames, as if their channels were concatenated: the weights are split
    instead of the maps copied."""

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:  # type: ignore[override]
        """Maps of the two frames, `(pairs, channels, height, width)`, to one."""
        first, second = self.weight.chunk(2, dim=1)
        return self._conv_forward(earlier, first, self.bias) + self._conv_forward(later, second, None)


def _for_maps(bias: Tensor | None, maps: Tensor) -> Tensor:
    """A convolution's bias, to be added to `(batch, channels, height, width)` under autocast too."""
    return cast(Tensor, bias).to(maps.dtype).view(-1, 1, 1)


class ILADepthwise(nn.Module):
    """Depthwise 3 x 3 convolution, BatchNorm and ReLU of one frame of each pair, and its half of what joins
    them."""

    def __init__(self, width: int, synchronized: bool, place: int) -> None:
        super().__init__()
        self.place = place
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = BatchNorm2d(width, synchronized=synchronized)

    def forward(self, maps: Tensor, joining: Tensor) -> Tensor:
        """`(pairs, hidden, height, width)` to `(pairs, align_hidden, height, width)`, by this frame's half of
        the joining weights, `(align_hidden, 2 * hidden, 1, 1)`."""
        x, weight = self.conv(maps), joining.chunk(2, dim=1)[self.place]
        if isinstance(self.norm, nn.Identity):  # folded
            return pointwise(F.relu(x), weight)
        return convolve(x, weight, (1, 1), (0, 0), self.norm)


class ILAInteractiveBlock(nn.Module):
    """Joins the two frames of a pair and looks at 3 x 3 patches of the result; published for
    Something-Something v2."""

    joining_kernel = 3

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        width, hidden = config.vision_config.hidden_size, config.align_hidden
        synchronized = config.synchronize_batch_norm
        kernel = self.joining_kernel
        self.join = ILAPairConv(2 * width, hidden, kernel, padding=kernel // 2)
        self.join_norm = BatchNorm2d(hidden, synchronized=synchronized)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.norm = BatchNorm2d(hidden, synchronized=synchronized)

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Maps of the frames, `(pairs, hidden, height, width)`, to `(pairs, align_hidden, height, width)`."""
        return self._look(self.join(earlier, later))

    def _look(self, joined: Tensor) -> Tensor:
        if isinstance(self.join_norm, nn.Identity):  # folded
            return F.relu(self.norm(self.conv(F.relu(joined))))
        x = convolve(joined, self.conv.weight, (1, 1), (1, 1), self.join_norm)
        return F.relu(self.norm(x + _for_maps(self.conv.bias, x)))


class ILADepthwiseInteractiveBlock(ILAInteractiveBlock):
    """The same with a depthwise convolution of each frame first, and a 1 x 1 convolution that joins them;
    published for Kinetics-400."""

    joining_kernel = 1

    def __init__(self, config: ILAConfig) -> None:
        super().__init__(config)
        width, synchronized = config.vision_config.hidden_size, config.synchronize_batch_norm
        self.earlier = ILADepthwise(width, synchronized, 0)
        self.later = ILADepthwise(width, synchronized, 1)

    def forward(self, earlier: Tensor, later: Tensor) -> Tensor:
        """As above."""
        joined = self.earlier(earlier, self.join.weight) + self.later(later, self.join.weight)
        return self._look(joined + _for_maps(self.join.bias, joined))


def interactive_block(config: ILAConfig) -> ILAInteractiveBlock:
    """The interactive block that a configuration names."""
    is_depthwise = config.interactive_block == "depthwise"
    return ILADepthwiseInteractiveBlock(config) if is_depthwise else ILAInteractiveBlock(config)


class ILAPointHead(nn.Module):
    """Predicts where to look in the two frames of each pair; at the start always at their centres."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        hidden, half = config.align_hidden, config.align_hidden // 2
        synchronized = config.synchronize_batch_norm
        self.conv1 = nn.Conv2d(hidden, half, 3, padding=1)
        self.norm1 = BatchNorm2d(half, synchronized=synchronized)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1)
        self.norm2 = BatchNorm2d(half, synchronized=synchronized)
        # Two groups: the earlier point sees the first half of the channels only, the later one the second.
        self.hidden = nn.Conv1d(half, half // 2, 1, groups=2)
        self.out = nn.Conv1d(half // 2, 4, 1, groups=2)
        started(self.out, std=0.0)
        self.point_range = config.point_range

    def forward(self, features: Tensor) -> Tensor:
        """`(pairs, align_hidden, height, width)` to points `(pairs, 4)`, float32 or better."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(features)), 2))
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))
        x = F.adaptive_max_pool2d(x, 1).flatten(2)
        x = self.out(F.relu(self.hidden(x))).squeeze(-1)
        return self.point_range * x.to(torch.promote_types(x.dtype, torch.float32)).tanh()


class ILAAligner(nn.Module):
    """Aligns the frames of a clip with their neighbours.

    Every frame is convolved where it lies: maps of pairs are never copied side by side, and the masks of a
    frame are averaged before they weigh it.
    """

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        self.mask_radius, self.mask_slope = config.mask_radius, config.mask_slope
        self.interactive = interactive_block(config)
        self.point_head = ILAPointHead(config)
        self.temporal_conv: nn.Conv2d | None = None
        if config.token_mode == "add":
            half = config.align_hidden // 2
            self.temporal_conv = nn.Conv2d(half, half, (3, 1), padding=(1, 0))
            self.out_proj = OneDNNLinear(half, config.vision_config.hidden_size)

    def forward(
        self,
        tokens: Tensor,
        shift: Tensor | None = None,
        with_loss: bool = True,
        projection: nn.Linear | None = None,
    ) -> Alignment:
        """Align tokens `(batch, frames, 1 + patches, hidden)`, the frame's own token first.

        Args:
            shift: scalar tensor, the disturbance of the points; None for none.
            with_loss: whether to compute the loss.
            projection: what the interactive features go through.
        """
        batch, frames, count, _ = tokens.shape
        side = math.isqrt(count - 1)
        own, *pair = _Frames.apply(tokens)
        maps = [frame.flatten(0, 1).unflatten(1, (side, side)).permute(0, 3, 1, 2) for frame in pair]
        features = self.interactive(*maps)
        points = self.point_head(features).unflatten(0, (batch, frames - 1))
        masks = interaction_masks(
            points.unflatten(-1, (2, 2)), side, self.mask_radius, self.mask_slope, shift
        )
        earlier, later = masks.flatten(-2).unbind(2)
        mean_masks = to_frames(earlier, later)
        loss = self._loss(tokens, earlier, later) if with_loss else None
        interactive = None
        if self.temporal_conv is not None:
            pairs = features.permute(0, 2, 3, 1).reshape(batch, frames - 1, count - 1, -1)
            mixed = to_frames(*pairs.chunk(2, dim=-1)).permute(0, 3, 1, 2)
            mixed = self.temporal_conv(mixed).permute(0, 2, 3, 1)
            interactive = self._widened(own, mixed, projection)
        return Alignment(tokens, interactive, points, mean_masks, loss)

    def _widened(self, own: Tensor, mixed: Tensor, projection: nn.Linear | None) -> Tensor:
        """Interactive features, with the frames' own tokens in front: `(batch, frames, tokens, hidden)`.

        Two linear layers in a row are one, whose weights cost far less than the patches' wide features do.
        """
        layer = self.out_proj
        # What a model costs is told of its layers as they are, by tensors without content.
        is_counted = mixed.is_meta or type(mixed) is not Tensor
        if projection is None or is_counted or {type(layer), type(projection)} != {OneDNNLinear}:
            mixed = layer(mixed)
            interactive = torch.cat([own.to(mixed.dtype), mixed], dim=2)
            return interactive if projection is None else projection(interactive)
        weight = linear(layer.weight.T, projection.weight, None).T
        bias = linear(layer.bias[None], projection.weight, projection.bias)[0]
        return torch.cat([projection(own), linear(mixed, weight, bias)], dim=2)

    @staticmethod
    def _loss(tokens: Tensor, earlier: Tensor, later: Tensor) -> Tensor:
        """Mean over pairs of 1 - cosine of the two frames' masked sums."""
        # Both masks of every frame at once, zero for the frame's own token and where there is no pair.
        masks = torch.stack([F.pad(earlier, (1, 0, 0, 1)), F.pad(later, (1, 0, 1, 0))], dim=2)
        sums = masks.to(tokens.dtype) @ tokens
        sums = sums.to(torch.promote_types(sums.dtype, torch.float32))
        first, second = sums[:, :-1, 0], sums[:, 1:, 1]
        return (1 - F.cosine_similarity(first, second, dim=-1, eps=1e-12)).mean()
