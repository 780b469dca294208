"""Sounding Shapes as a folder of MP4 files that `datasets` loads: writing, resuming and re-using it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ..output_folder import claim_folder, settle_settings, write_atomically
from ..parallel import map_in_processes, progress_bar
from ..writer import write_video
from .card import dataset_card
from .clips import SPLITS, ClipSettings, draw_clip, render_frames, render_sound
from .word_tokenizer import word_tokenizer

__all__ = ["SoundingShapes", "write_sounding_shapes"]

MANIFEST = "sounding_shapes.json"
TOKENIZER = "tokenizer"  # the folder of it, for text towers that know the words of the transcripts
FORMAT = 1  # changes when the same settings would give other clips


@dataclass(frozen=True)
class SoundingShapes:
    """A whole set: what its clips have in common, and how many of them each split holds.

    Attributes:
        train, validation, test: number of clips; a split of 0 clips is not written.
        clips: what the clips have in common.
        keyframe_distance: frames from one keyframe to the next.
    """

    train: int
    validation: int = 0
    test: int = 0
    clips: ClipSettings = field(default_factory=ClipSettings)
    keyframe_distance: int = 8

    def __post_init__(self) -> None:
        if min(self.counts().values()) < 0 or not any(self.counts().values()):
            raise ConfigurationError(
                f"the numbers of clips must not be negative, and not all 0, got {self.counts()}"
            )

    def counts(self) -> dict[str, int]:
        """Number of clips by split."""
        return dict(zip(SPLITS, (self.train, self.validation, self.test), strict=True))

    def settings(self) -> dict[str, Any]:
        """All settings on one level, as the manifest holds them."""
        return {
            "format": FORMAT,
            **self.counts(),
            **asdict(self.clips),
            "keyframe_distance": self.keyframe_distance,
        }


def write_sounding_shapes(
    output: str | os.PathLike[str], dataset: SoundingShapes, *, processes: int = 2, show_progress: bool = True
) -> Path:
    """Write DIR/{train,validation,test}/*.mp4 with metadata.jsonl, a tokenizer, a card and a manifest.

    The files are the same whatever the number of processes. A folder that already holds this very set is
    left as it is; a run that was broken off continues.

    Args:
        output: the folder; made if need be.
        dataset: what to write.
        processes: that render and encode at the same time.
        show_progress: draw a progress bar.

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
    """
    folder = Path(output)
    claim_folder(folder, MANIFEST)
    settle_settings(folder / MANIFEST, dataset.settings())
    for split, count in dataset.counts().items():
        metadata = folder / split / "metadata.jsonl"
        if metadata.exists() or count == 0:
            continue
        (folder / split).mkdir(exist_ok=True)
        rows = _write_split(folder / split, dataset, split, count, processes, show_progress)
        write_atomically(metadata, "".join(json.dumps(row) + "\n" for row in rows))
    if not (folder / TOKENIZER).exists():
        part = folder / f".{TOKENIZER}.part"
        word_tokenizer().save_pretrained(part)
        part.replace(folder / TOKENIZER)
    if not (folder / "README.md").exists():
        write_atomically(folder / "README.md", dataset_card(dataset.clips, dataset.counts()))
    return folder


def _write_split(
    folder: Path, dataset: SoundingShapes, split: str, count: int, processes: int, show_progress: bool
) -> Sequence[dict[str, Any]]:
    write = partial(_write_clip, folder, dataset, split)
    rows = []
    results = map_in_processes(write, range(count), processes=processes)
    with progress_bar(show_progress) as progress:
        for row in progress.track(results, total=count, description=f"Sounding Shapes, {split}"):
            rows.append(row)
    return rows


def _write_clip(folder: Path, dataset: SoundingShapes, split: str, index: int) -> dict[str, Any]:
    draws = draw_clip(dataset.clips, split, index)
    name = f"{index:06d}.mp4"
    path = folder / name
    if (
        not path.exists()
    ):  # files appear only when they are complete, so this one is left from a run broken off
        write_video(
            path,
            render_frames(draws, dataset.clips),
            dataset.clips.fps,
            sound=render_sound(draws, dataset.clips),
            sample_rate=dataset.clips.sample_rate,
            keyframe_distance=dataset.keyframe_distance,
        )
    return {"file_name": name, **draws.row()}
