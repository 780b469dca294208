"""Mixup (Zhang et al., 2017) and CutMix (Yun et al., 2019) of clips, and the labels that go with them.

One weight, one permutation and one box for a whole batch and all frames, as ILA is trained (official file
datasets/blending.py). Drawing is apart from applying: a test, or a second process, can write the draw down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError

__all__ = ["Blend", "apply_blend", "blend_batch", "cutmix_box", "draw_blend", "smooth_labels"]


class BlendSettings(Protocol):
    """The fields of an augmentation that blending reads."""

    @property
    def label_smoothing(self) -> float:
        """Share of each label that is spread over all classes."""

    @property
    def blend_probability(self) -> float:
        """Of blending a batch at all."""

    @property
    def cutmix_probability(self) -> float:
        """Share of blended batches that CutMix blends."""

    @property
    def mixup_alpha(self) -> float:
        """Of Mixup's Beta distribution."""

    @property
    def cutmix_alpha(self) -> float:
        """Of CutMix's."""


@dataclass(frozen=True)
class Blend:
    """How a batch is blended with itself.

    Attributes:
        weight: share of a clip that stays its own; for CutMix that follows from the box.
        permutation: which clip each one is blended with.
        box: CutMix: (left, top, right, bottom) of what comes from the other clip; None for Mixup.
    """

    weight: float
    permutation: tuple[int, ...]
    box: tuple[int, int, int, int] | None = None


def smooth_labels(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Classes `(batch,)` as probabilities `(batch, num_classes)`: `smoothing` is spread over all classes."""
    hard = torch.nn.functional.one_hot(labels, num_classes).float()
    return hard * (1 - smoothing) + smoothing / num_classes


def cutmix_box(height: int, width: int, weight: float, centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) with about the share 1 - `weight` of the frame, cut off at its edges.

    Args:
        height, width: of the frame in pixels.
        weight: share of the frame that stays.
        centre: (column, row).
    """
    ratio = math.sqrt(1 - weight)
    half_width, half_height = int(width * ratio) // 2, int(height * ratio) // 2
    column, row = centre
    left, right = (min(max(column + side, 0), width) for side in (-half_width, half_width))
    top, bottom = (min(max(row + side, 0), height) for side in (-half_height, half_height))
    return left, top, right, bottom


def draw_blend(
    batch: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    cutmix_probability: float = 0.5,
) -> Blend:
    """Make every random choice for a batch.

    Args:
        batch: clips.
        height, width: of their frames.
        generator: source of all of it.
        mixup_alpha, cutmix_alpha: the weight comes from Beta(alpha, alpha).
        cutmix_probability: otherwise the batch is mixed up.
    """
    if mixup_alpha <= 0 or cutmix_alpha <= 0:
        raise ConfigurationError(
            f"mixup_alpha and cutmix_alpha must be positive, got {mixup_alpha}, {cutmix_alpha}"
        )
    # torch draws no Beta from a generator of one's own.
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    permutation = tuple(int(index) for index in numbers.permutation(batch))
    if numbers.uniform() >= cutmix_probability:
        return Blend(float(numbers.beta(mixup_alpha, mixup_alpha)), permutation)
    weight = float(numbers.beta(cutmix_alpha, cutmix_alpha))
    centre = int(numbers.integers(width)), int(numbers.integers(height))
    box = cutmix_box(height, width, weight, centre)
    return Blend(_kept_share(box, height, width), permutation, box)


def apply_blend(videos: Tensor, labels: Tensor, blend: Blend) -> tuple[Tensor, Tensor]:
    """Blend clips `(batch, ..., height, width)` and label probabilities `(batch, num_classes)`.

    With a box the labels' weight is that of the box itself, whatever `blend.weight` says.
    """
    others = torch.tensor(blend.permutation, device=videos.device)
    weight = blend.weight
    if blend.box is None:
        mixed = torch.lerp(videos[others], videos, weight)
    else:
        left, top, right, bottom = blend.box
        mixed = videos.clone()
        mixed[..., top:bottom, left:right] = videos[others][..., top:bottom, left:right]
        weight = _kept_share(blend.box, videos.shape[-2], videos.shape[-1])
    return mixed, torch.lerp(labels[others.to(labels.device)], labels, weight)


def blend_batch(
    videos: Tensor, labels: Tensor, num_classes: int, settings: BlendSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Smooth the labels, draw whether and how the batch is blended, and blend it.

    Args:
        videos: `(batch, ..., height, width)`.
        labels: classes `(batch,)`.
        num_classes: of the answers.
        settings: an augmentation with these fields.
        generator: source of all draws.

    Returns:
        The clips, and probabilities `(batch, num_classes)`.
    """
    soft = smooth_labels(labels, num_classes, settings.label_smoothing)
    if torch.rand((), generator=generator, dtype=torch.float64).item() >= settings.blend_probability:
        return videos, soft
    blend = draw_blend(
        len(videos),
        videos.shape[-2],
        videos.shape[-1],
        generator,
        mixup_alpha=settings.mixup_alpha,
        cutmix_alpha=settings.cutmix_alpha,
        cutmix_probability=settings.cutmix_probability,
    )
    return apply_blend(videos, soft, blend)


def _kept_share(box: tuple[int, int, int, int], height: int, width: int) -> float:
    left, top, right, bottom = box
    return 1 - (right - left) * (bottom - top) / (height * width)
