"""The generator of temporally adversarial examples: scores the frames of a clip, and drops the lowest.

Official code: github.com/tinapan-pt/VideoMoCo, moco/builder.py. The paper speaks of a ConvLSTM; this is what
the authors' code has: 2-D convolutions over all frames stacked as channels, and an LSTM that runs over the
resulting maps, which are no longer frames.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...nn.batch_norm import BatchNorm2d
from ...nn.memory_format import prefers_channels_last
from .configuration_videomoco import VideoMoCoConfig, generator_map_side

ATROUS_DILATIONS = (6, 12, 18)
STEM_ROUNDS, POOLING_ROUNDS = 3, 3


class HiddenLinear(nn.Linear):
    """A linear layer that begins as torch's own do; the last layers of encoders and classifiers do not."""


class VideoMoCoGenerator(nn.Module):
    """Scores `(batch, frames)` of a clip, each row summing to 1.

    The frames become `channels * frames` channels of an image. One convolution is applied three times, five
    branches look at the result at different ranges, another convolution is applied six times with three
    poolings, and the maps that are left (one a frame in number, not in content) are the steps of an LSTM. Of
    its outputs the last one counts, in which the backward direction has seen one step only.
    """

    def __init__(self, config: VideoMoCoConfig) -> None:
        super().__init__()
        self.frames, self.map_values = config.num_frames, config.generator_features or 1
        width, frames = config.num_channels * config.num_frames, config.num_frames
        synchronized = config.synchronize_batch_norm
        self.stem_conv = nn.Conv2d(width, width, 3, padding=1, dilation=2, bias=False)
        self.stem_norm = BatchNorm2d(width, eps=1e-3, synchronized=synchronized)
        self.image_conv = nn.Conv2d(width, width, 1)
        self.point_conv = nn.Conv2d(width, width, 1)
        self.atrous_convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=rate, dilation=rate) for rate in ATROUS_DILATIONS
        )
        self.fuse_conv = nn.Conv2d((2 + len(ATROUS_DILATIONS)) * width, width, 1)
        self.reduce_conv = nn.Conv2d(width, frames, 3, padding=1)
        self.reduce_norm = BatchNorm2d(frames, synchronized=synchronized)
        self.refine_conv = nn.Conv2d(frames, frames, 3, padding=1)
        self.refine_norm = BatchNorm2d(frames, synchronized=synchronized)
        self.lstm = nn.LSTM(
            self.map_values, config.generator_hidden // 2, batch_first=True, bidirectional=True
        )
        self.score = HiddenLinear(config.generator_hidden, frames)

    def check_size(self, frames: int, height: int, width: int) -> None:
        """Raise InputError for clips that the weights do not fit."""
        sides = generator_map_side(height), generator_map_side(width)
        if frames != self.frames or min(sides) < 1 or sides[0] * sides[1] != self.map_values:
            side = round(self.map_values**0.5)
            raise InputError(
                f"the generator does not fit clips of {frames} frames of {height}x{width}: its weights are"
                f" for {self.frames} frames whose last map has {self.map_values} values (height and width"
                f" {8 * side + 3} to {8 * side + 10}). Give such clips, or train a generator for yours"
                " (num_frames, image_size, generator_features=None)"
            )

    def stem(self, pixel_values_videos: Tensor) -> Tensor:
        """`(batch, frames, channels, height, width)` to `(batch, channels * frames, height-3, width-3)`."""
        x = pixel_values_videos.transpose(1, 2).flatten(1, 2)
        if prefers_channels_last(x):
            x = x.contiguous(memory_format=torch.channels_last)
        for _ in range(STEM_ROUNDS):
            x = F.relu(self.stem_norm(self.stem_conv(x)), inplace=True)
            x = F.max_pool2d(x, 2, stride=1, padding=1)
        return x

    def context(self, x: Tensor) -> Tensor:
        """The same map seen as a whole, at each point, and at three distances; then mixed."""
        image = self.image_conv(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [image, self.point_conv(x), *(conv(x) for conv in self.atrous_convs)]
        return self.fuse_conv(torch.cat(branches, dim=1))

    def steps(self, x: Tensor) -> Tensor:
        """`(batch, channels * frames, ...)` to what the LSTM reads, `(batch, frames, map values)`."""
        x = F.relu(self.reduce_norm(self.reduce_conv(x)), inplace=True)
        for _ in range(POOLING_ROUNDS):
            for _ in range(2):
                x = F.relu(self.refine_norm(self.refine_conv(x)), inplace=True)
            x = F.avg_pool2d(x, 2)
        return x.flatten(2)

    def summary(self, steps: Tensor) -> Tensor:
        """Last output of the LSTM: `(batch, hidden)`."""
        return self.lstm(steps)[0][:, -1]

    def forward(self, pixel_values_videos: Tensor) -> Tensor:
        """Scores `(batch, frames)` of normalised clips `(batch, frames, channels, height, width)`."""
        frames, _, height, width = pixel_values_videos.shape[1:]
        self.check_size(frames, height, width)
        dtype = self.score.weight.dtype
        steps = self.steps(self.context(self.stem(pixel_values_videos.to(dtype))))
        # Half precision would make ties of scores that differ by a few percent of 1/frames.
        with torch.autocast(steps.device.type, enabled=False):
            logits = self.score(self.summary(steps.to(dtype)))
            return logits.softmax(1, dtype=torch.promote_types(dtype, torch.float32))


def lowest_frames(scores: Tensor, count: int) -> Tensor:
    """Indices `(batch, count)` of the frames with the smallest of `(batch, frames)` scores, ascending."""
    return scores.topk(count, dim=1, largest=False).indices.sort(1).values


class _DropFrames(torch.autograd.Function):
    @staticmethod
    def forward(clips: Tensor, scores: Tensor, dropped: Tensor) -> Tensor:
        is_dropped = torch.zeros_like(scores, dtype=torch.bool).scatter(1, dropped, True)
        means = clips.mean((2, 3, 4), keepdim=True)
        return torch.where(is_dropped[:, :, None, None, None], means, clips)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.dtype = inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, gradient.sum((2, 3, 4), dtype=ctx.dtype), None


def drop_frames(clips: Tensor, scores: Tensor, dropped: Tensor) -> Tensor:
    """Clips whose dropped frames hold one value, each frame's own mean over channels and pixels.

    The gradient of a frame's score is the sum of its pixels' gradients, of dropped frames and of others: as
    if every score had been added to its frame. The clips receive none.

    Args:
        clips: `(batch, frames, channels, height, width)`.
        scores: `(batch, frames)`; only their gradient matters.
        dropped: `(batch, count)` int64 indices of frames.
    """
    return _DropFrames.apply(clips, scores, dropped)


__all__ = ["VideoMoCoGenerator", "drop_frames", "lowest_frames"]
