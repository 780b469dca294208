"""Flip, colour jitter, gray and blur of clips, each clip with its own draw, in any order of the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from .clip_draw import ClipDraw
from .colour import (
    RGB_LUMA,
    Luma,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    gaussian_blur,
    luminance,
    shift_brightness,
)
from .hsv import scale_saturation, shift_hue

__all__ = ["SHIFTED_COLOURS", "blended_colours", "recolour_clips"]

Adjustment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""adjustment(clips, factor of each clip) -> clips."""


def blended_colours(luma: Luma = RGB_LUMA) -> dict[str, Adjustment]:
    """Adjustments as torchvision has them: blends with black, with a frame's mean gray and with each pixel's
    gray.
    """
    return {
        "brightness": adjust_brightness,
        "contrast": partial(adjust_contrast, luma=luma),
        "saturation": partial(adjust_saturation, luma=luma),
        "hue": shift_hue,
    }


SHIFTED_COLOURS: dict[str, Adjustment] = {
    "brightness": shift_brightness,
    "contrast": adjust_brightness,
    "saturation": scale_saturation,
    "hue": shift_hue,
}
"""Adjustments as kornia 0.4 had them: brightness is added, contrast multiplies all values (what is called
brightness elsewhere), saturation is scaled in HSV."""


def recolour_clips(
    video: torch.Tensor,
    draws: Sequence[ClipDraw],
    *,
    steps: Sequence[str] = ("flip", "jitter", "gray", "blur"),
    colours: Mapping[str, Adjustment] | None = None,
    luma: Luma = RGB_LUMA,
    clamp: bool = True,
    blur_kernel: int = 11,
) -> None:
    """Everything in a draw but its box, in place.

    Args:
        video: (batch, frames, channels, height, width) float. To treat every frame by itself, make it a clip:
            (batch * frames, 1, channels, height, width).
        draws: one a clip.
        steps: in this order; one that is not named is left out.
        colours: what the names in `ClipDraw.jitter` mean; default `blended_colours(luma)`.
        luma: weights of the channels in a gray value.
        clamp: keep values in [0, 1] after every adjustment of the jitter.
        blur_kernel: taps of the Gaussian, odd; narrowed where a frame is too small for it.
    """
    taps = min(blur_kernel, 2 * min(video.shape[-2:]) - 1)

    def blur(some: torch.Tensor, chosen: list[int]) -> torch.Tensor:
        sigmas = torch.tensor([draws[index].blur for index in chosen], dtype=some.dtype).to(some.device)
        return gaussian_blur(some, sigmas[:, 0], sigmas[:, 1], taps)

    actions: dict[str, Callable[[], None]] = {
        "flip": lambda: _on_some(video, [draw.flip for draw in draws], lambda some, _: some.flip(-1)),
        "jitter": lambda: _jitter(video, draws, colours or blended_colours(luma), clamp),
        "gray": lambda: _on_some(
            video, [draw.gray for draw in draws], lambda some, _: luminance(some, luma).expand_as(some)
        ),
        "blur": lambda: _on_some(video, [draw.blur is not None for draw in draws], blur),
    }
    for step in steps:
        actions[step]()


def _jitter(
    video: torch.Tensor, draws: Sequence[ClipDraw], colours: Mapping[str, Adjustment], clamp: bool
) -> None:
    """At every step of the order, all clips whose turn it is go together."""

    def adjust(name: str, step: int) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
        def apply(some: torch.Tensor, chosen: list[int]) -> torch.Tensor:
            factors = torch.tensor([draws[index].jitter[step][1] for index in chosen], dtype=some.dtype)
            some = colours[name](some, factors.to(some.device))
            return some.clamp_(0, 1) if clamp else some

        return apply

    for step in range(max(len(draw.jitter) for draw in draws)):
        for name in colours:
            turn = [len(draw.jitter) > step and draw.jitter[step][0] == name for draw in draws]
            _on_some(video, turn, adjust(name, step))


def _on_some(
    video: torch.Tensor, chosen: Sequence[bool], function: Callable[[torch.Tensor, list[int]], torch.Tensor]
) -> None:
    """Replace the chosen clips of `video` by `function(those clips, their indices)`."""
    indices = [index for index, wanted in enumerate(chosen) if wanted]
    if indices:
        rows = torch.tensor(indices).to(video.device)
        video[rows] = function(video[rows], indices)
