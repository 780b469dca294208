"""Spoken descriptions of motions: sentences with paraphrases, and the time of every word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch

from .motions import Motion
from .render import COLOURS, SHAPES, Appearance

__all__ = ["PHRASES", "VOCABULARY", "Span", "describe"]

OPENINGS = ("", "now", "then", "and")

PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "goes to the left", "slides leftwards"),
    "right": ("moves right", "goes to the right", "slides rightwards"),
    "up": ("moves up", "rises", "slides upwards"),
    "down": ("moves down", "sinks", "slides downwards"),
    "up_right": ("rises to the right", "climbs diagonally", "goes up and right"),
    "down_left": ("sinks to the left", "descends diagonally", "goes down and left"),
    "clockwise": ("turns clockwise", "circles like a clock", "goes round clockwise"),
    "counter": ("turns counterclockwise", "circles against the clock", "goes round counterclockwise"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes tiny"),
    "bounce": ("bounces", "hops on the spot", "jumps again and again"),
    "shake": ("shakes", "trembles", "jitters from side to side"),
}
"""The ways in which each motion is told."""

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {"now", "then", "and", "it", "the", "shape", "white", *COLOURS, *SHAPES}
        | {word for phrases in PHRASES.values() for phrase in phrases for word in phrase.split()}
    )
)
"""Every word that a transcript can hold, sorted."""


class Span(TypedDict):
    """A word or a sentence with its time in seconds."""

    text: str
    start: float
    end: float


def describe(
    motions: Sequence[Motion], appearance: Appearance, seconds: float, generator: torch.Generator
) -> tuple[list[Span], list[Span]]:
    """Tell each motion in one sentence that is spoken while the motion happens.

    Args:
        motions: of `seconds` each, back to back.
        appearance: lends the sentences their colour and shape.
        seconds: of each motion.
        generator: of the wording and the timing.

    Returns:
        The words and the sentences, with start and end in seconds. Longer words last longer.
    """
    words: list[Span] = []
    sentences: list[Span] = []
    for index, motion in enumerate(motions):
        opening = _choose(OPENINGS if index else OPENINGS[:2], generator)
        subject = _choose(("it", "the shape", f"the {appearance.colour} {appearance.shape}"), generator)
        sentence = f"{opening} {subject} {_choose(PHRASES[motion.name], generator)}".split()
        before, after = (0.15 * torch.rand(2, generator=generator)).tolist()
        start, end = seconds * (index + before), seconds * (index + 1 - after)
        letters = sum(len(word) + 1 for word in sentence)
        spoken = 0
        for word in sentence:
            begin = start + (end - start) * spoken / letters
            spoken += len(word) + 1
            finish = start + (end - start) * spoken / letters
            words.append(Span(text=word, start=round(begin, 3), end=round(finish, 3)))
        sentences.append(Span(text=" ".join(sentence), start=round(start, 3), end=round(end, 3)))
    return words, sentences


def _choose(options: Sequence[str], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]
