"""What trains a discrete VAE as DALL-E's was (Ramesh et al., ICML 2021, arXiv:2102.12092, appendix A).

A code cannot be differentiated, so while training each place holds a mixture of codes, which a falling
temperature sharpens; the decoder's pictures are scored by a Laplace distribution of the pixels' logits.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["code_perplexity", "cosine_ramp", "divergence_from_uniform", "logit_laplace_loss", "relaxed_codes"]


def cosine_ramp(step: Tensor, steps: int, start: float, end: float) -> Tensor:
    """From `start` at step 0 to `end` at `steps` along half a cosine, and `end` from there on."""
    share = (step / max(steps, 1)).clamp(0, 1)
    return end + (start - end) * 0.5 * (1 + torch.cos(math.pi * share))


def relaxed_codes(
    logits: Tensor,
    temperature: Tensor | float,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mixtures of codes, drawn from the Gumbel-softmax distribution (Jang et al., arXiv:1611.01144).

    Args:
        logits: `(frames, codes, rows, columns)` float32.
        temperature: near 0 a mixture is one code, drawn with the probabilities of the logits.
        noise: uniform in [0, 1), of the logits' shape; drawn when None.
        generator: of the logits' device; draws the noise.

    Returns:
        weights of the logits' shape that add up to 1 over the codes.
    """
    if noise is None:
        noise = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    tiny = torch.finfo(logits.dtype).tiny
    gumbel = -torch.log((-torch.log(noise.clamp_min(tiny))).clamp_min(tiny))
    return F.softmax((logits + gumbel) / temperature, dim=1)


def logit_laplace_loss(statistics: Tensor, frames: Tensor) -> Tensor:
    """Mean negative log-likelihood of pixels, in nats a value.

    Args:
        statistics: `(frames, 2 * channels, height, width)`: places of the distribution's peaks on the logit
            scale, then logarithms of its widths.
        frames: `(frames, channels, height, width)`, within (0, 1).
    """
    mean, log_width = statistics.chunk(2, dim=1)
    distance = (torch.logit(frames) - mean).abs() * torch.exp(-log_width)
    return (distance + log_width + math.log(2) + torch.log(frames * (1 - frames))).mean()


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """Mean over places of the Kullback-Leibler divergence of the codes' probabilities, `(frames, codes, rows,
    columns)`, from equal ones, in nats."""
    log_probabilities = F.log_softmax(logits, dim=1)
    negative_entropy = (log_probabilities.exp() * log_probabilities).sum(1).mean()
    return negative_entropy + math.log(logits.shape[1])


def code_perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """How many codes would be in use if all were used equally often: the exponential of the entropy."""
    flat = codes.flatten()
    ones = torch.ones_like(flat, dtype=torch.float32)
    shares = torch.zeros(num_codes, device=codes.device).scatter_add(0, flat, ones) / len(flat)
    return torch.special.entr(shares).sum().exp()
