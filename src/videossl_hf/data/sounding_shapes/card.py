"""The dataset card of a folder of Sounding Shapes."""

from __future__ import annotations

from .clips import ClipSettings
from .motions import CLASS_NAMES, REVERSAL
from .render import NUISANCE_LEVELS

__all__ = ["dataset_card"]

_GROUND = dict(
    zip(
        NUISANCE_LEVELS,
        (
            "a white disc on dark grey",
            "any of six shapes in eight colours on a plain ground of any dark colour",
            "any of six shapes in eight colours on a textured ground with shapes that stand still",
        ),
        strict=True,
    )
)


def dataset_card(clips: ClipSettings, counts: dict[str, int]) -> str:
    """The README.md of the set, in Markdown with the Hub's front matter."""
    seconds = clips.motion_seconds * clips.motions
    splits = "\n".join(f"| {split} | {count} |" for split, count in counts.items() if count)
    pairs = ", ".join(
        f"`{name}` and `{REVERSAL[name]}`"
        for name in CLASS_NAMES
        if CLASS_NAMES.index(REVERSAL[name]) > CLASS_NAMES.index(name)
    )
    if clips.motions == 1:
        content = "Each clip shows one of twelve motions, its `label`."
    else:
        content = (
            f"Each clip shows {clips.motions} different motions back to back (column `motions`); "
            "each starts where the one before it ended."
        )
    return f"""---
license: apache-2.0
pretty_name: Sounding Shapes
task_categories:
- video-classification
tags:
- synthetic
- audio-visual
- videossl-hf
---

# Sounding Shapes

Generated videos for tests and small experiments in self-supervised learning: a shape moves, and a tone
follows it.
{content}

| split | clips |
|---|---|
{splits}

- MP4, H.264 and AAC, {clips.size}x{clips.size} pixels, {clips.fps:g} frames a second, {seconds:g} seconds,
  sound at {clips.sample_rate} Hz.
- Nuisance level `{clips.nuisance}`: {_GROUND[clips.nuisance]}. Seed {clips.seed}; each split is drawn apart.
- The motions: {", ".join(f"`{name}`" for name in CLASS_NAMES)}.
- The canvas wraps round, and so does the size. Place, size, speed, phase and looks do not depend on the
  motion: a single frame says nothing about it.
- {pairs} are the same clips played backwards and forwards; `bounce` and `shake` are their own reversal. What
  ignores the order of frames therefore cannot exceed 7/12 = 58.3 % top-1.
- The pitch follows the height of the shape, the loudness how far it is to the right, the timbre a size that
  changes. What stands still is not heard.
- `transcript` holds the words of a spoken description with their times in seconds, `sentences` the same by
  sentence, `caption` the whole text. The folder `tokenizer` holds a tokenizer of their words, which
  `AutoTokenizer` loads.

```python
from datasets import Video, load_dataset

dataset = load_dataset("PATH/TO/THIS/FOLDER")
dataset = dataset.cast_column("video", Video(decode=False))
```

Written by `videossl prepare --sounding-shapes`; the settings are in `sounding_shapes.json`.
"""
