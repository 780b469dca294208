"""Configuration of the discrete VAE that turns frames into codes."""

from typing import Any, Literal

from ...nn.base_config import VideoSSLConfig, check_range

NUM_GROUPS = 4
STRIDE = 8  # three poolings by two
LARGEST_WIDTH = 4096


class DVAEConfig(VideoSSLConfig):
    r"""Sizes of the discrete VAE. The defaults are those of OpenAI's (DALL-E), which VIMPAC takes.

    architecture (`str`): "convolutions" are the discrete VAE; "patches" stores one patch of pixels for each
        code, the tokeniser of the smoke runs: see `PatchCodebook`.
    hidden_size (`int`): channels of the first group; each of the three further ones has twice as many.
    num_blocks_per_group (`int`): residual blocks in each of the four groups.
    vocab_size (`int`): codes.
    num_channels (`int`): channels of a frame.
    use_decoder (`bool`): whether there is a decoder, which only pictures need.
    decoder_stem_size (`int`): channels that a code is embedded into by the decoder.
    decoder_hidden_size (`int`): channels of the decoder's last group; each one before has twice as many.
    patch_tolerance (`float`): "patches" only: how far a pixel may be off for a patch to be drawn instead of
        the nearest one, in training.
    pixel_margin (`float`): frames in [0, 1] are mapped to [margin, 1 - margin] before they are encoded (the
        logit-Laplace epsilon of DALL-E).
    freeze (`bool`): the parameters never require a gradient. False lets a tokeniser be trained.
    chunk_size (`int`): frames that `encode` and `decode` take through the network at a time.

    Training, see `DVAEForPreTraining`; the defaults are DALL-E's:

    first_temperature, last_temperature (`float`): of the mixtures of codes that stand in for codes.
    temperature_steps (`int`): optimiser steps from the first to the last temperature.
    divergence_weight (`float`): of the codes' divergence from equal use, against the likelihood of all values
        that a code stands for (64 pixels of 3 channels).
    divergence_steps (`int`): optimiser steps in which that weight rises from 0.
    """

    model_type = "videossl_dvae"

    architecture: Literal["convolutions", "patches"] = "convolutions"
    hidden_size: int = 256
    num_blocks_per_group: int = 2
    vocab_size: int = 8192
    num_channels: int = 3
    use_decoder: bool = True
    decoder_stem_size: int = 128
    decoder_hidden_size: int = 256
    patch_tolerance: int | float = 0.1
    pixel_margin: int | float = 0.1
    freeze: bool = True
    chunk_size: int = 16

    first_temperature: int | float = 1.0
    last_temperature: int | float = 1 / 16
    temperature_steps: int = 150_000
    divergence_weight: int | float = 6.6
    divergence_steps: int = 5_000

    @property
    def residual_gain(self) -> float:
        """Factor of every residual path: one over the square of the number of blocks."""
        return 1 / (NUM_GROUPS * self.num_blocks_per_group) ** 2

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot work, before anything is built."""
        ranges: dict[str, tuple[Any, Any]] = {
            "hidden_size": (4, LARGEST_WIDTH),
            "decoder_hidden_size": (4, LARGEST_WIDTH),
            "decoder_stem_size": (1, LARGEST_WIDTH),
            "num_blocks_per_group": (1, 64),
            "vocab_size": (2, 2**17),
            "num_channels": (1, 64),
            "patch_tolerance": (1e-3, 1e3),
            "pixel_margin": (0, 0.49),
            "chunk_size": (1, 65536),
            "first_temperature": (1e-3, 1e3),
            "last_temperature": (1e-3, 1e3),
            "temperature_steps": (0, 2**31),
            "divergence_weight": (0, 1e6),
            "divergence_steps": (0, 2**31),
        }
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)
        for name in ("hidden_size", "decoder_hidden_size"):
            if getattr(self, name) % 4:
                raise ValueError(f"{name}={getattr(self, name)} is not a multiple of 4")


__all__ = ["DVAEConfig"]
