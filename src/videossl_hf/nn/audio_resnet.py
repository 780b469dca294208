"""2-D ResNet of basic blocks for spectrograms (He et al., CVPR 2016); "ResNet-9" with one block a stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .batch_norm import BatchNorm2d

__all__ = ["AudioResNet", "AudioResNetBlock", "AudioResNetStem"]


class AudioResNetStem(nn.Module):
    """7x7 convolution with stride 2, BatchNorm, ReLU, 3x3 max-pooling with stride 2."""

    def __init__(self, out_channels: int, synchronized: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, out_channels, 7, stride=2, padding=3, bias=False)
        self.norm = BatchNorm2d(out_channels, synchronized=synchronized)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1, mel, time)` to `(batch, out_channels, mel/4, time/4)`."""
        return F.max_pool2d(F.relu(self.norm(self.conv(x)), inplace=True), 3, stride=2, padding=1)


class AudioShortcut(nn.Module):
    """1x1 convolution and BatchNorm, for blocks that change the shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, synchronized: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.norm = BatchNorm2d(out_channels, synchronized=synchronized)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, mel, time)` to `(batch, out_channels, mel/stride, time/stride)`."""
        return self.norm(self.conv(x))


class AudioResNetBlock(GradientCheckpointingLayer):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, synchronized: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm2d(out_channels, synchronized=synchronized)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(out_channels, synchronized=synchronized)
        self.shortcut = (
            AudioShortcut(in_channels, out_channels, stride, synchronized)
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, mel, time)` to `(batch, out_channels, mel/stride, time/stride)`."""
        residual = self.shortcut(x)
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)) + residual, inplace=True)


class AudioResNet(nn.Module):
    """Stem and stages; every stage after the first halves both axes (rounded up)."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], synchronized: bool = True) -> None:
        super().__init__()
        self.stem = AudioResNetStem(widths[0], synchronized)
        self.stages = nn.ModuleList()
        in_channels = widths[0]
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            channels = [in_channels] + [width] * (depth - 1)
            self.stages.append(
                nn.Sequential(
                    *(
                        AudioResNetBlock(channel, width, stride, synchronized)
                        for channel, stride in zip(channels, strides, strict=True)
                    )
                )
            )
            in_channels = width

    def forward(self, spectrogram: Tensor) -> Tensor:
        """`(batch, 1, mel, time)` to the last feature map `(batch, widths[-1], mel', time')`."""
        if spectrogram.device.type == "cpu":
            spectrogram = spectrogram.contiguous(memory_format=torch.channels_last)
        x = self.stem(spectrogram)
        for stage in self.stages:
            x = stage(x)
        return x
