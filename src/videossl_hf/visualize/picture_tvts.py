"""How TVTS sorts what is said: the clip on a time line, the scripts as the model gets them, in any order,
where it puts each, and which frames each attends to."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForPreTraining

from ..data.reader import VideoReader
from ..data.transcripts.side_files import TranscriptSource
from ..data.video_folder import read_metadata
from ..errors import DataError, InputError
from ..evaluation.loading import load_processor, quiet_libraries
from ..evaluation.script_sorting import shuffled_places
from ..evaluation.texts import equal_parts
from .film_strip import film_strip
from .theme import LIGHT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EXPLANATION", "Sorting", "painter", "sorting_picture"]

EXPLANATION = (
    "The clip on its time line, then what is said, shuffled: where the model puts each script, and which "
    "frames it attends to."
)
HEIGHT, GAP, LINE, ROW, TEXT_WIDTH = 72, 3, 18, 58, 250


class Sorting(NamedTuple):
    """What the model says of one clip.

    Attributes:
        texts: of the scripts, in the order in which the model gets them.
        places: where each belongs in time.
        found: where the model puts each.
        attention: (scripts, moments) from each script to the clip, summing up to at most 1 a script: what is
            missing goes to the class token and to the scripts.
        seconds: how long the clip lasts.
    """

    texts: Sequence[str]
    places: Sequence[int]
    found: Sequence[int]
    attention: Tensor
    seconds: float


def painter(name: str, revision: str | None = None) -> Callable[[np.ndarray, Tensor, Any], Image]:
    """A function that draws clips: frames as they are shown, as the model takes them, and the clip itself,
    beside which its transcript lies (`clip.vtt`, ..., or a row of metadata.jsonl).

    Args:
        name: a pre-training folder or Hub id, whose weights include the sorting head's.
        revision: of a Hub id.

    Raises:
        InputError: the weights hold no sorting head.
    """
    with quiet_libraries():
        model, info = AutoModelForPreTraining.from_pretrained(
            name, revision=revision, output_loading_info=True, attn_implementation="eager"
        )
        processor = load_processor(name, revision=revision)
    if model.sorting_head is None or any(key.startswith("sorting_head.") for key in info["missing_keys"]):
        raise InputError(
            f"{name} holds no sorting head: name a folder of a pre-training with several scripts"
        )
    model.eval()

    def paint(frames: np.ndarray, pixel_values_videos: Tensor, clip: Any) -> Image:
        return sorting_picture(frames, sort_clip(model, processor, pixel_values_videos, clip))

    return paint


@torch.no_grad()
def sort_clip(model: Any, processor: Any, pixel_values_videos: Tensor, clip: Any) -> Sorting:
    """Sort the scripts of one clip.

    Args:
        model: a TVTSForPreTraining in evaluation mode, with eager attention.
        processor: of the model.
        pixel_values_videos: (1, frames, channels, height, width).
        clip: path of the video.

    Raises:
        DataError: there is no transcript of the clip.
    """
    sample = {"video": {"path": str(clip), "bytes": None}, "transcript": _told_in_metadata(Path(clip))}
    sample["transcript"] = TranscriptSource().cells(sample)
    scripts = model.config.num_scripts
    texts = equal_parts(sample, scripts)
    places = shuffled_places(1, scripts, seed=0)
    shuffled = [texts[place] for place in places[0].tolist()]
    seen: list[Tensor] = []
    last: nn.Module = model.sorting_head.layers[-1].attention
    hook = last.register_forward_hook(lambda module, given, output: seen.append(output[1]))
    try:
        output = model(pixel_values_videos, **processor(text=[shuffled]), script_positions=places)
    finally:
        hook.remove()
    moments = pixel_values_videos.shape[1] // model.config.tubelet_size
    first = 1 if model.config.sort_class_token else 0
    to_clip = seen[0][0].mean(0)[:, first : seen[0].shape[-1] - scripts]  # scripts, moments * patches
    with VideoReader(clip) as video:
        seconds = video.info.duration
    found = output.sorting_logits[0].argmax(-1).tolist()
    return Sorting(shuffled, places[0].tolist(), found, to_clip.unflatten(1, (moments, -1)).sum(-1), seconds)


def _told_in_metadata(clip: Path) -> Any:
    """The transcript in a metadata file beside the clip; None without one."""
    metadata = clip.parent / "metadata.jsonl"
    rows = read_metadata(metadata) if metadata.is_file() else []
    return next((row.get("transcript") for row in rows if row["file_name"] == clip.name), None)


def sorting_picture(frames: np.ndarray, sorting: Sorting) -> Image:
    """The frames with their times, and below, a row for each script: its text, its attention to the frames
    as shades, the place where it belongs as a frame, and where the model puts it as a bar, green if right.

    Args:
        frames: (frames, height, width, 3) uint8.
        sorting: of the same clip.
    """
    from PIL import Image, ImageDraw, ImageFont

    if len(sorting.texts) != len(sorting.attention):
        raise DataError(f"{len(sorting.texts)} scripts and attention of {len(sorting.attention)}")
    strip = film_strip(frames, height=HEIGHT, gap=GAP)
    top = LINE + strip.height + LINE
    picture = Image.new("RGB", (TEXT_WIDTH + strip.width, top + ROW * len(sorting.texts)), LIGHT.surface)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    right = sum(place == found for place, found in zip(sorting.places, sorting.found, strict=True))
    caption = f"{right} of {len(sorting.texts)} scripts in their place; shades: attention to the frames"
    pen.text((TEXT_WIDTH, 1), caption, fill=LIGHT.muted, font=font)
    picture.paste(strip, (TEXT_WIDTH, LINE), strip)
    part = strip.width / len(sorting.texts)
    for number in range(len(sorting.texts) + 1):
        time = f"{sorting.seconds * number / len(sorting.texts):.1f} s"
        anchor = "lt" if number == 0 else "rt" if number == len(sorting.texts) else "mt"
        pen.text(
            (TEXT_WIDTH + part * number, top - LINE + 3), time, fill=LIGHT.muted, font=font, anchor=anchor
        )
    for row, (text, place, found) in enumerate(
        zip(sorting.texts, sorting.places, sorting.found, strict=True)
    ):
        upper = top + row * ROW
        lines = textwrap.wrap(text.strip() or "(nothing is said)", 38)[:3]
        pen.multiline_text((GAP, upper + 4), "\n".join(lines), fill=LIGHT.ink, font=font)
        width = strip.width / sorting.attention.shape[1]
        strongest = max(
            float(sorting.attention[row].max()), 1e-12
        )  # rows differ in how much goes to the clip
        for moment, share in enumerate(sorting.attention[row].tolist()):
            shade = tuple(round(255 - (255 - level) * share / strongest) for level in (59, 91, 219))
            left = TEXT_WIDTH + moment * width
            pen.rectangle((left, upper + 4, left + width - 1, upper + 26), fill=shade)
        colour = LIGHT.good if place == found else LIGHT.bad
        for slot, fill in ((found, colour), (place, None)):
            left = TEXT_WIDTH + slot * part
            box = (left + 2, upper + 32, left + part - 3, upper + 46)
            pen.rectangle(box, fill=fill, outline=LIGHT.ink if fill is None else fill, width=2)
    return picture
