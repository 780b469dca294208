"""Prepares videos for training: re-encoded to the training size with close keyframes, in Parquet shards.

Training reads clips at random places, and decoding is what limits it on ordinary machines. Small frames
decode faster, and with a keyframe every 16 frames a reader never decodes more than 15 frames that it does not
want. Videos that cannot be decoded in full are left out here, once, instead of during training. Likewise
transcripts are read, and aligned where they need it, once.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress, TaskID

from ..errors import ConfigurationError, DataError, DecodeError, NoAudioError
from .datasets import load_videos, sample_key
from .output_folder import claim_folder, settle_settings, write_atomically
from .parallel import map_in_processes, progress_bar
from .reader import VideoReader, read_audio
from .transcripts.side_files import TranscriptSource
from .writer import VideoWriter

if TYPE_CHECKING:
    import datasets as hf

__all__ = ["PrepareSettings", "prepare_videos", "reencode", "write_shard"]

CHUNK_BYTES = 1 << 28  # of decoded frames that are held at a time
VIDEOS_PER_SHARD = 1000
ROWS_PER_GROUP = 100  # that a reader of one row has to read
MANIFEST = ".prepare/settings.json"


@dataclass(frozen=True)
class PrepareSettings:
    """How videos are stored.

    Attributes:
        short_side: pixels of the shorter side; smaller videos keep their size. Sides become even numbers.
        keyframe_distance: frames from one keyframe to the next.
        fps: frames a second at most; None keeps every frame at its time.
        sample_rate: of the sound.
        crf: quality of the picture, lower is better.
    """

    short_side: int = 128
    keyframe_distance: int = 16
    fps: float | None = None
    sample_rate: int = 24000
    crf: int = 18

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise ConfigurationError(f"short_side must be at least 16, got {self.short_side}")
        if self.keyframe_distance < 1:
            raise ConfigurationError(f"keyframe_distance must be at least 1, got {self.keyframe_distance}")
        if self.fps is not None and self.fps <= 0:
            raise ConfigurationError(f"fps must be positive, got {self.fps}")


def prepare_videos(
    source: str,
    output: str | os.PathLike[str],
    settings: PrepareSettings | None = None,
    *,
    transcripts: TranscriptSource | None = None,
    splits: Sequence[str] = ("train",),
    shards: int | None = None,
    revision: str | None = None,
    processes: int = 2,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Re-encode a dataset into DIR/data/SPLIT-*.parquet, with DIR/report.json.

    The shards hold the files themselves (column `video`), with the sound of the container or of an `audio`
    column inside, and all other columns unchanged. A run that was broken off continues with the first shard
    that is not there.

    Args:
        source: whatever `load_videos` takes.
        output: the folder; made if need be.
        settings: how videos are stored.
        transcripts: where those of the videos lie; they are written into the column `transcript` as words
            with times, and a video without a readable one is left out. None leaves such a column as it is.
        splits: of the source that are prepared.
        shards: files a split; by default one for every thousand videos.
        revision: of a Hub dataset.
        processes: that decode and encode at the same time.
        show_progress: draw a progress bar.

    Returns:
        What report.json holds: for each split the number of videos read, written and without sound, and every
        video that was left out, with the reason.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        DataError: the source cannot be opened, or not one of its videos could be prepared.
    """
    settings = settings or PrepareSettings()
    folder = Path(output)
    claim_folder(folder, MANIFEST)
    opened = {split: load_videos(source, split, revision=revision) for split in splits}
    stored = {"source": source, "revision": revision, **asdict(settings)}
    if transcripts is not None:
        where = "beside the videos" if transcripts.folder is None else str(transcripts.folder)
        stored |= {"transcripts": where, "language": transcripts.language}
    settle_settings(folder / MANIFEST, stored)
    (folder / "data").mkdir(exist_ok=True)
    for split, dataset in opened.items():
        work = partial(_prepare_sample, dataset, settings, transcripts)
        features = _stored_features(dataset, transcripts)
        _prepare_split(folder, split, len(dataset), work, features, shards, processes, show_progress)
    report = _collect_report(folder, source)
    write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
    for split in splits:
        if report["splits"][split]["written"] == 0:
            reason = report["splits"][split]["dropped"][0]["reason"]
            raise DataError(
                f"no video of {source}, split {split}, could be prepared ({reason}); see {folder}/report.json"
            )
    return report


