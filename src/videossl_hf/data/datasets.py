"""Videos as Hugging Face datasets, whatever they lie in, and the samples with seeds that training draws from.

Cells stay undecoded (`{"bytes": ..., "path": ...}`) until a collator decodes the frames that it needs, so
shuffling, skipping and replaying cost next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from ..errors import DataError
from .official import read_official
from .seeds import mix_seeds
from .stored_codes import CODES, codes_array
from .video_folder import SPLIT_NAMES, VideoTable, class_names, read_metadata, read_video_folder

if TYPE_CHECKING:
    import datasets as hf

__all__ = ["SeededDataset", "SeededStream", "load_videos", "sample_key", "tag_sample"]

_STREAM_SHARDS = 64
_READ_AHEAD = 8


def load_videos(
    source: str, split: str, *, streaming: bool = False, revision: str | None = None, fold: int | None = None
) -> hf.Dataset | hf.IterableDataset:
    """Open one split of a video dataset.

    Args:
        source: a folder (class folders, metadata.jsonl/csv or Parquet shards, see `video_folder`), a Parquet
            file, a YAML file that names an official data set (see `official`), or the id of a dataset on the
            Hub.
        split: name of the split, such as "train".
        streaming: read while iterating instead of preparing everything first.
        revision: branch, tag or commit of a Hub dataset.
        fold: of an official data set, instead of the one that its YAML file names.

    Returns:
        a dataset with the column `video` (undecoded cells; without one a column `image` becomes it), and
        where the source has them `label` (ClassLabel, the same classes in every split), `audio` (undecoded
        cells) and any other columns.

    Raises:
        DataError: no such source or split, no videos, or a source without a `video` column.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        shards = _parquet_shards(path, split)
        if shards:
            return _open_parquet(shards, streaming)
        return _open_table(read_video_folder(path, split), f"{path}/{split}", streaming)
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            return _open_table(read_official(path, split, fold), f"{path}, {split}", streaming)
        if path.suffix != ".parquet":
            raise DataError(
                f"{path} is neither Parquet nor the YAML file of an official data set: give the folder it"
                " lies in"
            )
        return _open_parquet({split: [path]}, streaming)
    return _open_hub(source, split, streaming, revision)


def _open_table(table: VideoTable, where: str, streaming: bool) -> hf.Dataset | hf.IterableDataset:
    import datasets as hf

    try:
        features = hf.Dataset.from_dict(table.columns).features
        features["video"] = hf.Video(decode=False)
        if table.label_names is not None:
            features["label"] = hf.ClassLabel(names=table.label_names)
        dataset = hf.Dataset.from_dict(table.columns, features=features)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the metadata of {where} mixes types in one column: {error}") from error
    if "audio" in features:  # encoding such a cell would ask for torchcodec, casting the column does not
        dataset = dataset.cast_column("audio", hf.Audio(decode=False))
    if streaming:
        return dataset.to_iterable_dataset(num_shards=min(len(dataset), _STREAM_SHARDS))
    return dataset


def _parquet_shards(root: Path, split: str) -> dict[str, list[Path]]:
    """Parquet files by split, the wanted split first; empty if there is no Parquet at all."""
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.parquet")):
        folders = file.relative_to(root).parent.parts
        name = next((part for part in folders if part in SPLIT_NAMES), re.split(r"[-.]", file.name)[0])
        found.setdefault(name, []).append(file)
    if found and split not in found:
        raise DataError(f"{root} has no Parquet shards of split {split!r}: it has {', '.join(sorted(found))}")
    return {split: found.pop(split), **found} if found else {}


