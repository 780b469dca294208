"""Cuts K scripts out of a transcript: windows of a few seconds with gaps, as in the official TVTS code.

`v1/data_loader/YTTemporal_dataset.py`, get_caption_multi. Windows are seconds, not sentences; what is said
in a gap is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...errors import DataError, InputError
from .words import Word

__all__ = ["ScriptDraw", "draw_scripts", "latest_start", "script_texts", "script_windows"]


class ScriptDraw(NamedTuple):
    """What is drawn for a sample: seconds of a script, and the start as whole seconds and a fraction.

    The start is 0 where the video is too short for a draw.
    """

    seconds: int
    start: int = 0
    fraction: float = 0.0


def latest_start(duration: int, seconds: int, num_scripts: int, gap: int = 1) -> int:
    """The last whole second at which the scripts may start; negative if the video is too short for them.

    Args:
        duration: of the video, in whole seconds.
        seconds: of a script.
        num_scripts: scripts in a row.
        gap: seconds between two of them.
    """
    return duration - (num_scripts * seconds + (num_scripts - 1) * gap) - 1


def draw_scripts(
    duration: int,
    num_scripts: int,
    generator: torch.Generator,
    seconds: tuple[int, int] = (3, 5),
    gap: int = 1,
) -> ScriptDraw:
    """Draw length and start of the scripts.

    Args:
        duration: of the video, in whole seconds.
        num_scripts: scripts in a row.
        generator: the sample's own.
        seconds: shortest and longest script, both included.
        gap: seconds between two scripts.
    """
    low, high = seconds
    if not 1 <= low <= high:
        raise InputError(f"seconds must be two whole numbers, the first not the larger, got {seconds}")
    drawn = int(torch.randint(low, high + 1, (), generator=generator))
    latest = latest_start(duration, drawn, num_scripts, gap)
    if latest < 0:
        return ScriptDraw(drawn)
    start = int(torch.randint(latest + 1, (), generator=generator))
    return ScriptDraw(drawn, start, torch.rand((), generator=generator, dtype=torch.float64).item())


def script_windows(duration: int, draw: ScriptDraw, num_scripts: int, gap: int = 1) -> np.ndarray:
    """Start and end in seconds of each script, `(num_scripts, 2)` float64.

    The span begins at the drawn start and ends with the scripts, or a second before the video does. A video
    that is too short is used from its beginning to that second. The gaps keep their length; the scripts
    share the rest.

    Raises:
        DataError: nothing is left for the scripts.
    """
    total = num_scripts * draw.seconds + (num_scripts - 1) * gap
    start, end = 0.0, float(duration - 1)
    if latest_start(duration, draw.seconds, num_scripts, gap) >= 0:
        start = draw.start + draw.fraction
        end = min(end, start + total)
    length = (end - start - (num_scripts - 1) * gap) / num_scripts
    if length <= 0:
        raise DataError(
            f"the video lasts {duration} s: too short for {num_scripts} scripts with gaps of {gap} s between"
            " them"
        )
    starts = start + np.arange(num_scripts) * (length + gap)
    return np.stack([starts, starts + length], axis=1)


def script_texts(words: Sequence[Word], windows: np.ndarray, min_words: int = 0) -> list[str]:
    """The text of each window: the words that start strictly inside, each followed by a space.

    Args:
        words: in the order of their starts.
        windows: of `script_windows`.
        min_words: fewest words of a script.

    Raises:
        DataError: a script has fewer words.
    """
    starts = np.array([word.start for word in words])
    texts = []
    for begin, end in windows.tolist():
        first, last = np.searchsorted(starts, begin, side="right"), np.searchsorted(starts, end, side="left")
        text = "".join(f"{word.text} " for word in words[first:last])
        if len(text.split()) < min_words:
            raise DataError(
                f"only {len(text.split())} words are said from {begin:.1f} to {end:.1f} s; {min_words} are"
                " asked for"
            )
        texts.append(text)
    return texts
