"""The discrete VAE of DALL-E (Ramesh et al., ICML 2021, arXiv:2102.12092), one code for 8 x 8 pixels.

VIMPAC's tokeniser: a frame of 128 x 128 pixels becomes 16 x 16 codes out of 8192. The encoder is
convolutions, ReLU and max-pooling alone; a code is the channel whose logit is largest. The decoder makes
pictures of codes. The networks are those of the package `DALL-E` (openai/DALL-E, dall_e/encoder.py and
decoder.py), and the encoder that of transformers' `FlavaImageCodebook`; `conversion_dvae.py` reads the
weights of both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple

from ...errors import ConfigurationError, InputError
from ...nn.base import VideoSSLPreTrainedModel
from ...nn.distributed import gather
from .configuration_dvae import NUM_GROUPS, STRIDE, DVAEConfig
from .objective_dvae import (
    code_perplexity,
    cosine_ramp,
    divergence_from_uniform,
    logit_laplace_loss,
    relaxed_codes,
)
from .patches_dvae import PatchCodebook


@dataclass
class DVAEModelOutput(ModelOutput):
    """Output of `DVAEModel`.

    Attributes:
        codes: `(batch, frames, rows, columns)` int64.
        logits: `(batch, frames, codes, rows, columns)` float32.
    """

    codes: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class DVAEForPreTrainingOutput(ModelOutput):
    """Output of `DVAEForPreTraining`: scalars, unweighted.

    Attributes:
        loss: loss_reconstruction plus the weighted divergence, in nats a value of a pixel.
        loss_reconstruction: negative log-likelihood of the frames.
        loss_divergence: of the codes' probabilities from equal ones, in nats a code.
        temperature: of the mixtures of codes.
        code_perplexity: how many codes the frames would use if they used all equally often.
    """

    loss: Tensor | None = None
    loss_reconstruction: Tensor | None = None
    loss_divergence: Tensor | None = None
    temperature: Tensor | None = None
    code_perplexity: Tensor | None = None


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
        first, *others = self.convs
        residual = first(F.relu(x))
        for conv in others:  # nobody else reads what the convolution before it gave
            residual = conv(F.relu(residual, inplace=True))
        return torch.add(self.shortcut(x), residual, alpha=self.gain)


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


class DVAEPreTrainedModel(VideoSSLPreTrainedModel):
    """Base class: initialisation."""

    config_class = DVAEConfig
    base_model_prefix = "dvae"
    _no_split_modules: ClassVar[list[str]] = ["DVAEBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            init.zeros_(module.bias)
        elif isinstance(module, PatchCodebook):
            init.normal_(module.patches)
            init.constant_(module.log_width, -2.0)
        elif isinstance(module, DVAEForPreTraining):
            init.zeros_(module.updates)
        else:
            super()._init_weights(module)


class DVAEModel(DVAEPreTrainedModel):
    """Tokeniser: frames to codes, and with a decoder back. Frozen unless `config.freeze` is False.

    Frames are either uint8, or floating point as a processor with `image_mean=-0.125, image_std=1.25` gives
    them: `map_pixels` of [0, 1].
    """

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__(config)
        self.codebook = self.encoder = self.decoder = None
        if config.architecture == "patches":
            self.codebook = PatchCodebook(config)
        else:
            self.encoder = DVAEEncoder(config)
            self.decoder = DVAEDecoder(config) if config.use_decoder else None
        self.post_init()
        self.train(self.training)

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
        logits = self.code_logits(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])
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
            self.code_logits(chunk).argmax(1)
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
        if codes.ndim < 3 or codes.is_floating_point() or 0 in codes.shape:
            raise InputError(
                f"codes have shape {tuple(codes.shape)} and type {codes.dtype}; give (..., rows, columns)"
                " integers, with at least one leading axis"
            )
        channels, pictures = self.config.num_channels, []
        for chunk in codes.long().flatten(0, -3).split(chunk_size or self.config.chunk_size):
            one_hot = F.one_hot(chunk, self.config.vocab_size).permute(0, 3, 1, 2).to(self.dtype)
            pictures.append(self.unmap_pixels(self.pixel_statistics(one_hot)[:, :channels].sigmoid()))
        return torch.cat(pictures).unflatten(0, codes.shape[:-2])

    def code_logits(self, frames: Tensor) -> Tensor:
        """Mapped frames `(frames, channels, height, width)` to `(frames, codes, height / 8, width / 8)`."""
        if self.codebook is not None:
            return self.codebook.logits(frames)
        assert self.encoder is not None
        return self.encoder(frames)

    def pixel_statistics(self, weights: Tensor) -> Tensor:
        """Weights of the codes `(frames, codes, rows, columns)` to peaks and logarithms of widths of the
        pixels' logits, `(frames, 2 * channels, 8 * rows, 8 * columns)`.

        Raises:
            InputError: a model without decoder.
        """
        if self.codebook is not None:
            return self.codebook.statistics(weights)
        if self.decoder is None:
            raise InputError("this tokeniser has no decoder (use_decoder=False)")
        return self.decoder(weights)

    def fingerprint(self) -> str:
        """What tells tokenisers apart that give other codes: a hash of the weights that encode, and of how
        pixels are mapped. The decoder has no part in it."""
        weights = {
            name: tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("decoder.")
        }
        mapping = f"{self.config.architecture} {self.config.pixel_margin}".encode()
        return hashlib.sha256(mapping + save(weights)).hexdigest()[:32]

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
        if frames.dtype == torch.uint8:
            frames = self.map_pixels(frames.to(self.device).float() / 255)
        elif not frames.is_floating_point():
            raise InputError(f"frames are {frames.dtype}; give uint8 or normalised floating point values")
        return frames.to(self.device, self.dtype)


class DVAEForPreTraining(DVAEPreTrainedModel):
    """The tokeniser in training: mixtures of codes, pictures of them, and their likelihood.

    Temperature and weight of the divergence follow the number of optimiser steps, which is saved with the
    weights. All parameters are trained, whatever `config.freeze` says of the tokeniser that comes out.
    """

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__(config)
        if not config.use_decoder:
            raise ConfigurationError("a tokeniser is trained with its decoder: set use_decoder=True")
        self.dvae = DVAEModel(config)
        self._has_started: bool | None = None  # unknown until the first step: a checkpoint may say so
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> DVAEForPreTraining:
        """Change the mode as torch does; nothing is frozen here."""
        super().train(mode)
        self.requires_grad_(True)
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> DVAEForPreTrainingOutput:
        """The loss of frames.

        Args:
            pixel_values_videos: `(batch, frames, channels, height, width)`, uint8 or normalised.
            noise: uniform in [0, 1), `(batch * frames, codes, height / 8, width / 8)`; drawn when None.
            generator: of the model's device; draws the noise.
        """
        config, model = self.config, self.dvae
        frames = model._checked(pixel_values_videos).flatten(0, -4)
        if self.training:
            self._start(frames)
        logits = model.code_logits(frames)
        temperature = cosine_ramp(
            self.updates, config.temperature_steps, config.first_temperature, config.last_temperature
        )
        mixtures = relaxed_codes(logits, temperature, noise, generator)
        reconstruction = logit_laplace_loss(model.pixel_statistics(mixtures), frames.float())
        divergence = divergence_from_uniform(logits)
        weight = cosine_ramp(self.updates, config.divergence_steps, 0.0, config.divergence_weight)
        values_of_a_code = config.num_channels * STRIDE**2
        return DVAEForPreTrainingOutput(
            loss=reconstruction + weight / values_of_a_code * divergence,
            loss_reconstruction=reconstruction,
            loss_divergence=divergence,
            temperature=temperature,
            code_perplexity=code_perplexity(logits.argmax(1), config.vocab_size),
        )

    def after_optimizer_step(self, step: int, max_steps: int) -> None:
        """Count the step; see `training`."""
        self.updates.fill_(step)

    def _start(self, frames: Tensor) -> None:
        """Before the first step of all, take the patches of all processes' frames."""
        if self._has_started is None:
            self._has_started = bool(self.updates > 0)
        if not self._has_started and self.dvae.codebook is not None:
            self.dvae.codebook.start_from(gather(frames).flatten(0, 1))
        self._has_started = True


__all__ = ["DVAEForPreTraining", "DVAEForPreTrainingOutput", "DVAEModel", "DVAEModelOutput"]