def _open_parquet(shards: dict[str, list[Path]], streaming: bool) -> hf.Dataset | hf.IterableDataset:
    """Open the first split of `shards`; the others only say which classes there are."""
    import datasets as hf
    import pyarrow.parquet as pq

    split, files = next(iter(shards.items()))
    try:
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        if rows == 0:
            raise DataError(f"{files[0]} holds no rows")
        dataset = hf.load_dataset(
            "parquet", data_files={split: [str(file) for file in files]}, split=split, streaming=streaming
        )
        dataset = _undecoded(dataset, str(files[0]))
        if _needs_class_names(dataset):
            columns = [
                pq.read_table(file, columns=["label"])["label"] for part in shards.values() for file in part
            ]
            names = class_names(label for column in columns for label in column.to_pylist())
            dataset = _encode_labels(dataset, names)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {files[0]} as Parquet: {error}") from error
    return dataset


def _open_hub(
    source: str, split: str, streaming: bool, revision: str | None
) -> hf.Dataset | hf.IterableDataset:
    import datasets as hf

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise DataError(
            f"there is no folder or Parquet file {source!r}, and it is no Hub id (owner/name) either"
        )
    try:
        dataset = hf.load_dataset(source, split=split, streaming=streaming, revision=revision)
    except (OSError, ValueError, hf.exceptions.DatasetsError) as error:
        raise DataError(
            f"cannot open split {split!r} of {source!r}: no such local folder, and the Hub answers: {error}"
        ) from error
    dataset = _undecoded(dataset, source)
    if _needs_class_names(dataset):
        dataset = _encode_labels(dataset, _hub_class_names(source, split, revision, streaming))
    if not streaming and len(dataset) == 0:
        raise DataError(f"split {split!r} of {source!r} is empty")
    return dataset


def _hub_class_names(source: str, split: str, revision: str | None, streaming: bool) -> list[str] | None:
    """Classes of a Hub dataset whose labels are no ClassLabel, over all splits: from its metadata files."""
    import datasets as hf
    import huggingface_hub

    names = huggingface_hub.list_repo_files(source, repo_type="dataset", revision=revision)
    rows: list[Any] = []
    for name in names:
        if Path(name).name in ("metadata.jsonl", "metadata.csv"):
            file = huggingface_hub.hf_hub_download(source, name, repo_type="dataset", revision=revision)
            rows += [row.get("label") for row in read_metadata(Path(file))]
    if not rows and not streaming:
        parts = hf.load_dataset(source, revision=revision)
        rows = [label for part in parts.values() for label in part.unique("label")]
    if not rows:
        raise DataError(
            f"the labels of {source!r} are no ClassLabel, and a stream cannot tell which classes there are: "
            "publish it with a ClassLabel column, or load it without streaming"
        )
    return class_names(rows)


def _undecoded(dataset: Any, source: str) -> Any:
    """Check for a `video` column (or one of images, which are videos of one frame) and stop datasets from
    decoding video and sound itself."""
    import datasets as hf

    columns = dataset.column_names
    if columns is None:
        dataset = dataset._resolve_features()
        columns = dataset.column_names
    if "video" not in columns and "image" not in columns:
        raise DataError(f"{source} has no column 'video': it has {', '.join(columns) or 'none'}")
    if isinstance(dataset, hf.IterableDataset):
        # A stream from the Hub comes with threads that decode: a cast would come after them.
        dataset = dataset.decode(False)
    if "video" not in columns:
        dataset = dataset.cast_column("image", hf.Image(decode=False)).rename_column("image", "video")
    dataset = dataset.cast_column("video", hf.Video(decode=False))
    if "audio" in columns:
        dataset = dataset.cast_column("audio", hf.Audio(decode=False))
    return dataset


def _needs_class_names(dataset: Any) -> bool:
    import datasets as hf

    label = dataset.features.get("label")
    return label is not None and not isinstance(label, hf.ClassLabel)


def _encode_labels(dataset: Any, names: list[str] | None) -> Any:
    import datasets as hf

    if names is None:
        return dataset.remove_columns("label")
    numbers = {name: number for number, name in enumerate(names)}
    features = dataset.features.copy()
    features["label"] = hf.ClassLabel(names=names)
    return dataset.map(_Encoder(numbers), input_columns="label", features=features)


