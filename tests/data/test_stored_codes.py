"""Codes made once: the same as on the fly, whole after a break, shared out, refused where they do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from common.media import make_clip
from models import tiny_vimpac
from videossl_hf.cli import main
from videossl_hf.data import prepare_codes as module
from videossl_hf.data.datasets import SeededDataset, load_videos
from videossl_hf.data.prepare_codes import Share, prepare_codes
from videossl_hf.data.reader import VideoReader
from videossl_hf.data.stored_codes import CodesManifest, CodeView, cut_frames, read_codes_manifest
from videossl_hf.errors import ConfigurationError, DataError, OutputError
from videossl_hf.models.vimpac.collation_vimpac import VIMPACAugmentation, VIMPACCollator
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor

SIZE, FPS = tiny_vimpac.SIZE, 12.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, count in enumerate((24, 40, 30, 20)):
        path = folder / "train" / "ab"[index % 2] / f"{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, count=count)
    return folder


def manifest(*views: CodeView, fps: float = FPS) -> CodesManifest:
    tokenizer = tiny_vimpac.make_tokenizer()
    chosen = views or (CodeView(SIZE),)
    columns = {view.column(SIZE): view for view in chosen}
    return CodesManifest("tiny", tokenizer.fingerprint(), tiny_vimpac.CODES, fps, SIZE, columns)


def make(videos: Path, output: Path, *views: CodeView, **settings: Any) -> dict[str, Any]:
    encode = tiny_vimpac.make_tokenizer().encode
    return prepare_codes(str(videos), output, manifest(*views), encode, show_progress=False, **settings)


@pytest.fixture(scope="module")
def codes(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes") / "codes"
    make(videos, folder)
    return folder


def collator(augmentation: VIMPACAugmentation | None = None, **settings: Any) -> VIMPACCollator:
    config = tiny_vimpac.make_config(**settings)
    return VIMPACCollator(
        config, VIMPACProcessor.from_config(config, tiny_vimpac.make_tokenizer()), augmentation
    )


def test_training_from_the_cache_equals_training_on_the_fly(videos: Path, codes: Path) -> None:
    batches = []
    for source in (videos, codes):
        samples = SeededDataset(load_videos(str(source), "train"), seed=3)
        batches.append(collator()([samples[index] for index in range(4)]))
    torch.manual_seed(0)
    model = VIMPACForPreTraining(tiny_vimpac.make_config())
    for name, value in batches[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(batches[1][name])), name
    first, second = (model(**batch).loss for batch in batches)
    assert torch.equal(first, second)


def test_codes_are_small_integers_that_are_read_where_they_are_used(codes: Path) -> None:
    path = next((codes / "data").glob("*.parquet"))
    schema = pq.read_schema(path)
    assert str(schema.field("codes").type).count("int16") == 1
    table = load_videos(str(codes), "train")
    sample = SeededDataset(table)[1]
    assert sample["codes"].dtype == np.int16
    assert not sample["codes"].flags.owndata
    assert np.array_equal(sample["codes"], np.array(table[1]["codes"]))
    shuffled = SeededDataset(table.shuffle(seed=0).select([2, 0]))
    assert len({shuffled[index]["codes"].tobytes() for index in range(2)}) == 2
    assert sample["video"]["bytes"] is None
    assert sample["video"]["path"].endswith("1.mp4") or sample["video"]["path"].endswith("2.mp4")
    assert isinstance(table.features["label"], hf.ClassLabel)


def test_a_stream_of_codes_trains_too(codes: Path) -> None:
    stream = load_videos(str(codes), "train", streaming=True)
    sample = next(iter(stream)) | {"sample_seed": 1, "sample_epoch": 0, "sample_index": 0}
    assert collator()([sample])["input_codes"].shape == (1, 5, 4, 4)


def test_crops_and_flips_come_from_one_decode(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, original = [], VideoReader.clips

    def counted(reader: VideoReader, *args: Any, **kwargs: Any) -> Any:
        passes.append(reader)
        return original(reader, *args, **kwargs)

    monkeypatch.setattr(VideoReader, "clips", counted)
    views = [
        CodeView(side, crop, flip)
        for side in (SIZE, 40)
        for crop in ("top", "center", "bottom")
        for flip in (False, True)
    ]
    make(videos, tmp_path / "codes", *views, shards=1)
    assert len(passes) == 4
    row = SeededDataset(load_videos(str(tmp_path / "codes"), "train"))[0]
    assert sum(name.startswith("codes") for name in row) == 12
    tokenizer = tiny_vimpac.make_tokenizer()
    with VideoReader(row["video"]) as reader:
        numbers = module.frames_shown(reader.frame_times, 1 / reader.info.fps, FPS)
        frames = reader.frames(numbers, 40)
    expected = tokenizer.encode(torch.from_numpy(frames[:, -SIZE:, -SIZE:]).permute(0, 3, 1, 2).flip(-1))
    assert np.array_equal(row["codes_40_bottom_flip"], expected.numpy())


def test_squares_are_cut_at_both_corners_and_between() -> None:
    frames = np.arange(1 * 8 * 13 * 3, dtype=np.uint8).reshape(1, 8, 13, 3)
    for crop, left in (("top", 0), ("center", 3), ("bottom", 5)):
        cut = cut_frames(frames, CodeView(8, crop), 8)
        assert np.array_equal(cut[0].permute(1, 2, 0), frames[0, :, left : left + 8])
    small = cut_frames(frames[:, :4, :6], CodeView(8), 8)
    assert small.shape == (1, 3, 8, 8)
    assert small.dtype == torch.uint8


def content(folder: Path) -> list[dict[str, Any]]:
    return [pq.read_table(path).to_pydict() for path in sorted((folder / "data").glob("*.parquet"))]


def test_processes_share_the_shards_and_a_broken_run_goes_on(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(videos, tmp_path / "whole", shards=3)
    whole = content(tmp_path / "whole")
    shared = tmp_path / "shared"
    make(videos, shared, shards=3, share=Share(1, 2))
    assert len(content(shared)) == 1
    assert not (shared / "report.json").exists()
    seen = []
    original = module.write_shard
    monkeypatch.setattr(module, "write_shard", lambda *args: seen.append(args[0]) or original(*args))
    report = make(videos, shared)  # as many shards as it was begun with
    assert len(seen) == 2
    assert content(shared) == whole
    assert report == json.loads((shared / "report.json").read_text())
    assert report["splits"]["train"]["written"] == 4


@pytest.mark.slow
def test_two_launched_processes_make_what_one_makes(videos: Path, codes: Path, tmp_path: Path) -> None:
    tokenizer, shared = tmp_path / "tokenizer", tmp_path / "shared"
    tiny_vimpac.make_tokenizer().save_pretrained(tokenizer)
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0", "-m", "videossl_hf.cli", "prepare"),
        *(str(videos), "--codes", str(tokenizer), "--fps", str(FPS), "--image-size", str(SIZE)),
        *("--output", str(shared), "--quiet"),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = [json.loads(file.read_text()) for file in (shared / ".prepare/train").glob("[0-9]*.json")]
    assert sorted((part["process"], part["written"]) for part in facts) == [(0, 2), (1, 2)]
    report = json.loads((shared / "report.json").read_text())
    assert report["splits"]["train"] == {"videos": 4, "written": 4, "dropped": []}
    parts = content(shared)
    (whole,) = content(codes)
    assert len(parts) == 2
    assert {name: parts[0][name] + parts[1][name] for name in parts[0]} == whole


def test_what_cannot_be_decoded_is_left_out_and_told(videos: Path, tmp_path: Path) -> None:
    source = tmp_path / "videos/train/a"
    source.mkdir(parents=True)
    (source / "good.mp4").write_bytes((videos / "train/a/0.mp4").read_bytes())
    (source / "bad.mp4").write_bytes(b"no video")
    facts = make(tmp_path / "videos", tmp_path / "codes")["splits"]["train"]
    assert (facts["written"], len(facts["dropped"])) == (1, 1)
    (source / "good.mp4").write_bytes(b"none either")
    with pytest.raises(DataError, match="could be decoded"):
        make(tmp_path / "videos", tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "augmentation", "names"),
    [
        ({"fps": 6.0}, {}, r"fps is 12.0 there, 6.0 here"),
        ({}, {"codes_fps": 24.0}, r"fps is 12.0 there, 24.0 here"),
        ({"image_size": 40}, {}, r"image_size is \[32, 32\] there, \[40, 40\] here"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_with_the_difference(
    codes: Path, settings: dict[str, Any], augmentation: dict[str, Any], names: str
) -> None:
    with pytest.raises(ConfigurationError, match=names):
        collator(VIMPACAugmentation(**augmentation), **settings).check_source(str(codes))
    collator(VIMPACAugmentation(codes_fps=12.0), fps=6.0).check_source(str(codes))


def test_codes_of_another_tokeniser_are_refused(codes: Path, tmp_path: Path) -> None:
    collate = collator()
    collate.check_source(str(codes))
    with torch.no_grad():
        collate.processor.tokenizer_model.encoder.stem.bias += 1
    with pytest.raises(ConfigurationError, match="fingerprint"):
        collate.check_source(str(codes))
    damaged = tmp_path / "codes"
    damaged.mkdir()
    (damaged / "codes.json").write_text('{"fps": 2}')
    with pytest.raises(DataError, match="damaged"):
        collate.check_source(str(damaged))
    collate.check_source(str(tmp_path))  # no codes: nothing to compare


def test_the_command_writes_codes_and_refuses_what_does_not_go_together(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_vimpac.make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    common = ["prepare", str(videos), "--codes", str(tmp_path / "tokenizer"), "--quiet", "--output"]
    size = ["--image-size", "32", "--fps", "12"]
    assert main([*common, str(tmp_path / "codes"), *size, "--processes", "2"]) == 0
    assert "codes of 4 of 4 videos" in capsys.readouterr().out
    found = read_codes_manifest(str(tmp_path / "codes"))
    assert found is not None
    assert found.fingerprint == manifest().fingerprint
    assert main([*common, str(tmp_path / "codes"), *size, "--flips"]) == 1
    assert "views is" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "other"), "--crf", "3"]) == 1
    assert "--codes knows no --crf" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "other"), "--image-size", "30"]) == 1
    assert "multiple of 8" in capsys.readouterr().err


def test_a_folder_of_other_codes_is_not_mixed_with(videos: Path, codes: Path) -> None:
    with pytest.raises(OutputError, match="views is"):
        make(videos, codes, CodeView(SIZE), CodeView(SIZE, flip=True))
