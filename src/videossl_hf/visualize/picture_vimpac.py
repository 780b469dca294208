"""What VIMPAC hides of a clip and puts in its place: clip, codes, mask, predicted codes as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForPreTraining

from ..errors import InputError
from ..evaluation.loading import load_processor, quiet_libraries
from ..models.vimpac.masking_vimpac import IGNORED, apply_mask, draw_mask_numbers, make_masks
from .film_strip import film_strip
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXPLANATION", "painter"]

EXPLANATION = "From above: the clip, its codes, what a mask hides of them, and what the model puts there."

_TEXT = 18
_HIDDEN = np.array([132, 140, 158], np.uint8)


def painter(name: str, revision: str | None = None) -> Callable[[np.ndarray, Tensor, Any], Image]:
    """A function that draws clips: frames as they are shown and as the model takes them to a picture.

    The mask is one that the model's training could have drawn, the same for every clip.

    Args:
        name: a pre-training folder or Hub id, whose weights include the token head, with a tokeniser.
        revision: of a Hub id.

    Raises:
        InputError: there is no token head, or no tokeniser that makes pictures.
    """
    with quiet_libraries():
        model, info = AutoModelForPreTraining.from_pretrained(
            name, revision=revision, output_loading_info=True
        )
    tokenizer = load_processor(name, revision=revision).tokenizer_model
    if model.token_head is None or any(key.startswith("token_head.") for key in info["missing_keys"]):
        raise InputError(f"{name} holds no token head: name a folder of a pre-training on masked tokens")
    if tokenizer is None or not tokenizer.config.use_decoder:
        raise InputError(f"{name} holds no tokeniser with a decoder, which pictures of codes need")
    model.eval()
    config = model.config

    @torch.no_grad()
    def paint(frames: np.ndarray, pixel_values_videos: Tensor, clip: Any) -> Image:
        codes = tokenizer.encode(pixel_values_videos)
        mask = make_masks(config, draw_mask_numbers(config, 1, torch.Generator().manual_seed(0)))
        seen, labels = apply_mask(codes, mask, config.pad_code)
        hidden = labels != IGNORED
        best = model.token_logits(seen)[..., : config.num_codes].argmax(-1)
        right = float((best == codes)[hidden].float().mean()) if hidden.any() else 1.0
        covered = hidden[0].repeat_interleave(8, 1).repeat_interleave(8, 2).numpy()[..., None]
        rows = {
            f"{len(frames)} frames": frames,
            "their codes, decoded": _pictures(tokenizer.decode(codes)),
            f"hidden: {float(hidden.float().mean()):.0%} of the codes": np.where(covered, _HIDDEN, frames),
            f"predicted: {right:.0%} of the hidden codes are right": _pictures(
                tokenizer.decode(torch.where(hidden, best, codes))
            ),
        }
        return _stacked(list(rows), [film_strip(row) for row in rows.values()])

    return paint


def _pictures(decoded: Tensor) -> np.ndarray:
    """`(1, frames, channels, height, width)` in [0, 1] to (frames, height, width, channels) uint8."""
    return (decoded[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()


def _stacked(captions: Sequence[str], strips: Sequence[Image]) -> Image:
    """Strips one below the other on white, each under its caption."""
    from PIL import Image, ImageDraw, ImageFont

    height = strips[0].height + _TEXT
    picture = Image.new("RGB", (strips[0].width, len(strips) * height), LIGHT.surface)
    pen = ImageDraw.Draw(picture)
    for number, (caption, strip) in enumerate(zip(captions, strips, strict=True)):
        pen.text((3, number * height + 2), caption, fill=LIGHT.muted, font=ImageFont.load_default(12))
        picture.paste(strip, (0, number * height + _TEXT), strip)
    return picture
