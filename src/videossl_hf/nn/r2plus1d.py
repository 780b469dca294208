"""R(2+1)D video networks (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018).

`VideoResNet` takes its stem and its convolutions from the caller, so that other 3-D ResNets are a matter of
other parts. The layout is that of the widely used 18- and 34-layer networks for 112 x 112 clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .batch_norm import BatchNorm3d
from .memory_format import prefers_channels_last
from .norm_relu_convolution import convolve

__all__ = ["Conv2Plus1d", "R2Plus1dStem", "VideoResNet", "VideoResNetBlock", "VideoResNetStage"]


def factorized_width(in_channels: int, out_channels: int) -> int:
    """Channels between a 1x3x3 and a 3x1x1 convolution that give the parameters of one 3x3x3 convolution."""
    return (in_channels * out_channels * 27) // (in_channels * 9 + out_channels * 3)


class Conv2Plus1d(nn.Module):
    """A convolution over space, BatchNorm, ReLU and a convolution over time:
    `(batch, channels, frames, height, width)` in and out.

    On a CPU both convolutions run as 2-D ones: frames become samples for the one over space, and rows and
    columns become one axis for the one over time. With channels last in memory both are views, and 2-D
    kernels are faster than 3-D ones there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        *,
        space_kernel: int = 3,
        space_stride: int = 1,
        time_stride: int = 1,
        synchronized: bool = True,
    ) -> None:
        super().__init__()
        padding = space_kernel // 2
        self.stride = (time_stride, space_stride, space_stride)
        self.spatial = nn.Conv3d(
            in_channels,
            mid_channels,
            (1, space_kernel, space_kernel),
            stride=(1, space_stride, space_stride),
            padding=(0, padding, padding),
            bias=False,
        )
        self.norm = BatchNorm3d(mid_channels, synchronized=synchronized)
        self.temporal = nn.Conv3d(
            mid_channels, out_channels, (3, 1, 1), stride=(time_stride, 1, 1), padding=(1, 0, 0), bias=False
        )

    def forward(self, x: Tensor, norm: BatchNorm3d | None = None) -> Tensor:
        """`(batch, in_channels, frames, height, width)` to
        `(batch, out_channels, frames', height', width')`; of `relu(norm(x))` where a norm is given."""
        return _convolve_time(_convolve_space(x, self.spatial, norm), self.temporal, self.norm)


def _parts(convolution: nn.Conv3d) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    assert not isinstance(convolution.padding, str)
    return convolution.weight, convolution.stride, convolution.padding


def _convolve_space(x: Tensor, convolution: nn.Conv3d, norm: BatchNorm3d | None) -> Tensor:
    weight, stride, padding = _parts(convolution)
    if x.device.type != "cpu":
        return convolve(x, weight, stride, padding, norm)
    frames = x.transpose(1, 2).flatten(0, 1)
    y = convolve(frames, weight.squeeze(2), stride[1:], padding[1:], norm)
    return y.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def _convolve_time(x: Tensor, convolution: nn.Conv3d, norm: BatchNorm3d) -> Tensor:
    weight, stride, padding = _parts(convolution)
    if x.device.type != "cpu":
        return convolve(x, weight, stride, padding, norm)
    y = convolve(x.flatten(3), weight.squeeze(4), stride[:2], padding[:2], norm)
    return y.unflatten(3, x.shape[3:])


class R2Plus1dStem(GradientCheckpointingLayer):
    """1x7x7 convolution with stride 2 in space, then 3x1x1, each with BatchNorm and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, synchronized: bool = True
    ) -> None:
        super().__init__()
        self.conv = Conv2Plus1d(
            in_channels, out_channels, mid_channels, space_kernel=7, space_stride=2, synchronized=synchronized
        )
        self.norm = BatchNorm3d(out_channels, synchronized=synchronized)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, frames, height, width)` to
        `(batch, out_channels, frames, height/2, width/2)`."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Shortcut(nn.Module):
    """1x1x1 convolution and BatchNorm, for blocks that change the shape."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int], synchronized: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.norm = BatchNorm3d(out_channels, synchronized=synchronized)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, ...)` to `(batch, out_channels, .../stride)`."""
        return self.norm(self.conv(x))


# (in_channels, out_channels, mid_channels, stride, synchronized) -> a convolution with its `stride` of time,
# height and width; its forward takes a map and, where BatchNorm and ReLU come before it, that norm
MakeConvolution = Callable[[int, int, int, int, bool], Any]


def make_conv2plus1d(
    in_channels: int, out_channels: int, mid_channels: int, stride: int, synchronized: bool
) -> nn.Module:
    """The convolution of R(2+1)D blocks."""
    return Conv2Plus1d(
        in_channels,
        out_channels,
        mid_channels,
        space_stride=stride,
        time_stride=stride,
        synchronized=synchronized,
    )


class VideoResNetBlock(GradientCheckpointingLayer):
    """Two convolutions and a shortcut. Both use the mid width that the block's in and out channels give."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        make_convolution: MakeConvolution = make_conv2plus1d,
        synchronized: bool = True,
    ) -> None:
        super().__init__()
        mid = factorized_width(in_channels, out_channels)
        self.conv1 = make_convolution(in_channels, out_channels, mid, stride, synchronized)
        self.norm1 = BatchNorm3d(out_channels, synchronized=synchronized)
        self.conv2 = make_convolution(out_channels, out_channels, mid, 1, synchronized)
        self.norm2 = BatchNorm3d(out_channels, synchronized=synchronized)
        self.shortcut = (
            Shortcut(in_channels, out_channels, self.conv1.stride, synchronized)
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, frames, height, width)` to `(batch, out_channels, .../stride)`."""
        residual = self.shortcut(x)
        x = self.conv2(self.conv1(x), self.norm1)
        return F.relu(self.norm2(x) + residual, inplace=True)


class VideoResNetStage(nn.ModuleList):
    """Blocks of one width; the first one changes width and stride."""

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, frames, height, width)` to `(batch, out_channels, .../stride)`."""
        for block in self:
            x = block(x)
        return x


class VideoResNet(nn.Module):
    """Stem and stages; every stage after the first halves time, height and width (rounded up).

    Args:
        stem: from `(batch, channels, frames, height, width)` to `widths[0]` channels.
        widths: channels of each stage.
        depths: blocks of each stage.
        make_convolution: for each stage, what its blocks are made of; one for all, or one a stage.
        synchronized: BatchNorm statistics over all processes.
    """

    def __init__(
        self,
        stem: nn.Module,
        widths: Sequence[int],
        depths: Sequence[int],
        make_convolution: MakeConvolution | Sequence[MakeConvolution] = make_conv2plus1d,
        synchronized: bool = True,
    ) -> None:
        super().__init__()
        makers = [make_convolution] * len(widths) if callable(make_convolution) else make_convolution
        self.stem = stem
        self.stages = nn.ModuleList()
        in_channels = widths[0]
        for index, (width, depth, maker) in enumerate(zip(widths, depths, makers, strict=True)):
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            channels = [in_channels] + [width] * (depth - 1)
            self.stages.append(
                VideoResNetStage(
                    VideoResNetBlock(channel, width, stride, maker, synchronized)
                    for channel, stride in zip(channels, strides, strict=True)
                )
            )
            in_channels = width

    def forward(self, video: Tensor) -> Tensor:
        """Features of `(batch, channels, frames, height, width)`:
        `(batch, widths[-1], frames', height', width')`.

        Computed with channels last in memory where that is faster: on a CPU, and in half precision.
        """
        if prefers_channels_last(video):
            video = video.contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(video)
        for stage in self.stages:
            x = stage(x)
        return x
