from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DataError, DecodeError, InputError
from videossl_hf.evaluation import features as features_module
from videossl_hf.evaluation.baselines import make_baseline
from videossl_hf.evaluation.cache import FeatureCache, load_features
from videossl_hf.evaluation.clips import PreparedClips, Views
from videossl_hf.evaluation.features import embed, extract_features
from videossl_hf.evaluation.loading import load_model

ROOT = Path(__file__).parents[2]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def broken(dataset, row):
    """The dataset with one file replaced by text."""
    cells = dataset["video"][:]
    cells[row] = {"bytes": b"no video", "path": None}
    return dataset.remove_columns("video").add_column("video", cells)


def test_features_labels_and_keys_come_in_the_order_of_the_data(tiny, test_clips):
    table = extract_features(tiny.model, tiny.processor, test_clips, batch_size=5)
    assert table.labels.tolist() == test_clips["label"][:]
    assert table.label_names == test_clips.features["label"].names
    assert table.keys[3] == "/".join(Path(test_clips[3]["video"]["path"]).parts[-2:])
    with torch.no_grad():
        inputs = tiny.processor(videos=[test_clips[7]["video"]])["pixel_values_videos"]
        expected = tiny.model.stica(pixel_values_videos=inputs).pooler_output[0]
    torch.testing.assert_close(table.features[7], expected, rtol=1e-5, atol=1e-6)


def test_views_of_a_clip_are_averaged(tiny, test_clips):
    table = extract_features(tiny.model, tiny.processor, test_clips, views="2x3", batch_size=6)
    inputs = tiny.processor(videos=[test_clips[5]["video"]], num_clips=2, num_crops=3)
    views = inputs["pixel_values_videos"][0]
    assert views.shape[0] == 6
    expected = embed(tiny.model.stica, views).mean(dim=0)
    torch.testing.assert_close(table.features[5], expected, rtol=1e-5, atol=1e-6)


def test_all_views_of_a_video_come_from_opening_it_once(tiny, test_clips, monkeypatch):
    opened = []
    original = VideoReader.__init__
    monkeypatch.setattr(VideoReader, "__init__", lambda *a, **k: opened.append(1) or original(*a, **k))
    PreparedClips(tiny.processor, test_clips, views="3x3")[0]
    assert len(opened) == 1


def test_a_sample_with_more_views_than_a_batch_holds_is_split(tiny, test_clips):
    few = test_clips.select(range(2))
    small = extract_features(tiny.model, tiny.processor, few, views="2x3", batch_size=4)
    large = extract_features(tiny.model, tiny.processor, few, views="2x3", batch_size=64)
    torch.testing.assert_close(small.features, large.features, rtol=1e-5, atol=1e-6)


def test_sound_features_come_from_the_sound_tower(tiny, test_clips):
    table = extract_features(tiny.model, tiny.processor, test_clips, modality="audio")
    inputs = tiny.processor(videos=[test_clips[0]["video"]], audio=True)["input_features"]
    with torch.no_grad():
        expected = tiny.model.stica(input_features=inputs).audio_pooler_output[0]
    torch.testing.assert_close(table.features[0], expected, rtol=1e-5, atol=1e-6)
    twice = extract_features(tiny.model, tiny.processor, test_clips, modality="audio", views="2x1")
    assert twice.features.shape == table.features.shape


def test_the_shared_space_is_that_of_the_projection_heads(tiny, test_clips):
    for modality in ("video", "audio"):
        table = extract_features(tiny.model, tiny.processor, test_clips, modality=modality, space="shared")
        assert table.features.shape == (12, 8)
        torch.testing.assert_close(table.features.norm(dim=1), torch.ones(12))


def test_the_model_comes_back_in_the_modes_it_was_in(tiny, test_clips):
    tiny.model.train()
    tiny.model.stica.audio_model.eval()
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    try:
        extract_features(tiny.model, tiny.processor, test_clips.select(range(2)))
        assert tiny.model.stica.video_model.training
        assert not tiny.model.stica.audio_model.training
        assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())
    finally:
        tiny.model.eval()


def test_worker_processes_change_nothing(tiny, test_clips):
    alone = extract_features(tiny.model, tiny.processor, test_clips, batch_size=4)
    helped = extract_features(tiny.model, tiny.processor, test_clips, batch_size=4, num_workers=2)
    assert torch.equal(alone.features, helped.features)
    assert alone.keys == helped.keys


@pytest.mark.parametrize("num_workers", [0, 2])
def test_kept_clips_are_decoded_once(tiny, test_clips, monkeypatch, num_workers):
    clips = PreparedClips(tiny.processor, test_clips, keep=True)
    first = extract_features(tiny.model, tiny.processor, clips, num_workers=num_workers)
    monkeypatch.setattr(VideoReader, "__init__", lambda *a, **k: pytest.fail("decoded again"))
    assert torch.equal(extract_features(tiny.model, tiny.processor, clips).features, first.features)


