"""Augmentation of video clips: drawn per sample on the CPU, applied per batch on any device.

`draw_clip` makes every random choice for one clip from that sample's own generator; `augment_clips` applies a
list of such choices to a batch. Choices therefore don't depend on which samples share a batch or on how many
workers there are, and a test can write them down instead of drawing them. All frames of a clip are treated
alike.

Two orders exist. By default: crop, flip, colour jitter, gray, blur on values in [0, 1], then normalisation.
With `legacy_augmentations` the order and the constants of the official STiCA code: normalisation first, the
luma weights of blue-first frames, no clamping, one fixed blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from ..errors import ConfigurationError, InputError
from .clip_draw import ClipDraw
from .colour import RGB_LUMA, SWAPPED_LUMA
from .recolour import recolour_clips
from .spatial_crop import (
    Box,
    draw_crop_box,
    draw_resized_crop_box,
    resize_frames,
    resized_crop,
    short_side_size,
)

__all__ = [
    "LEGACY_BLUR_SIGMA",
    "ClipAugmentation",
    "augment_clips",
    "crop_clips",
    "draw_box",
    "draw_clip",
    "normalize_clips",
]

LEGACY_BLUR_SIGMA = (0.1, 2.0)
"""(height, width) standard deviation in pixels of the official blur, in effect along the width only."""


@dataclass(frozen=True)
class ClipAugmentation:
    """What may happen to a clip; the defaults are STiCA's.

    A range is (low, high). A probability of 0 or a strength of 0 switches a step off.
    """

    crop: str = "resized"
    """"resized": random area and ratio; "short_side": random short side, then a random square."""
    crop_area: tuple[float, float] = (0.14, 1.0)
    """Share of the frame's area that "resized" cuts out."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the box of "resized", log-uniform."""
    short_side: tuple[int, int] = (128, 160)
    """Short side in pixels of "short_side", both ends included; at least the size of the crop."""
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    """Of brightness, contrast and saturation together, in random order, each by 1 +- its strength."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_kernel: int = 11
    """Taps of the Gaussian, odd; narrowed where a frame is too small for it."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation in pixels, the same along height and width."""
    legacy_augmentations: bool = False
    """Order and constants of the official code (see the module's docstring)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            if field.name.endswith("_probability") and not 0 <= value <= 1:
                raise ConfigurationError(f"{field.name} must lie in [0, 1], got {value}")
        if self.crop not in ("resized", "short_side"):
            raise ConfigurationError(f"crop must be 'resized' or 'short_side', got {self.crop!r}")
        for name, low, high in [
            ("crop_area", 0, 1),
            ("crop_ratio", 0, float("inf")),
            ("short_side", 0, float("inf")),
            ("blur_sigma", 0, float("inf")),
        ]:
            value = getattr(self, name)
            if len(value) != 2 or not low < value[0] <= value[1] <= high:
                raise ConfigurationError(
                    f"{name} must be two numbers (low, high) above {low} and at most {high}, got {value}"
                )
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ConfigurationError(f"blur_kernel must be odd and positive, got {self.blur_kernel}")


def draw_clip(
    augmentation: ClipAugmentation, height: int, width: int, size: int, generator: torch.Generator
) -> ClipDraw:
    """Make every random choice for one clip.

    Args:
        augmentation: what may happen.
        height: of the decoded frames.
        width: of the decoded frames.
        size: side of the square that comes out.
        generator: the sample's own. It advances by the same amount whatever is switched on.

    Raises:
        InputError: "short_side" is smaller than `size`.
    """
    side_draw, *draws = torch.rand(12, generator=generator, dtype=torch.float64).tolist()
    resize, box = draw_box(augmentation, height, width, size, side_draw, generator)
    flip, jitter, gray, blur, *strengths, first, second, third, sigma = draws
    factors: tuple[tuple[str, float], ...] = ()
    if jitter < augmentation.jitter_probability:
        names = ("brightness", "contrast", "saturation")
        limits = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
        steps = [
            (priority, name, 1 + limit * (2 * strength - 1))
            for priority, name, limit, strength in zip(
                (first, second, third), names, limits, strengths, strict=True
            )
            if limit
        ]
        factors = tuple((name, factor) for _, name, factor in sorted(steps))
    sigmas = None
    if blur < augmentation.blur_probability:
        low_sigma, high_sigma = augmentation.blur_sigma
        sigmas = (low_sigma + (high_sigma - low_sigma) * sigma,) * 2
        if augmentation.legacy_augmentations:
            sigmas = LEGACY_BLUR_SIGMA
    return ClipDraw(
        box=box,
        resize=resize,
        flip=flip < augmentation.flip_probability,
        jitter=factors,
        gray=gray < augmentation.gray_probability,
        blur=sigmas,
    )


def draw_box(
    augmentation: ClipAugmentation,
    height: int,
    width: int,
    size: int,
    side_draw: float,
    generator: torch.Generator,
) -> tuple[tuple[int, int] | None, Box]:
    """`resize` and `box` of a `ClipDraw`.

    Args:
        augmentation, height, width, size, generator: as in `draw_clip`.
        side_draw: number in [0, 1) that decides about the short side, where one is drawn.

    Raises:
        InputError: "short_side" is smaller than `size`.
    """
    if augmentation.crop == "resized":
        area, ratio = augmentation.crop_area, augmentation.crop_ratio
        return None, draw_resized_crop_box(height, width, area, ratio, generator)
    low, high = augmentation.short_side
    if size > low:
        raise InputError(f"a short side of {low} is too small for a crop of {size}: raise short_side")
    resize = short_side_size(height, width, low + int(side_draw * (high - low + 1)))
    return resize, draw_crop_box(*resize, size, generator)


def augment_clips(
    clips: torch.Tensor | Sequence[torch.Tensor],
    draws: Sequence[ClipDraw],
    size: int,
    *,
    mean: Sequence[float] | float,
    std: Sequence[float] | float,
    blur_kernel: int = 11,
    legacy: bool = False,
) -> torch.Tensor:
    """Apply one draw to every clip and normalise.

    Args:
        clips: batch of (frames, channels, height, width), red, green, blue; uint8, or float in [0, 1]. Only
            heights and widths may differ between clips. The result lies on their device.
        draws: one a clip.
        size: side of the square that comes out, in pixels.
        mean: subtracted after scaling to [0, 1]; one number or one a channel.
        std: divides after that.
        blur_kernel: taps of the Gaussian, odd; narrowed where `size` is too small for it.
        legacy: normalise first and use the official code's luma; no clamping.

    Returns:
        (batch, frames, channels, size, size) float32.
    """
    video = crop_clips(clips, draws, size)
    if legacy:
        video = normalize_clips(video, mean, std)
    luma = SWAPPED_LUMA if legacy else RGB_LUMA
    recolour_clips(video, draws, luma=luma, clamp=not legacy, blur_kernel=blur_kernel)
    return video if legacy else normalize_clips(video, mean, std)


def crop_clips(
    clips: torch.Tensor | Sequence[torch.Tensor], draws: Sequence[ClipDraw], size: int
) -> torch.Tensor:
    """The box of each draw, scaled to `size`: (batch, frames, channels, size, size) float32 in [0, 1].

    Args:
        clips, draws, size: as in `augment_clips`.

    Raises:
        InputError: no clip, another number of draws than of clips, a box that leaves its clip.
    """
    if len(clips) == 0 or len(clips) != len(draws):
        raise InputError(f"need one draw a clip and at least one clip, got {len(draws)} and {len(clips)}")
    integers = not clips[0].is_floating_point()
    resized = [
        clip if draw.resize is None else resize_frames(clip, draw.resize)
        for clip, draw in zip(clips, draws, strict=True)
    ]
    video = resized_crop(resized, [draw.box for draw in draws], (size, size)).float()
    return video.div_(255) if integers else video


def normalize_clips(
    video: torch.Tensor, mean: Sequence[float] | float, std: Sequence[float] | float
) -> torch.Tensor:
    """(video - mean) / std, each one number or one a channel, of (..., channels, height, width)."""
    shape = (-1, 1, 1)
    means = torch.as_tensor(mean, dtype=video.dtype, device=video.device).reshape(shape)
    deviations = torch.as_tensor(std, dtype=video.dtype, device=video.device).reshape(shape)
    return (video - means).div_(deviations)
