"""The discrete VAE of DALL-E (Ramesh et al., ICML 2021, arXiv:2102.12092), one code for 8 x 8 pixels.

VIMPAC's tokeniser: a frame of 128 x 128 pixels becomes 16 x 16 codes out of 8192. The encoder is
convolutions, ReLU and max-pooling alone; a code is the channel whose logit is largest. The decoder makes
pictures of codes. The networks are those of the package `DALL-E` (openai/DALL-E, dall_e/encoder.py and
decoder.py), and the encoder that of transformers' `FlavaImageCodebook`; `conversion_dvae.py` reads the
weights of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple

from ...errors import InputError
from ...nn.base import VideoSSLPreTrainedModel
from .configuration_dvae import NUM_GROUPS, STRIDE, DVAEConfig


@dataclass
class DVAEModelOutput(ModelOutput):
    """Output of `DVAEModel`.

    Attributes:
        codes: `(batch, frames, rows, columns)` int64.
        logits: `(batch, frames, codes, rows, columns)` float32.
    """

    codes: Tensor | None = None
    logits: Tensor | None = None


class DVAEBlock(GradientCheckpointingLayer):
    """Residual block of four convolutions; the shortcut is a 1 x 1 convolution where the width changes."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, int, int, int], gain: float
    ) -> None:
        super().__init__()
        hidden = out_channels // 4
        widths = [in_channels, hidden, hidden, hidden, out_channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[place], widths[place + 1], size, padding=size // 2)
            for place, size in enumerate(kernel_sizes)
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """`(frames, in_channels, height, width)` to `(frames, out_channels, height, width)`."""
        residual = x
        for conv in self.convs:
            residual = conv(F.relu(residual))
        return self.shortcut(x) + self.gain * residual


def _groups(
    first: int, widths: list[int], blocks: int, kernel_sizes: tuple[int, int, int, int], gain: float
) -> nn.ModuleList:
    """Groups of blocks; the first block of each changes the width."""
    groups = nn.ModuleList()
    for before, width in zip([first, *widths[:-1]], widths, strict=True):
        groups.append(
            nn.Sequential(
                *(
                    DVAEBlock(before if block == 0 else width, width, kernel_sizes, gain)
                    for block in range(blocks)
                )
            )
        )
    return groups


def _full_precision(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution in float32 or better: half precision would swap codes whose logits lie close."""
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        bias = None if conv.bias is None else conv.bias.to(dtype)
        return F.conv2d(x.to(dtype), conv.weight.to(dtype), bias)


class DVAEEncoder(nn.Module):
    """Frames to the logits of their codes, an eighth of the size."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        width = config.hidden_size
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Conv2d(config.num_channels, width, 7, padding=3)
        self.groups = _groups(width, widths, config.num_blocks_per_group, (3, 3, 3, 1), config.residual_gain)
        self.head = nn.Conv2d(widths[-1], config.vocab_size, 1)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """The maps after the stem and after each group."""
        maps = [self.stem(pixels)]
        for index, group in enumerate(self.groups):
            x = maps[-1]
            x = group(x)
            maps.append(F.max_pool2d(x, 2) if index < NUM_GROUPS - 1 else x)
        return maps

    def forward(self, pixels: Tensor) -> Tensor:
        """`(frames, channels, height, width)` to `(frames, codes, height / 8, width / 8)` float32."""
        return _full_precision(self.head, F.relu(self.stages(pixels)[-1]))


class DVAEDecoder(nn.Module):
    """Codes to pictures, eight times the size."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        widths = [8 * width, 4 * width, 2 * width, width]
        self.stem = nn.Conv2d(config.vocab_size, config.decoder_stem_size, 1)
        self.groups = _groups(
            config.decoder_stem_size,
            widths,
            config.num_blocks_per_group,
            (1, 3, 3, 3),
            config.residual_gain,
        )
        # Location and scale of a Laplace distribution of each channel; pictures take the location.
        self.head = nn.Conv2d(width, 2 * config.num_channels, 1)

    def forward(self, weights: Tensor) -> Tensor:
        """Weights of the codes `(frames, codes, rows, columns)` (one-hot, or a relaxation of it) to
        `(frames, 2 * channels, 8 * rows, 8 * columns)` float32."""
        x = self.stem(weights)
        for index, group in enumerate(self.groups):
            x = group(x)
            if index < NUM_GROUPS - 1:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return _full_precision(self.head, F.relu(x))


class DVAEModel(VideoSSLPreTrainedModel):
    """Tokeniser: frames to codes, and with a decoder back. Frozen unless `config.freeze` is False.

    Frames are either uint8, or floating point as a processor with `image_mean=-0.125, image_std=1.25` gives
    them: `map_pixels` of [0, 1].
    """

    config_class = DVAEConfig
    base_model_prefix = "dvae"
    _no_split_modules: ClassVar[list[str]] = ["DVAEBlock"]

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__(config)
        self.encoder = DVAEEncoder(config)
        self.decoder = DVAEDecoder(config) if config.use_decoder else None
        self.post_init()
        self.train(self.training)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True) -> DVAEModel:
        """Change the mode as torch does, and freeze: loading would otherwise thaw what was built frozen."""
        super().train(mode)
        if self.config.freeze:
            self.requires_grad_(False)
        return self

    @can_return_tuple
    def forward(self, pixel_values_videos: Tensor, **kwargs: Any) -> DVAEModelOutput:
        """Codes and logits of frames `(batch, frames, channels, height, width)`.

        The logits of a full-size clip are large: `encode` gives the codes alone.
        """
        frames = self._checked(pixel_values_videos)
        logits = self.encoder(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])
        return DVAEModelOutput(codes=logits.argmax(-3), logits=logits)

    @torch.no_grad()
    def encode(self, frames: Tensor, chunk_size: int | None = None) -> Tensor:
        """Codes of frames.

        Args:
            frames: `(..., channels, height, width)`, uint8 or normalised; sides are multiples of 8.
            chunk_size: frames at a time; `config.chunk_size` by default.

        Returns:
            `(..., height / 8, width / 8)` int64.

        Raises:
            InputError: a shape or type that does not fit.
        """
        frames = self._checked(frames)
        codes = [
            self.encoder(chunk).argmax(1)
            for chunk in frames.flatten(0, -4).split(chunk_size or self.config.chunk_size)
        ]
        return torch.cat(codes).unflatten(0, frames.shape[:-3])

    @torch.no_grad()
    def decode(self, codes: Tensor, chunk_size: int | None = None) -> Tensor:
        """Pictures of codes.

        Args:
            codes: `(..., rows, columns)` int64, each within the vocabulary (no padding, no mask).
            chunk_size: frames at a time; `config.chunk_size` by default.

        Returns:
            `(..., channels, 8 * rows, 8 * columns)` float32 in [0, 1].

        Raises:
            InputError: a shape or type that does not fit, or a model without decoder.
        """
        if self.decoder is None:
            raise InputError("this tokeniser has no decoder (use_decoder=False)")
        if codes.ndim < 3 or codes.is_floating_point() or 0 in codes.shape:
            raise InputError(
                f"codes have shape {tuple(codes.shape)} and type {codes.dtype}; give (..., rows, columns)"
                " integers, with at least one leading axis"
            )
        channels, stem = self.config.num_channels, self.decoder.stem
        pictures = []
        for chunk in codes.long().flatten(0, -3).split(chunk_size or self.config.chunk_size):
            one_hot = F.one_hot(chunk, self.config.vocab_size).permute(0, 3, 1, 2).to(stem.weight.dtype)
            pictures.append(self.unmap_pixels(self.decoder(one_hot)[:, :channels].sigmoid()))
        return torch.cat(pictures).unflatten(0, codes.shape[:-2])

    def map_pixels(self, frames: Tensor) -> Tensor:
        """Frames in [0, 1] to what the encoder takes, [margin, 1 - margin]."""
        margin = self.config.pixel_margin
        return (1 - 2 * margin) * frames + margin

    def unmap_pixels(self, frames: Tensor) -> Tensor:
        """The inverse of `map_pixels`, clipped to [0, 1]."""
        margin = self.config.pixel_margin
        return ((frames - margin) / (1 - 2 * margin)).clamp(0, 1)

    def _checked(self, frames: Tensor) -> Tensor:
        """Frames on the model's device in its type, mapped if they are uint8."""
        shape, channels = tuple(frames.shape), self.config.num_channels
        if frames.ndim < 4 or shape[-3] != channels or 0 in shape or shape[-1] % STRIDE or shape[-2] % STRIDE:
            raise InputError(
                f"frames have shape {shape}; give (..., {channels}, height, width) with sides that are"
                f" multiples of {STRIDE}, and at least one leading axis"
            )
        weight = self.encoder.stem.weight
        if frames.dtype == torch.uint8:
            frames = self.map_pixels(frames.to(weight.device).float() / 255)
        elif not frames.is_floating_point():
            raise InputError(f"frames are {frames.dtype}; give uint8 or normalised floating point values")
        return frames.to(weight.device, weight.dtype)


__all__ = ["DVAEModel", "DVAEModelOutput"]