def test_hand_made_features_see_what_the_processor_makes(tiny, test_clips):
    pixels = PreparedClips(tiny.processor, test_clips)[4].inputs
    difference = extract_features(make_baseline("frame-difference"), tiny.processor, test_clips)
    assert torch.equal(difference.features[4], (pixels[0, 1:] - pixels[0, :-1]).abs().flatten())
    raw = extract_features(make_baseline("raw-pixels"), tiny.processor, test_clips)
    assert torch.equal(raw.features[4], pixels.flatten())


def test_a_broken_file_raises_or_is_left_out_and_named(tiny, test_clips, tmp_path):
    dataset = broken(test_clips, 6)
    with pytest.raises(DecodeError):
        extract_features(tiny.model, tiny.processor, dataset, num_workers=1)
    for cache in (None, tmp_path / "cache"):
        table = extract_features(
            tiny.model, tiny.processor, dataset, on_error="skip", cache_dir=cache, shard_size=4
        )
        assert len(table) == 11
        assert table.labels.tolist() == [v for n, v in enumerate(dataset["label"][:]) if n != 6]
        assert [entry["key"] for entry in table.info["skipped"]] == ["row 6"]


def test_a_set_of_broken_files_is_an_error(tiny, test_clips, tmp_path):
    dataset = broken(test_clips, 0).select([0])
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(DataError, match="could be decoded"):
            extract_features(tiny.model, tiny.processor, dataset, on_error="skip", cache_dir=cache)


def extract_until_killed(tiny, clips, folder, started):
    """Reports three finished batches of the six, and waits for its end."""
    original, done = FeatureCache.write_batch, []

    def write(cache, rows, table):
        original(cache, rows, table)
        done.append(rows)
        if len(done) == 3:
            started.set()
            time.sleep(60)

    FeatureCache.write_batch = write
    TestCache().extract(tiny, clips, folder)


