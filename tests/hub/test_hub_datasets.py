"""Datasets by Hub id: Parquet with embedded videos and folders of files, downloaded and streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from server import LoopbackHub

SCRIPT = """
import json
from pathlib import Path
import datasets
from huggingface_hub import HfApi
from media import write_media
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DataError

def describe(dataset):
    rows = []
    for row in dataset:
        with VideoReader(row["video"]) as reader:
            frame = reader.frames([len(reader) - 1])
        rows.append([row["label"], len(reader), int(frame.sum())])
    return rows

names = ["left", "right"]
clips = [write_media(Path(f"{number}.mp4"), num_frames=6 + number, seed=number) for number in range(4)]
answer["made"] = describe([{"video": str(path), "label": number % 2} for number, path in enumerate(clips)])

def rows():
    for number, path in enumerate(clips):
        yield {"video": {"bytes": path.read_bytes(), "path": path.name}, "label": number % 2}

features = datasets.Features(video=datasets.Video(), label=datasets.ClassLabel(names=names))
made = datasets.Dataset.from_generator(rows, features=features)
first = made.push_to_hub("alice/parquet", split="train", num_shards=2).oid
for path in clips:
    path.unlink()
del made

loaded = load_videos("alice/parquet", "train")
answer["parquet"] = describe(loaded)
answer["names"] = loaded.features["label"].names
streamed = load_videos("alice/parquet", "train", streaming=True)
answer["parquet streamed"], answer["shards"] = describe(streamed), streamed.num_shards

folder = Path("folder/train")
folder.mkdir(parents=True)
with (folder / "metadata.jsonl").open("w") as file:
    for number, row in enumerate(loaded):
        (folder / f"{number}.mp4").write_bytes(row["video"]["bytes"])
        file.write(json.dumps({"file_name": f"{number}.mp4", "label": names[row["label"]]}) + chr(10))
api = HfApi()
api.create_repo("alice/folder", repo_type="dataset")
api.upload_folder(repo_id="alice/folder", folder_path="folder", repo_type="dataset")
answer["folder"] = describe(load_videos("alice/folder", "train"))
answer["folder streamed"] = describe(load_videos("alice/folder", "train", streaming=True))

loaded.select([0]).push_to_hub("alice/parquet", split="train")
answer["newest"] = describe(load_videos("alice/parquet", "train", streaming=True))
answer["pinned"] = describe(load_videos("alice/parquet", "train", streaming=True, revision=first))

answer["errors"] = []
for source, split in (("alice/absent", "train"), ("alice/parquet", "test")):
    try:
        load_videos(source, split)
    except DataError as error:
        answer["errors"].append(str(error))
"""


@pytest.fixture(scope="module")
def answer(client: Callable[..., Any], hub: LoopbackHub) -> dict:
    return client(SCRIPT)


@pytest.mark.parametrize("kind", ["parquet", "parquet streamed", "folder", "folder streamed"])
def test_a_dataset_by_id_gives_the_clips_that_were_pushed(kind: str, answer: dict) -> None:
    assert len(answer["made"]) == 4
    assert answer[kind] == answer["made"]


def test_the_videos_lie_in_the_published_files(answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository("alice/parquet", "dataset").files(revision="main")
    assert [name for name in files if name.endswith(".mp4")] == []
    assert any(name.endswith(".parquet") for name in files)


def test_class_names_and_shards_are_kept(answer: dict) -> None:
    assert answer["names"] == ["left", "right"]
    assert answer["shards"] == 2


def test_streaming_reads_parts_of_files(answer: dict, hub: LoopbackHub) -> None:
    assert any(status == 206 and path.startswith("/cdn/") for _, path, status in hub.requests)


def test_a_pinned_revision_stays_what_it_was(answer: dict) -> None:
    assert answer["newest"] == answer["made"][:1]
    assert answer["pinned"] == answer["made"]


def test_absent_datasets_and_splits_are_clear_errors(answer: dict) -> None:
    absent, split = answer["errors"]
    assert "alice/absent" in absent
    assert "'test'" in split
