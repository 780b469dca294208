"""Sounding Shapes: generated videos of moving shapes with a sound that follows them."""

from __future__ import annotations

from .clips import SPLITS, ClipDraws, ClipSettings, draw_clip, render_frames, render_sound
from .folder import SoundingShapes, write_sounding_shapes
from .motions import CLASS_NAMES, REVERSAL
from .transcript import VOCABULARY
from .word_tokenizer import word_tokenizer

__all__ = [
    "CLASS_NAMES",
    "REVERSAL",
    "SPLITS",
    "VOCABULARY",
    "ClipDraws",
    "ClipSettings",
    "SoundingShapes",
    "draw_clip",
    "render_frames",
    "render_sound",
    "word_tokenizer",
    "write_sounding_shapes",
]
