"""R3D and mixed-convolution networks, and the 18-layer video ResNets by name (Tran et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .batch_norm import BatchNorm3d
from .norm_relu_convolution import convolve
from .r2plus1d import MakeConvolution, R2Plus1dStem, VideoResNet, make_conv2plus1d

__all__ = ["Convolution3d", "R3dStem", "make_video_resnet"]


class Convolution3d(nn.Conv3d):
    """A padded convolution without bias that takes BatchNorm and ReLU of its input along."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
    ) -> None:
        self.edges = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, stride, self.edges, bias=False)

    def forward(self, x: Tensor, norm: BatchNorm3d | None = None) -> Tensor:
        """`(batch, in_channels, ...)` to `(batch, out_channels, ...)`; of `relu(norm(x))` where a norm is
        given."""
        return convolve(x, self.weight, self.stride, self.edges, norm)


def make_conv3d(
    in_channels: int, out_channels: int, mid_channels: int, stride: int, synchronized: bool
) -> nn.Module:
    """The 3x3x3 convolution of R3D blocks."""
    return Convolution3d(in_channels, out_channels, (3, 3, 3), (stride, stride, stride))


def make_conv_in_space(
    in_channels: int, out_channels: int, mid_channels: int, stride: int, synchronized: bool
) -> nn.Module:
    """The 1x3x3 convolution of the later stages of MC3: frames are never mixed or skipped."""
    return Convolution3d(in_channels, out_channels, (1, 3, 3), (1, stride, stride))


class R3dStem(GradientCheckpointingLayer):
    """3x7x7 convolution with stride 2 in space, BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, synchronized: bool = True) -> None:
        super().__init__()
        self.conv = Convolution3d(in_channels, out_channels, (3, 7, 7), (1, 2, 2))
        self.norm = BatchNorm3d(out_channels, synchronized=synchronized)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, frames, height, width)` to
        `(batch, out_channels, frames, height/2, width/2)`."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


def make_video_resnet(
    arch: str,
    in_channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    stem_width: int = 45,
    synchronized: bool = True,
) -> VideoResNet:
    """A network of the family "r3d_18", "mc3_18" or "r2plus1d_18", of any width and depth.

    Args:
        in_channels: channels of a frame.
        widths, depths: channels and blocks of each stage.
        stem_width: r2plus1d_18: channels between the stem's two convolutions.
        synchronized: BatchNorm statistics over all processes.
    """
    stem: nn.Module
    if arch == "r2plus1d_18":
        stem = R2Plus1dStem(in_channels, widths[0], stem_width, synchronized)
    else:
        stem = R3dStem(in_channels, widths[0], synchronized)
    later: MakeConvolution = {
        "r2plus1d_18": make_conv2plus1d,
        "r3d_18": make_conv3d,
        "mc3_18": make_conv_in_space,
    }[arch]
    first = make_conv3d if arch == "mc3_18" else later
    makers = [first] + [later] * (len(widths) - 1)
    return VideoResNet(stem, widths, depths, makers, synchronized)
