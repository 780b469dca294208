"""Configuration of the discrete VAE that turns frames into codes."""

from typing import Any

from ...nn.base_config import VideoSSLConfig, check_range

NUM_GROUPS = 4
STRIDE = 8  # three poolings by two
LARGEST_WIDTH = 4096


class DVAEConfig(VideoSSLConfig):
    r"""Sizes of the discrete VAE. The defaults are those of OpenAI's (DALL-E), which VIMPAC takes.

    hidden_size (`int`): channels of the first group; each of the three further ones has twice as many.
    num_blocks_per_group (`int`): residual blocks in each of the four groups.
    vocab_size (`int`): codes.
    num_channels (`int`): channels of a frame.
    use_decoder (`bool`): whether there is a decoder, which only pictures need.
    decoder_stem_size (`int`): channels that a code is embedded into by the decoder.
    decoder_hidden_size (`int`): channels of the decoder's last group; each one before has twice as many.
    pixel_margin (`float`): frames in [0, 1] are mapped to [margin, 1 - margin] before they are encoded (the
        logit-Laplace epsilon of DALL-E).
    freeze (`bool`): the parameters never require a gradient. False lets a tokeniser be trained.
    chunk_size (`int`): frames that `encode` and `decode` take through the network at a time.
    """

    model_type = "videossl_dvae"

    hidden_size: int = 256
    num_blocks_per_group: int = 2
    vocab_size: int = 8192
    num_channels: int = 3
    use_decoder: bool = True
    decoder_stem_size: int = 128
    decoder_hidden_size: int = 256
    pixel_margin: int | float = 0.1
    freeze: bool = True
    chunk_size: int = 16

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
            "pixel_margin": (0, 0.49),
            "chunk_size": (1, 65536),
        }
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)
        for name in ("hidden_size", "decoder_hidden_size"):
            if getattr(self, name) % 4:
                raise ValueError(f"{name}={getattr(self, name)} is not a multiple of 4")


__all__ = ["DVAEConfig"]