def reencode(cell: Any, settings: PrepareSettings, audio: Any = None) -> tuple[bytes, bool]:
    """Decode every frame of a video and encode it again.

    Args:
        cell: anything that `VideoReader` takes.
        settings: how it is stored.
        audio: sound that takes the place of the container's own: anything that `read_audio` takes.

    Returns:
        The bytes of an MP4 file, and whether it has sound.

    Raises:
        DecodeError: a frame or a sample cannot be decoded, or the file is damaged anywhere.
    """
    with VideoReader(cell) as video:
        # Reading clips can miss damage that decoding the whole file from its start finds.
        video.verify()
        numbers, times, fps = _timeline(video, settings.fps)
        height, width = _stored_size(video.info.height, video.info.width, settings.short_side)
        sound = _sound(video, audio, float(times[-1]) + 1 / fps, settings.sample_rate)
        buffer = io.BytesIO()
        with VideoWriter(
            buffer,
            height=height,
            width=width,
            fps=fps,
            sample_rate=None if sound is None else settings.sample_rate,
            keyframe_distance=settings.keyframe_distance,
            crf=settings.crf,
        ) as writer:
            step = max(1, CHUNK_BYTES // (height * width * 3))
            for start in range(0, len(numbers), step):
                chunk = slice(start, start + step)
                writer.add_frames(video.frames(numbers[chunk], (height, width)), times[chunk])
            if sound is not None:
                writer.add_sound(sound)
    return buffer.getvalue(), sound is not None


def _timeline(video: VideoReader, fps: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Numbers of the frames that are kept, when each is shown, and how many there are a second."""
    if fps is None or fps >= video.info.fps:
        return np.arange(len(video)), video.frame_times, video.info.fps
    times = np.arange(max(1, round(video.info.duration * fps))) / fps
    shown = np.searchsorted(video.frame_times, times + 1e-6, side="right") - 1
    return shown, times, fps


def _stored_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    scale = min(1.0, short_side / min(height, width))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _sound(video: VideoReader, audio: Any, seconds: float, sample_rate: int) -> np.ndarray | None:
    try:
        if audio is not None:
            return read_audio(audio, 0.0, seconds, sample_rate)
        return video.audio(0.0, seconds, sample_rate)
    except NoAudioError:
        return None


Prepared = tuple[dict[str, Any] | None, bool, dict[str, str]]
"""(row, has sound, {}), or (None, False, what is wrong)."""


def _stored_features(dataset: hf.Dataset, transcripts: TranscriptSource | None) -> hf.Features:
    import datasets as hf

    columns = {name: feature for name, feature in dataset.features.items() if name != "audio"}
    if transcripts is not None:
        word = {"text": hf.Value("string"), "start": hf.Value("float64"), "end": hf.Value("float64")}
        columns["transcript"] = hf.List(word)
    return hf.Features(columns)


def _prepare_split(
    folder: Path,
    split: str,
    num_videos: int,
    work: Callable[[int], Prepared],
    features: hf.Features,
    shards: int | None,
    processes: int,
    show_progress: bool,
) -> None:
    shards = shards or -(-num_videos // VIDEOS_PER_SHARD)
    if not 1 <= shards <= num_videos:
        raise ConfigurationError(f"{num_videos} videos cannot make {shards} shards: take 1 to {num_videos}")
    settle_settings(folder / ".prepare" / split / "split.json", {"videos": num_videos, "shards": shards})
    with progress_bar(show_progress) as progress:
        task = progress.add_task(f"Preparing {split}", total=num_videos)
        for number, indices in enumerate(np.array_split(np.arange(num_videos), shards)):
            path = folder / "data" / f"{split}-{number:05d}-of-{shards:05d}.parquet"
            if path.exists():
                progress.advance(task, len(indices))
                continue
            report = folder / ".prepare" / split / f"{number:05d}.json"
            _prepare_shard(path, report, indices.tolist(), work, features, processes, progress, task)


def _prepare_shard(
    path: Path,
    report: Path,
    indices: list[int],
    work: Callable[[int], Prepared],
    features: hf.Features,
    processes: int,
    progress: Progress,
    task: TaskID,
) -> None:
    """Write the report and then the shard: the shard's name says that both are complete."""
    rows: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    silent = 0
    for index, (row, has_sound, problem) in zip(
        indices, map_in_processes(work, indices, processes=processes), strict=True
    ):
        if row is None:
            dropped.append({"index": index, **problem})
        else:
            rows.append(row)
            silent += not has_sound
        progress.advance(task)
    facts = {"videos": len(indices), "written": len(rows), "without_sound": silent, "dropped": dropped}
    write_atomically(report, json.dumps(facts) + "\n")
    write_shard(path, rows, features)


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    """Write rows as a Parquet file that is either there in full or not there.

    Args:
        path: of the file.
        rows: a value of every column each.
        columns: name -> feature of datasets.
    """
    import datasets as hf
    import pyarrow.parquet as pq

    features = hf.Features(columns)
    shard = hf.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    part = path.with_name(f".{path.name}.part")
    table = shard.data.table.cast(shard.features.arrow_schema)  # with the features in its metadata
    pq.write_table(table, part, row_group_size=ROWS_PER_GROUP)
    part.replace(path)


def _prepare_sample(
    dataset: hf.Dataset, settings: PrepareSettings, transcripts: TranscriptSource | None, index: int
) -> Prepared:
    row = dict(dataset[index])
    cell, audio = row["video"], row.pop("audio", None)
    name = f"{index:06d}" if cell.get("path") is None else f"{index:06d}-{Path(cell['path']).stem}"
    try:
        if transcripts is not None:
            row["transcript"] = transcripts.cells(row)
        content, has_sound = reencode(cell, settings, audio)
    except (DecodeError, DataError) as error:
        key = sample_key({**row, "sample_index": index})
        reason = error.reason if isinstance(error, DecodeError) else str(error)
        return None, False, {"video": key, "error": type(error).__name__, "reason": reason}
    return {**row, "video": {"bytes": content, "path": f"{name}.mp4"}}, has_sound, {}


def _collect_report(folder: Path, source: str) -> dict[str, Any]:
    """Add up what the shards of every split have written down."""
    splits: dict[str, Any] = {}
    for state in sorted((folder / ".prepare").iterdir()):
        if not state.is_dir():
            continue
        parts = [json.loads(path.read_text()) for path in sorted(state.glob("[0-9]*.json"))]
        dropped = [sample for part in parts for sample in part["dropped"]]
        splits[state.name] = {
            **{key: sum(part[key] for part in parts) for key in ("videos", "written", "without_sound")},
            "errors": dict(Counter(sample["error"] for sample in dropped)),
            "dropped": dropped,
        }
    return {"source": source, "splits": splits}
