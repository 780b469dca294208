"""`videossl visualize MODEL CLIP...`: what a model sees of a clip, as a picture.

A method with a picture of its own has a file `picture_<method>.py` here. Its `EXPLANATION` says what is to
be seen, and its `painter(name, revision)` gives a function that makes a picture of frames,
`pixel_values_videos`, and the clip itself, beside which more may lie (a transcript). For any other method the
picture is the film strip of the frames that the processor takes.
"""

from __future__ import annotations

import argparse
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from transformers import AutoConfig

from ..errors import InputError, OutputError
from ..evaluation.loading import load_processor
from .film_strip import film_strip
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["add_arguments", "explanation", "run", "shown_frames", "visualize"]

FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl visualize`."""
    parser.add_argument("model", help="a folder, or an id on the Hub")
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a video file or URL; one row each")
    parser.add_argument("--output", required=True, type=Path, help=f"picture to write ({', '.join(FORMATS)})")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")


def run(args: argparse.Namespace) -> None:
    """Draw all clips and write the picture."""
    if args.output.suffix.lower() not in FORMATS:
        raise InputError(f"--output must end with one of {', '.join(FORMATS)}, got {args.output}")
    picture = visualize(args.model, args.clips, args.revision)
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        picture.save(args.output)
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error}") from error
    print(f"wrote {args.output}: {len(args.clips)} clip(s), {picture.width} x {picture.height} pixels")


def visualize(name: str, clips: list[Any], revision: str | None = None) -> Image:
    """The picture of each clip, one below the other, on white.

    Args:
        name: folder or Hub id of a model of this package.
        clips: whatever its processor takes for a video.
        revision: of a Hub id.

    Raises:
        InputError: there is no such model, or it has no picture of the clip to give.
        DecodeError: a clip that cannot be decoded.
    """
    processor = load_processor(name, revision=revision)
    method = AutoConfig.from_pretrained(name, revision=revision).model_type
    own = _own_picture(method)
    paint = None if own is None else own.painter(name, revision)
    rows = []
    for clip in clips:
        frames = shown_frames(processor.video_processor, clip)
        if paint is None:
            rows.append(film_strip(frames))
        else:
            rows.append(paint(frames, processor.video_processor.pixels(clip), clip))
    return _stack(rows)


def explanation(method: str) -> str:
    """What is to be seen in the picture of a method."""
    own = _own_picture(method)
    return "The frames that the model sees." if own is None else own.EXPLANATION


def _own_picture(method: str) -> Any:
    if find_spec(f"{__package__}.picture_{method}") is None:
        return None
    return importlib.import_module(f".picture_{method}", __package__)


def shown_frames(video_processor: Any, clip: Any) -> np.ndarray:
    """What the model sees of a clip, as a person would: (frames, height, width, 3) uint8."""
    pixels: Tensor = video_processor.pixels(clip, do_normalize=False)
    if pixels.ndim != 5:
        raise InputError("the processor takes several views of a clip: set its num_clips and num_crops to 1")
    return (pixels[0].permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy()


def _stack(rows: list[Image], gap: int = 8) -> Image:
    from PIL import Image

    size = max(row.width for row in rows), sum(row.height + gap for row in rows) - gap
    picture = Image.new("RGB", size, LIGHT.surface)
    top = 0
    for row in rows:
        picture.paste(row, (0, top), row if row.mode == "RGBA" else None)
        top += row.height + gap
    return picture
