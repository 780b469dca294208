"""Makes the codes of a dataset once, so that training neither decodes nor tokenises.

Every video is decoded once, for all crops and flips. The work of a split lies in shards, which the processes
of an `accelerate launch` share out among themselves without talking to each other; one that was broken off
goes on with the first shard that is not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ConfigurationError, DataError, DecodeError
from .datasets import load_videos, sample_key
from .output_folder import claim_folder, settle_settings, write_atomically
from .parallel import map_in_processes, progress_bar
from .prepare import VIDEOS_PER_SHARD, write_shard
from .reader import VideoReader
from .stored_codes import CODES, MANIFEST, CodesManifest, cut_frames, frames_shown

__all__ = ["Share", "prepare_codes"]

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Share:
    """The part of the shards that this process makes."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_environment(cls) -> Share:
        """From RANK and WORLD_SIZE, as `accelerate launch` sets them."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def prepare_codes(
    source: str,
    output: str | os.PathLike[str],
    manifest: CodesManifest,
    encode: Encode,
    *,
    splits: Sequence[str] = ("train",),
    shards: int | None = None,
    revision: str | None = None,
    processes: int = 1,
    share: Share | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Write the codes of a dataset to DIR/data/SPLIT-*.parquet, with DIR/codes.json and DIR/report.json.

    Rows keep all columns of the source but sound and the bytes of the video; `video` tells the path.

    Args:
        source: whatever `load_videos` takes.
        output: the folder; made if need be.
        manifest: tokeniser, rate, size and views.
        encode: frames (frames, 3, size, size) uint8 to codes (frames, rows, columns).
        splits: of the source.
        shards: files a split; by default one for every thousand videos, and one a process at least.
        revision: of a Hub dataset.
        processes: that decode beside this one, which encodes; 1 decodes here.
        share: which shards are this process's; by default what the launcher says.
        show_progress: draw a progress bar.

    Returns:
        What report.json holds when all shards of all splits are there: for each split the number of videos
        and of those written, and every video that was left out, with the reason.

    Raises:
        OutputError: the folder cannot be written, or holds something else, or codes of other settings.
        DataError: the source cannot be opened, or not one of its videos could be decoded.
    """
    share = share or Share.of_environment()
    folder = Path(output)
    claim_folder(folder, MANIFEST)
    settle_settings(folder / MANIFEST, manifest.to_dict())
    opened = {split: load_videos(source, split, revision=revision) for split in splits}
    for split, dataset in opened.items():
        state = folder / ".prepare" / split
        count = _number_of_shards(state / "split.json", len(dataset), shards, share)
        settle_settings(
            state / "split.json",
            {"source": source, "revision": revision, "videos": len(dataset), "shards": count},
        )
        _prepare_split(folder, split, dataset, manifest, encode, count, processes, share, show_progress)
    return _report(folder, source)


def _number_of_shards(settled: Path, videos: int, wanted: int | None, share: Share) -> int:
    if wanted is None and settled.is_file():  # a run that goes on, perhaps with other processes
        wanted = int(json.loads(settled.read_text(encoding="utf-8"))["shards"])
    shards = wanted or min(max(-(-videos // VIDEOS_PER_SHARD), share.world_size), videos)
    if not 1 <= shards <= videos:
        raise ConfigurationError(f"{videos} videos cannot make {shards} shards: take 1 to {videos}")
    return shards


def _prepare_split(
    folder: Path,
    split: str,
    dataset: Any,
    manifest: CodesManifest,
    encode: Encode,
    shards: int,
    processes: int,
    share: Share,
    show_progress: bool,
) -> None:
    (folder / "data").mkdir(exist_ok=True)
    columns = {name: feature for name, feature in dataset.features.items() if name != "audio"}
    columns = {name: feature for name, feature in columns.items() if not name.startswith(CODES)}
    side = manifest.image_size // 8
    columns |= dict.fromkeys(manifest.views, _codes_feature(side, side))
    decode = partial(_decode, dataset, manifest)
    mine = list(enumerate(np.array_split(np.arange(len(dataset)), shards)))[share.rank :: share.world_size]
    with progress_bar(show_progress) as progress:
        task = progress.add_task(f"Codes of {split}", total=sum(len(indices) for _, indices in mine))
        for number, indices in mine:
            path = folder / "data" / f"{split}-{number:05d}-of-{shards:05d}.parquet"
            if path.exists():
                progress.advance(task, len(indices))
                continue
            rows, dropped = [], []
            decoded = map_in_processes(decode, indices.tolist(), processes=processes)
            for index, (clips, problem) in zip(indices.tolist(), decoded, strict=True):
                if problem is not None:
                    dropped.append({"index": index, **problem})
                else:
                    rows.append(_row(dataset[index], clips, encode))
                progress.advance(task)
            facts = {"videos": len(indices), "written": len(rows), "dropped": dropped, "process": share.rank}
            write_atomically(folder / ".prepare" / split / f"{number:05d}.json", json.dumps(facts) + "\n")
            write_shard(path, rows, columns)


def _decode(
    dataset: Any, manifest: CodesManifest, index: int
) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Squares of every view, from one pass over the file; or what is wrong with it."""
    row = dataset[index]
    try:
        with VideoReader(row["video"]) as video:
            video.verify()
            numbers = frames_shown(video.frame_times, 1 / video.info.fps, manifest.fps)
            short_sides = sorted({view.short_side for view in manifest.views.values()})
            own = min(video.info.height, video.info.width)
            sizes = [side if side < own else None for side in short_sides]
            scaled = dict(zip(short_sides, video.clips([numbers] * len(sizes), sizes=sizes), strict=True))
    except DecodeError as error:
        key = sample_key({**row, "sample_index": index})
        return {}, {"video": key, "error": type(error).__name__, "reason": error.reason}
    views = manifest.views.items()
    return {
        name: cut_frames(scaled[view.short_side], view, manifest.image_size) for name, view in views
    }, None


def _row(sample: dict[str, Any], clips: dict[str, Tensor], encode: Encode) -> dict[str, Any]:
    """The columns of one video."""
    row = {name: value for name, value in sample.items() if name != "audio"}
    row["video"] = {"bytes": None, "path": row["video"].get("path")}
    return row | {name: encode(frames).cpu().numpy().astype(np.int16) for name, frames in clips.items()}


def _report(folder: Path, source: str) -> dict[str, Any]:
    """Add up what the shards have written down, and keep it once all of them are there."""
    splits: dict[str, Any] = {}
    complete = True
    for state in sorted((folder / ".prepare").iterdir()):
        shards = int(json.loads((state / "split.json").read_text(encoding="utf-8"))["shards"])
        complete &= len(list((folder / "data").glob(f"{state.name}-*.parquet"))) == shards
        parts = [json.loads(path.read_text("utf-8")) for path in sorted(state.glob("[0-9]*.json"))]
        splits[state.name] = {
            **{key: sum(part[key] for part in parts) for key in ("videos", "written")},
            "dropped": [sample for part in parts for sample in part["dropped"]],
        }
    report = {"source": source, "splits": splits}
    if complete:
        write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
        for split, facts in splits.items():
            if facts["written"] == 0:
                raise DataError(
                    f"no video of {source}, split {split}, could be decoded"
                    f" ({facts['dropped'][0]['reason']}); see {folder}/report.json"
                )
    return report


def _codes_feature(rows: int, columns: int) -> Any:
    """The type of a column of codes."""
    import datasets as hf

    return hf.List(hf.List(hf.List(hf.Value("int16"), length=columns), length=rows))
