"""Patch embedding of videos: cubes of pixels to vectors, all of them or only those that are kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["TubeletEmbedding"]


class TubeletEmbedding(nn.Conv3d):
    """A 3-D convolution whose kernel is its stride, computed as one matrix product.

    The weights are those of `nn.Conv3d`, so that checkpoints fit. Patches that a mask drops are never cut out
    nor multiplied, which is where masked training saves.

    Args:
        num_channels: of a frame.
        hidden_size: of a vector.
        tubelet_size: frames of a cube.
        patch_size: rows and columns of a cube.
        bias: whether the product has a bias.
    """

    def __init__(
        self, num_channels: int, hidden_size: int, tubelet_size: int, patch_size: int, bias: bool = True
    ) -> None:
        kernel = (tubelet_size, patch_size, patch_size)
        super().__init__(num_channels, hidden_size, kernel_size=kernel, stride=kernel, bias=bias)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tubelets, rows and columns of patches of a video.

        Raises:
            InputError: a size that is not a multiple of the kernel's.
        """
        for name, size, step in zip(
            ("frames", "height", "width"), (frames, height, width), self.kernel_size, strict=True
        ):
            if size < step or size % step:
                raise InputError(f"{name} = {size} is no multiple of {step}")
        tubelet, rows, columns = self.kernel_size
        return frames // tubelet, height // rows, width // columns

    def forward(self, pixel_values_videos: Tensor, kept: Tensor | None = None) -> Tensor:
        """Embed patches.

        Args:
            pixel_values_videos: `(batch, frames, channels, height, width)`.
            kept: `(batch, tubelets, patches)` int64, for each tubelet the places to embed, counted row by
                row; None embeds all.

        Returns:
            `(batch, tubelets, patches, hidden)`, in the order of `kept`.
        """
        batch, frames, channels, height, width = pixel_values_videos.shape
        tubelets, rows, columns = self.grid(frames, height, width)
        cubes = pixel_values_videos.reshape(
            batch, tubelets, frames // tubelets, channels, rows, height // rows, columns, width // columns
        ).permute(0, 1, 4, 6, 3, 2, 5, 7)
        if kept is None:
            cubes = cubes.flatten(2, 3)
        else:
            samples = torch.arange(batch, device=kept.device).view(-1, 1, 1)
            steps = torch.arange(tubelets, device=kept.device).view(-1, 1)
            cubes = cubes[samples, steps, kept // columns, kept % columns]
        return F.linear(cubes.flatten(3), self.weight.flatten(1), self.bias)
