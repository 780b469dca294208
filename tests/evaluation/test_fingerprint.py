from __future__ import annotations

import shutil

import torch

from videossl_hf import STiCAForPreTraining, STiCAProcessor
from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.fingerprint import (
    data_fingerprint,
    model_fingerprint,
    model_identity,
    processor_fingerprint,
)
from videossl_hf.evaluation.loading import load_model, load_processor


def test_a_model_has_one_fingerprint_wherever_it_is_loaded_from(tiny, tmp_path):
    shutil.copytree(tiny.folder, tmp_path / "elsewhere")
    loaded = load_model(str(tmp_path / "elsewhere"), for_pretraining=True)
    assert model_fingerprint(loaded) == model_fingerprint(tiny.model)
    assert model_identity(loaded)["id"] == str(tmp_path / "elsewhere")


def test_a_single_changed_weight_or_setting_changes_the_fingerprint(tiny):
    changed = STiCAForPreTraining(tiny.model.config)
    changed.load_state_dict(tiny.model.state_dict())
    assert model_fingerprint(changed) == model_fingerprint(tiny.model)
    with torch.no_grad():
        changed.audio_projection.fc2.bias[0] += 1e-6
    assert model_fingerprint(changed) != model_fingerprint(tiny.model)


def test_weights_in_half_precision_are_other_weights(tiny):
    half = STiCAForPreTraining(tiny.model.config).to(torch.bfloat16)
    assert model_fingerprint(half) != model_fingerprint(tiny.model)


def test_processors_differ_by_their_settings_alone(tiny):
    assert processor_fingerprint(load_processor(str(tiny.folder))) == processor_fingerprint(tiny.processor)
    other = STiCAProcessor.from_config(tiny.model.config)
    other.video_processor.image_mean = [0.4, 0.45, 0.45]
    assert processor_fingerprint(other) != processor_fingerprint(tiny.processor)


def test_data_keeps_its_fingerprint_when_moved_and_changes_it_with_order_labels_and_bytes(shapes, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(shapes, moved)
    before, after = (load_videos(str(folder), "test") for folder in (shapes, moved))
    fingerprint = data_fingerprint(before)
    assert data_fingerprint(after) == fingerprint
    assert data_fingerprint(before.select(list(range(11, -1, -1)))) != fingerprint
    relabelled = before.to_list()
    relabelled[0]["label"] = (relabelled[0]["label"] + 1) % 12
    assert data_fingerprint(relabelled) != data_fingerprint(before.to_list())
    file = next((moved / "test").glob("*.mp4"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert data_fingerprint(after) != fingerprint


def test_embedded_bytes_and_missing_files_have_fingerprints_too(tmp_path):
    samples = [{"video": {"bytes": b"abc", "path": None}, "label": 0}]
    other = [{"video": {"bytes": b"abd", "path": None}, "label": 0}]
    absent = [{"video": "https://example.org/a.mp4", "label": 0}]
    assert len({data_fingerprint(part) for part in (samples, other, absent)}) == 3