class _Encoder:
    """Label to number, as a class so that datasets can fingerprint and send it to workers."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers = numbers

    def __call__(self, label: Any) -> dict[str, int]:
        return {"label": self.numbers[str(label)]}


def sample_key(sample: dict[str, Any]) -> str:
    """What a sample is called in messages and ledgers: the path of its video, else its index."""
    video = sample.get("video")
    path = video.get("path") if isinstance(video, dict) else None
    return path or f"sample {sample.get('sample_index', '?')}"


class SeededDataset(Dataset[dict[str, Any]]):
    """A map-style dataset whose samples know their index and a seed.

    The seed is a function of run seed, epoch and index alone, so that what is drawn for a sample does not
    depend on batches, workers or processes. The epoch lies in shared memory: `set_epoch` also reaches worker
    processes that live on. Stored codes come as arrays (frames, rows, columns) that are read where used.
    """

    def __init__(self, dataset: hf.Dataset, seed: int = 0) -> None:
        codes = [name for name in dataset.column_names if name.startswith(CODES)]
        self.dataset = dataset.remove_columns(codes)
        self._codes = dataset.select_columns(codes).with_format("arrow") if codes else None
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and with it the seeds of all samples."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The undecoded sample with `sample_index`, `sample_seed` and `sample_epoch`."""
        sample = self.dataset[index]
        if self._codes is not None:
            row = self._codes[index]
            sample |= {name: codes_array(row[name]) for name in row.column_names}
        return tag_sample(sample, self.seed, self.epoch, index)


class SeededStream:
    """The samples of a streamed dataset in the order of an epoch, each with its running index and a seed.

    Iterating gives every sample of this rank's share, in any worker process: who reads with several workers
    lets them take turns (as `training.batches.EndlessStream` does), which keeps the order independent of
    their number. Iterating again after the same `set_epoch` gives the same samples, undecoded: that is how
    a run resumes exactly.

    Args:
        dataset: of `load_videos(..., streaming=True)`.
        seed: of the order and of the samples.
        shuffle_buffer: samples among which the next one is drawn; the order of shards is shuffled too. 0
            keeps the stored order.
        rank, world_size: take only this share: whole shards where their number is a multiple of `world_size`,
            every `world_size`-th sample otherwise.
    """

    def __init__(
        self,
        dataset: hf.IterableDataset,
        seed: int = 0,
        *,
        shuffle_buffer: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and with it the order and the seeds of all samples."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, position = self.epoch, 0
        # `iter` reads the same in a worker process as elsewhere; `__iter__` would deal out shards to workers.
        for batch in self._ordered(epoch).iter(batch_size=_READ_AHEAD):
            for values in zip(*batch.values(), strict=True):
                index = position * self.world_size + self.rank
                yield tag_sample(dict(zip(batch, values, strict=True)), self.seed, epoch, index)
                position += 1

    def _ordered(self, epoch: int) -> hf.IterableDataset:
        """This rank's share in the order of an epoch.

        Shuffled anew, since `set_epoch` of datasets reaches all worker processes through shared memory,
        also those that are still in another epoch.
        """
        dataset = self.dataset
        if self.shuffle_buffer:
            seed = mix_seeds(self.seed, epoch) % 2**32
            dataset = dataset.shuffle(seed=seed, buffer_size=self.shuffle_buffer)
        if self.world_size > 1:
            from datasets.distributed import split_dataset_by_node

            dataset = split_dataset_by_node(dataset, rank=self.rank, world_size=self.world_size)
        return dataset


def tag_sample(sample: dict[str, Any], seed: int, epoch: int, index: int) -> dict[str, Any]:
    """A sample with `sample_index`, `sample_epoch`, and a seed that depends on these and the run's alone."""
    seeds = {"sample_index": index, "sample_seed": mix_seeds(seed, epoch, index), "sample_epoch": epoch}
    return sample | seeds
