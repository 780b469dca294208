"""One clip of Sounding Shapes from its settings and its number: frames, sound and what is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...errors import ConfigurationError
from ..seeds import seeded_generator
from .motions import CLASS_NAMES, Motion, chain_motions, moments, states
from .render import NUISANCE_LEVELS, Appearance, draw_appearance, render
from .sound import Voice, draw_voice, synthesize
from .transcript import Span, describe

__all__ = ["SPLITS", "ClipDraws", "ClipSettings", "draw_clip", "render_frames", "render_sound"]

SPLITS = ("train", "validation", "test")
_PARTS = ("label", "motion", "appearance", "voice", "words")


@dataclass(frozen=True)
class ClipSettings:
    """What all clips of a set have in common.

    Attributes:
        size: height and width in pixels, even and at least 16.
        fps: frames a second.
        seconds: of each motion.
        nuisance: `low`, `mid` or `full` (see `render.NUISANCE_LEVELS`).
        motions: of each clip: 1 for labelled clips, 2 to 12 for sequences of different motions back to back.
        sample_rate: of the sound.
        seed: of everything that is drawn.
    """

    size: int = 48
    fps: float = 8.0
    seconds: float = 2.0
    nuisance: str = "mid"
    motions: int = 1
    sample_rate: int = 24000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise ConfigurationError(f"size must be an even number of at least 16 pixels, got {self.size}")
        if self.fps <= 0 or self.seconds <= 0 or self.num_frames < 2:
            raise ConfigurationError(
                f"{self.seconds} s at {self.fps} frames a second are too short: a motion needs two frames"
            )
        if self.nuisance not in NUISANCE_LEVELS:
            raise ConfigurationError(
                f"nuisance must be one of {', '.join(NUISANCE_LEVELS)}, got {self.nuisance!r}"
            )
        if not 1 <= self.motions <= len(CLASS_NAMES):
            raise ConfigurationError(f"a clip has 1 to {len(CLASS_NAMES)} motions, got {self.motions}")
        if self.sample_rate < 8000:
            raise ConfigurationError(f"the sample rate must be at least 8000, got {self.sample_rate}")

    @property
    def num_frames(self) -> int:
        """Frames of each motion."""
        return round(self.fps * self.seconds)

    @property
    def motion_seconds(self) -> float:
        """How long each motion really lasts: whole frames."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class ClipDraws:
    """Everything that is random about one clip; frames and sound are functions of it."""

    motions: tuple[Motion, ...]
    appearance: Appearance
    voice: Voice
    words: list[Span]
    sentences: list[Span]

    def row(self) -> dict[str, Any]:
        """The facts about the clip, as its line of metadata.jsonl holds them (without `file_name`)."""
        look = {"shape": self.appearance.shape, "colour": self.appearance.colour}
        told = {
            "caption": " ".join(sentence["text"] for sentence in self.sentences),
            "transcript": self.words,
            "sentences": self.sentences,
        }
        facts = [{"label": motion.name, **_rounded(motion)} for motion in self.motions]
        if len(facts) == 1:
            return {**facts[0], **look, **told}
        return {"motions": facts, **look, **told}


def _rounded(motion: Motion) -> dict[str, float]:
    return {name: round(getattr(motion, name), 6) for name in ("speed", "phase", "x", "y", "size")}


def draw_clip(settings: ClipSettings, split: str, index: int) -> ClipDraws:
    """Draw clip number `index` of a split.

    Every clip, and in it motion, appearance, voice and words, has its own seed made of (seed, split, index):
    clips can be made in any order by any number of processes, and one part can change without the others.
    """
    label = _label_block(settings, split, index // len(CLASS_NAMES))[index % len(CLASS_NAMES)]
    motion_draws = _generator(settings, split, index, "motion")
    others = [name for name in _shuffled(CLASS_NAMES, motion_draws) if name != label]
    motions = chain_motions([label, *others[: settings.motions - 1]], motion_draws)
    appearance = draw_appearance(settings.nuisance, _generator(settings, split, index, "appearance"))
    voice = draw_voice(_generator(settings, split, index, "voice"))
    wording = _generator(settings, split, index, "words")
    words, sentences = describe(motions, appearance, settings.motion_seconds, wording)
    return ClipDraws(motions, appearance, voice, words, sentences)


def render_frames(draws: ClipDraws, settings: ClipSettings) -> np.ndarray:
    """uint8 RGB frames (motions * num_frames, size, size, 3)."""
    w = moments(settings.num_frames)
    path = np.concatenate([states(motion, w) for motion in draws.motions], axis=1)
    return render(draws.appearance, path, settings.size)


def render_sound(draws: ClipDraws, settings: ClipSettings) -> np.ndarray:
    """int16 samples that last as long as the frames."""
    return synthesize(draws.motions, draws.voice, settings.motion_seconds, settings.sample_rate)


def _label_block(settings: ClipSettings, split: str, block: int) -> list[str]:
    """Each run of twelve clips holds every label once, in random order: labels are balanced at any length."""
    return _shuffled(CLASS_NAMES, _generator(settings, split, block, "label"))


def _shuffled(names: Sequence[str], generator: torch.Generator) -> list[str]:
    return [names[index] for index in torch.randperm(len(names), generator=generator)]


def _generator(settings: ClipSettings, split: str, index: int, part: str) -> torch.Generator:
    return seeded_generator(settings.seed, SPLITS.index(split), index, _PARTS.index(part))
