from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets as hf
import pytest
from torch.utils.data import DataLoader, IterableDataset

from videossl_hf.data.datasets import SeededDataset, SeededStream, load_videos, sample_key
from videossl_hf.data.video_folder import class_names
from videossl_hf.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    # datasets waits so long for its reading threads whenever a shuffled stream ends
    monkeypatch.setattr(hf.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    hf.disable_progress_bars()


def touch(*paths: Path) -> None:
    """Nothing here decodes: any bytes will do."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def write_metadata(folder: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        touch(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    touch(
        tmp_path / "train/walk/a.mp4",
        tmp_path / "train/walk/deep/b.MKV",
        tmp_path / "train/run/c.webm",
        tmp_path / "train/run/notes.txt",
        tmp_path / "validation/jump/d.avi",
        tmp_path / "validation/walk/e.mp4",
        tmp_path / ".hidden/f.mp4",
    )
    return tmp_path


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Path:
    features = hf.Features({"video": hf.Video(decode=False), "label": hf.ClassLabel(names=["run", "walk"])})
    for split, count in [("train", 6), ("test", 2)]:
        rows = {
            "video": [{"bytes": f"{split}{i}".encode(), "path": f"{i}.mp4"} for i in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        data = hf.Dataset.from_dict(rows, features=features)
        for shard in range(2):
            path = tmp_path / "data" / f"{split}-0000{shard}-of-00002.parquet"
            path.parent.mkdir(exist_ok=True)
            data.shard(2, shard, contiguous=True).to_parquet(str(path))
    return tmp_path


@pytest.mark.parametrize("streaming", [False, True])
def test_class_folders_have_the_same_classes_in_every_split(class_folders: Path, streaming: bool) -> None:
    for split, expected in [("train", ["run", "walk", "walk"]), ("validation", ["jump", "walk"])]:
        data = load_videos(str(class_folders), split, streaming=streaming)
        assert data.features["label"].names == ["jump", "run", "walk"]
        assert data.features["video"] == hf.Video(decode=False)
        rows = list(data)
        assert [data.features["label"].int2str(row["label"]) for row in rows] == expected
        assert all(Path(row["video"]["path"]).is_file() and row["video"]["bytes"] is None for row in rows)


def test_a_folder_without_splits_is_its_train_split(tmp_path: Path) -> None:
    touch(tmp_path / "walk/a.mp4", tmp_path / "run/b.mp4")
    assert load_videos(str(tmp_path), "train").features["label"].names == ["run", "walk"]
    with pytest.raises(DataError, match="only split is 'train'"):
        load_videos(str(tmp_path), "test")


def test_a_missing_split_is_an_error_that_lists_the_others(class_folders: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'test': it has train, validation"):
        load_videos(str(class_folders), "test")


def test_a_split_may_have_any_name(tmp_path: Path) -> None:
    touch(tmp_path / "train_small/walk/a.mp4")
    assert len(load_videos(str(tmp_path), "train_small")) == 1


def test_loose_videos_have_no_label(tmp_path: Path) -> None:
    touch(tmp_path / "train/b.mp4", tmp_path / "train/a.mp4", tmp_path / "train/README.md")
    data = load_videos(str(tmp_path), "train")
    assert data.column_names == ["video"]
    assert [Path(row["video"]["path"]).name for row in data] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("streaming", [False, True])
def test_metadata_columns_are_kept_and_string_labels_encoded(tmp_path: Path, streaming: bool) -> None:
    transcript = [{"text": "up", "start": 0, "end": 0.5}, {"text": "down", "start": 0.5, "end": 1.25}]
    row = {"label": "up", "caption": "it rises", "codes": [[1, 2], [3, 4]], "audio": "a.wav"}
    row["transcript"] = transcript
    touch(tmp_path / "train/a.wav")
    write_metadata(tmp_path / "train", [{"file_name": "noextension", **row}])
    write_metadata(tmp_path / "test", [{"file_name": "b.mp4", "label": "down"}])
    data = load_videos(str(tmp_path), "train", streaming=streaming)
    sample = next(iter(data))
    assert data.features["label"].names == ["down", "up"]
    assert (sample["label"], sample["caption"], sample["codes"]) == (1, "it rises", [[1, 2], [3, 4]])
    assert sample["transcript"] == transcript
    assert Path(sample["video"]["path"]) == tmp_path / "train/noextension"
    assert data.features["audio"].decode is False
    assert Path(sample["audio"]["path"]) == tmp_path / "train/a.wav"


def test_csv_metadata_with_numbers_as_labels(tmp_path: Path) -> None:
    touch(tmp_path / "train/a.mp4", tmp_path / "train/b.mp4")
    with (tmp_path / "train/metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "transcript"])
        writer.writerow(["a.mp4", "10", '[{"text": "hi", "start": 0.0, "end": 1.0}]'])
        writer.writerow(["b.mp4", "2", ""])
    data = load_videos(str(tmp_path), "train")
    assert data["label"][:] == [10, 2]
    assert data.features["label"].num_classes == 11
    assert data[0]["transcript"][0]["text"] == "hi"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "gone.mp4"}', "do not exist"),
        ('{"label": "up"}', "no file_name"),
        ("{broken", "line 1 is not JSON"),
        ('["a.mp4"]', "not a JSON object"),
        ('{"file_name": "a.mp4", "label": "x"}\n{"file_name": "a.mp4"}', "lack a label"),
        ('{"file_name": "a.mp4", "size": 1}\n{"file_name": "a.mp4", "size": "big"}', "mixes types"),
        ("", "holds no video"),
    ],
)
def test_wrong_metadata_is_an_error_that_says_so(tmp_path: Path, line: str, message: str) -> None:
    touch(tmp_path / "train/a.mp4")
    (tmp_path / "train/metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        load_videos(str(tmp_path), "train")


def test_two_metadata_files_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "train/metadata.jsonl", tmp_path / "train/metadata.csv")
    with pytest.raises(DataError, match="keep one"):
        load_videos(str(tmp_path), "train")


def test_class_folders_and_loose_videos_do_not_mix(tmp_path: Path) -> None:
    touch(tmp_path / "train/walk/a.mp4", tmp_path / "train/b.mp4")
    with pytest.raises(DataError, match=r"loose videos such as b\.mp4"):
        load_videos(str(tmp_path), "train")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        load_videos(str(tmp_path), "train")


@pytest.mark.parametrize("source", ["no/such/folder", "nowhere", "/no/such/folder"])
def test_a_source_that_is_nothing_is_an_error(source: str) -> None:
    with pytest.raises(DataError, match="no Hub id"):
        load_videos(source, "train")


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "clip.mp4", tmp_path / "train/broken.parquet")
    with pytest.raises(DataError, match="give the folder"):
        load_videos(str(tmp_path / "clip.mp4"), "train")
    with pytest.raises(DataError, match="as Parquet"):
        load_videos(str(tmp_path), "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_shards_hold_their_bytes(parquet_folder: Path, streaming: bool) -> None:
    data = load_videos(str(parquet_folder), "train", streaming=streaming)
    rows = list(data)
    assert [row["video"]["bytes"] for row in rows] == [f"train{i}".encode() for i in range(6)]
    assert data.features["label"].names == ["run", "walk"]
    if streaming:
        assert data.num_shards == 2


def test_parquet_without_the_split_is_an_error(parquet_folder: Path) -> None:
    with pytest.raises(DataError, match="it has test, train"):
        load_videos(str(parquet_folder), "validation")


@pytest.mark.parametrize("streaming", [False, True])
def test_string_labels_in_parquet_get_the_classes_of_all_splits(tmp_path: Path, streaming: bool) -> None:
    for split, label in [("train", "walk"), ("test", "run")]:
        rows = {"video": [{"bytes": b"1", "path": None}], "label": [label]}
        hf.Dataset.from_dict(rows).to_parquet(str(tmp_path / f"{split}.parquet"))
    data = load_videos(str(tmp_path), "train", streaming=streaming)
    assert data.features["label"].names == ["run", "walk"]
    assert next(iter(data))["label"] == 1


def test_a_single_parquet_file_without_videos_is_an_error(tmp_path: Path) -> None:
    hf.Dataset.from_dict({"clip": ["a"]}).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(DataError, match="no column 'video': it has clip"):
        load_videos(str(tmp_path / "train.parquet"), "train")


def test_class_names_of_integers_run_from_zero() -> None:
    assert class_names([2, 0]) == ["0", "1", "2"]
    assert class_names(["b", "a", None]) == ["a", "b"]
    assert class_names([]) is None
    with pytest.raises(DataError, match="negative"):
        class_names([-1])


def test_seeds_depend_on_run_epoch_and_index_and_on_nothing_else(class_folders: Path) -> None:
    data = load_videos(str(class_folders), "train")
    samples = SeededDataset(data, seed=3)
    first = [sample["sample_seed"] for sample in (samples[0], samples[1], samples[2])]
    samples.set_epoch(1)
    assert samples[0]["sample_epoch"] == 1
    second = [samples[index]["sample_seed"] for index in range(3)]
    other = [SeededDataset(data, seed=4)[index]["sample_seed"] for index in range(3)]
    assert len({*first, *second, *other}) == 9
    samples.set_epoch(0)
    assert [samples[index]["sample_seed"] for index in range(3)] == first
    assert [samples[index]["sample_index"] for index in range(3)] == [0, 1, 2]


def seeds_of(samples: list[dict[str, Any]]) -> list[int]:
    return [sample["sample_seed"] for sample in samples]


def test_workers_see_the_same_seeds_and_a_new_epoch_without_being_restarted(class_folders: Path) -> None:
    samples = SeededDataset(load_videos(str(class_folders), "train"))
    loader = DataLoader(samples, batch_size=2, num_workers=2, persistent_workers=True, collate_fn=seeds_of)
    for epoch in (0, 1):
        samples.set_epoch(epoch)
        expected = [samples[index]["sample_seed"] for index in range(3)]
        assert [seed for batch in loader for seed in batch] == expected


def test_samples_are_named_by_their_path_or_index() -> None:
    assert sample_key({"video": {"path": "a.mp4", "bytes": None}, "sample_index": 3}) == "a.mp4"
    assert sample_key({"video": {"path": None, "bytes": b"1"}, "sample_index": 3}) == "sample 3"


def stream(folder: Path, **settings: Any) -> SeededStream:
    return SeededStream(load_videos(str(folder), "train", streaming=True), 5, **settings)


def order(samples: SeededStream, epoch: int) -> list[tuple[Any, ...]]:
    samples.set_epoch(epoch)
    return [(row["video"]["bytes"], row["sample_index"], row["sample_seed"]) for row in samples]


def test_a_stream_replays_an_epoch_exactly_and_shuffles_every_epoch_anew(parquet_folder: Path) -> None:
    samples = stream(parquet_folder, shuffle_buffer=4)
    first, second = order(samples, 0), order(samples, 1)
    assert order(stream(parquet_folder, shuffle_buffer=4), 0) == first
    assert sorted(row[0] for row in first) == sorted(row[0] for row in second)
    assert [row[0] for row in first] != [row[0] for row in second]
    assert [row[1] for row in first] == list(range(6))
    assert not {row[2] for row in first} & {row[2] for row in second}


@pytest.mark.parametrize("shuffle_buffer", [0, 4])
def test_ranks_share_a_stream_without_overlap(parquet_folder: Path, shuffle_buffer: int) -> None:
    parts = [
        order(stream(parquet_folder, shuffle_buffer=shuffle_buffer, rank=rank, world_size=2), 0)
        for rank in range(2)
    ]
    assert sorted(row[0] for part in parts for row in part) == [f"train{i}".encode() for i in range(6)]
    assert sorted(row[1] for part in parts for row in part) == list(range(6))


class Endless(IterableDataset):
    """What a training loop puts around a stream: here without turns, so that every worker reads all of it."""

    def __init__(self, samples: SeededStream) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)


def test_every_worker_reads_the_whole_stream_in_the_same_order(parquet_folder: Path) -> None:
    samples = stream(parquet_folder, shuffle_buffer=4)
    loader = DataLoader(Endless(samples), batch_size=6, num_workers=2, collate_fn=seeds_and_bytes)
    expected = seeds_and_bytes(list(samples))
    assert list(loader) == [expected, expected]


def seeds_and_bytes(rows: list[dict[str, Any]]) -> list[tuple[int, bytes]]:
    return [(row["sample_seed"], row["video"]["bytes"]) for row in rows]