def extract_as_one_of_two(rank, port, tiny, clips, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    TestCache().extract(tiny, clips, folder)
    torch.distributed.destroy_process_group()


class TestCache:
    def extract(self, tiny, clips, folder, **settings):
        defaults = {"cache_dir": folder, "batch_size": 2, "shard_size": 4}
        return extract_features(tiny.model, tiny.processor, clips, **(defaults | settings))

    def test_what_is_there_is_read_and_equals_what_was_computed(
        self, tiny, test_clips, tmp_path, monkeypatch
    ):
        first = self.extract(tiny, test_clips, tmp_path)
        assert len(list(tmp_path.glob("shard-*.safetensors"))) == 3
        monkeypatch.setattr(VideoReader, "__init__", lambda *a, **k: pytest.fail("decoded again"))
        for again in (self.extract(tiny, test_clips, tmp_path), load_features(tmp_path)):
            assert torch.equal(again.features, first.features)
            assert (again.keys, again.label_names) == (first.keys, first.label_names)
            assert torch.equal(again.labels, first.labels)

    def test_an_interrupted_extraction_goes_on_without_repeating_a_clip(
        self, tiny, test_clips, tmp_path, monkeypatch
    ):
        whole = self.extract(tiny, test_clips, tmp_path / "whole")
        embedded, stored = [], FeatureCache.write_batch
        original = features_module.embed

        def stop_in_second_shard(cache, rows, table):
            if rows.start == 6:
                raise KeyboardInterrupt
            stored(cache, rows, table)

        with monkeypatch.context() as patched:
            patched.setattr(FeatureCache, "write_batch", stop_in_second_shard)
            with pytest.raises(KeyboardInterrupt):
                self.extract(tiny, test_clips, tmp_path / "part")
        assert {path.stem for path in (tmp_path / "part").glob("*.safetensors")} == {
            "shard-00000",
            "batch-00000004",
        }
        with pytest.raises(DataError, match="1 of 3 shards"):
            load_features(tmp_path / "part")
        monkeypatch.setattr(
            features_module, "embed", lambda m, x, *a: embedded.append(len(x)) or original(m, x, *a)
        )
        table = self.extract(tiny, test_clips, tmp_path / "part", batch_size=12, shard_size=12)
        assert embedded == [2, 2, 2]  # clips 6 to 11, in the batches of the manifest
        assert torch.equal(table.features, whole.features)
        assert contents(tmp_path / "part") == contents(tmp_path / "whole")

    def test_a_killed_extraction_is_finished_by_two_processes_bit_for_bit(self, tiny, test_clips, tmp_path):
        self.extract(tiny, test_clips, tmp_path / "one")
        fork = multiprocessing.get_context("fork")
        started = fork.Event()
        alone = fork.Process(target=extract_until_killed, args=(tiny, test_clips, tmp_path / "two", started))
        alone.start()
        started.wait()
        alone.kill()
        alone.join()
        assert 0 < len(contents(tmp_path / "two")) < 6
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pair = [
            fork.Process(target=extract_as_one_of_two, args=(rank, port, tiny, test_clips, tmp_path / "two"))
            for rank in (0, 1)
        ]
        for process in pair:
            process.start()
        for process in pair:
            process.join(60)
        assert [process.exitcode for process in pair] == [0, 0]
        assert contents(tmp_path / "two") == contents(tmp_path / "one")

    @pytest.mark.slow
    def test_the_launched_script_writes_the_same_and_reports_once(self, tiny, shapes, test_clips, tmp_path):
        model = load_model(str(tiny.folder))
        self.extract(SimpleNamespace(model=model, processor=tiny.processor), test_clips, tmp_path / "one")
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", ROOT / "training/accelerate/cpu_2.yaml", ROOT / "training/extract.py"),
            *(tiny.folder, "--data", shapes, "--split", "test", "--device", "cpu"),
            *("--batch-size", "2", "--shard-size", "4", "--output", tmp_path / "two"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("12 features of width 16") == 1
        assert contents(tmp_path / "two") == contents(tmp_path / "one")

    def test_tokens_of_all_views_stand_side_by_side(self, tiny, test_clips, tmp_path):
        few = test_clips.select(range(3))
        one = self.extract(tiny, few, tmp_path / "one", space="tokens")
        two = self.extract(tiny, few, tmp_path / "two", space="tokens", views="2x1")
        assert one.features.shape[0] == 3
        assert two.features.shape[1:] == (2 * one.features.shape[1], one.features.shape[2])
        with torch.no_grad():
            inputs = tiny.processor(videos=[test_clips[1]["video"]])["pixel_values_videos"]
            expected = tiny.model.stica(pixel_values_videos=inputs).last_hidden_state[0]
        torch.testing.assert_close(one.features[1], expected, rtol=1e-5, atol=1e-6)

    def test_a_damaged_shard_is_made_again(self, tiny, test_clips, tmp_path):
        first = self.extract(tiny, test_clips, tmp_path)
        shard = tmp_path / "shard-00001.safetensors"
        shard.write_bytes(shard.read_bytes()[:40])
        assert torch.equal(self.extract(tiny, test_clips, tmp_path).features, first.features)

    def test_features_of_another_model_data_or_setting_are_refused(self, tiny, test_clips, tmp_path):
        self.extract(tiny, test_clips, tmp_path)
        with pytest.raises(DataError, match="views '1x1' instead of '2x1'"):
            self.extract(tiny, test_clips, tmp_path, views="2x1")
        with pytest.raises(DataError, match="made with data"):
            self.extract(tiny, test_clips.select(range(11)), tmp_path)
        with pytest.raises(DataError, match="made with modality 'video'"):
            self.extract(tiny, test_clips, tmp_path, modality="audio")
        bias = tiny.model.stica.video_model.pooling.layers[0].norm1.bias
        with torch.no_grad():
            bias.add_(1e-3)
        try:
            with pytest.raises(DataError, match=r"made with weights .* name another folder"):
                self.extract(tiny, test_clips, tmp_path)
        finally:
            with torch.no_grad():
                bias.sub_(1e-3)

    def test_a_folder_without_features_says_so(self, tmp_path):
        with pytest.raises(DataError, match=r"no manifest\.json"):
            load_features(tmp_path)
        (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}))
        with pytest.raises(DataError, match="not a feature manifest"):
            load_features(tmp_path)
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(DataError, match="cannot be read"):
            load_features(tmp_path)


@pytest.mark.parametrize("text", ["10", "0x1", "3x2", "2x", "x3", "1x1x1", "-1x3"])
def test_views_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="CLIPSxCROPS"):
        Views.parse(text)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"modality": "smell"}, InputError, "modality"),
        ({"modality": "audio", "views": "1x3"}, InputError, "cannot be cropped"),
        ({"on_error": "ignore"}, InputError, "on_error"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"space": "outer"}, InputError, "space"),
    ],
)
def test_settings_that_do_not_exist_are_refused(tiny, test_clips, settings, error, message):
    with pytest.raises(error, match=message):
        extract_features(tiny.model, tiny.processor, test_clips, **settings)


def test_data_that_cannot_be_evaluated_is_refused(tiny, test_clips):
    with pytest.raises(DataError, match="empty"):
        extract_features(tiny.model, tiny.processor, test_clips.select([]))
    with pytest.raises(InputError, match="streaming=False"):
        extract_features(tiny.model, tiny.processor, test_clips.to_iterable_dataset())
    with pytest.raises(DataError, match="no video column"):
        extract_features(tiny.model, tiny.processor, test_clips.remove_columns("video"))


def test_a_model_without_the_space_or_the_tower_says_so(tiny, test_clips):
    with pytest.raises(InputError, match="get_video_embeddings"):
        extract_features(tiny.model.stica, tiny.processor, test_clips, space="shared")
    with pytest.raises(InputError, match="at least two frames"):
        make_baseline("frame-difference")(torch.zeros(1, 1, 3, 4, 4))
    with pytest.raises(InputError, match="frame-difference"):
        make_baseline("colour")
