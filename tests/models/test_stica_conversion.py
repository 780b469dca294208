from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.stica_batches import tiny_config
from videossl_hf.errors import CheckpointError
from videossl_hf.models.stica.conversion_stica import (
    convert,
    convert_state_dict,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
)
from videossl_hf.models.stica.modeling_stica import (
    STiCAForPreTraining,
    STiCAForVideoClassification,
    STiCAPreTrainedModel,
    STiCAVideoModel,
)
from videossl_hf.nn.foreign_checkpoint import read_state_dict

VARIANTS = [
    {},
    {"objective": "gdt"},
    {"pooling_layers": 1, "pooling_full_qkv": True, "pooling_position": True},
    {"video_depths": [2, 1, 3, 1], "audio_depths": [2, 1, 1, 1]},
]


def official(model: STiCAPreTrainedModel) -> dict[str, Tensor]:
    """A state dict as the official code would hold it: with counters, dead layers and index buffers."""
    state = official_state_dict(model)
    norms = [key.removesuffix("running_mean") for key in state if key.endswith("running_mean")]
    state |= {f"{norm}num_batches_tracked": torch.tensor(3) for norm in norms}
    if isinstance(model, STiCAForPreTraining):
        state |= {
            "audio_network.base.fc.weight": torch.zeros(10, 16),
            "audio_network.base.fc.bias": torch.zeros(10),
        }
        state["video_pooling.2.pos_ids"] = torch.arange(64)[None]
    return state


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
def test_a_model_survives_the_way_to_official_keys_and_back(overrides: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = tiny_config(**overrides)
    model = STiCAForPreTraining(config)
    if overrides.get("objective") == "gdt":
        state = {key: value for key, value in official(model).items() if not key.endswith("pos_ids")}
    else:
        state = official(model)
    again = load_official(state, infer_config(state, pooling_heads=2))
    assert again.config.objective == config.objective
    assert again.config.pooling_layers == config.pooling_layers
    ours, found = model.state_dict(), again.state_dict()
    assert ours.keys() == found.keys()
    assert all(torch.equal(ours[key], found[key]) for key in ours if not key.endswith("num_batches_tracked"))


def test_the_key_table_names_every_weight_once() -> None:
    for kind, cls in (
        ("pretraining", STiCAForPreTraining),
        ("classification", STiCAForVideoClassification),
        ("torchvision", STiCAVideoModel),
    ):
        config = tiny_config(pooling_layers=0 if kind == "torchvision" else 2, classifier_batch_norm=True)
        table = key_table(config, kind)
        weights = {
            key for key in cls(config).state_dict() if not key.endswith(("num_batches_tracked", "crop_step"))
        }
        assert len(set(table.values())) == len(table)
        assert set(table.values()) == weights


@pytest.mark.parametrize("batch_norm", [False, True])
def test_fine_tuned_files_become_classifiers(batch_norm: bool) -> None:
    model = STiCAForVideoClassification(tiny_config(num_labels=7, classifier_batch_norm=batch_norm))
    state = official(model)
    if batch_norm:  # the official module holds that BatchNorm under two names
        state |= {
            f"final_bn.{key.rpartition('.')[2]}": value
            for key, value in state.items()
            if key.startswith("classifier.0.")
        }
    again = load_official(state, infer_config(state, pooling_heads=2))
    assert again.config.num_labels == 7
    assert again.config.pooling_tokens == 8
    assert torch.equal(again.classifier.weight, model.classifier.weight)


def test_torchvision_weights_become_a_video_model() -> None:
    model = STiCAVideoModel(tiny_config(pooling_layers=0))
    state = official_state_dict(model) | {"fc.weight": torch.zeros(400, 24), "fc.bias": torch.zeros(400)}
    assert "stem.0.weight" in state
    again = load_official(state)
    assert isinstance(again, STiCAVideoModel)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def wrappers() -> list[tuple[str, Any]]:
    return [
        ("bare", lambda state: state),
        (
            "stica",
            lambda state: {
                "epoch": 3,
                "state_dict": {f"module.{k}": v for k, v in state.items()},
                "optimizer": {},
            },
        ),
        (
            "gdt",
            lambda state: {"model": state, "epoch": 1, "args": argparse.Namespace(lr=0.1, arch="r2plus1d")},
        ),
    ]


@pytest.mark.parametrize(
    ("name", "wrap"), wrappers(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_way_of_wrapping_a_state_dict_is_read(name: str, wrap: Any, tmp_path: Path) -> None:
    state = official(STiCAForPreTraining(tiny_config()))
    path = tmp_path / f"{name}.pth"
    torch.save(wrap(state), path)
    found = read_state_dict(path)
    assert found.keys() == state.keys()
    assert isinstance(convert(path, pooling_heads=2), STiCAForPreTraining)


def test_files_from_before_archives_are_read_with_their_settings(tmp_path: Path) -> None:
    content = {"model": {"weight": torch.arange(3.0)}, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.pth")["weight"], torch.arange(3.0))


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    state = official(STiCAForPreTraining(tiny_config()))
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "weights.safetensors")
    assert read_state_dict(tmp_path / "weights.safetensors").keys() == state.keys()


class Surprise:
    """Unpickles to a function call."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["code", "text", "empty", "no state dict"])
def test_files_that_hold_no_weights_are_refused_and_never_run(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "file.pth", tmp_path / "ran"
    if kind == "code":
        torch.save({"state_dict": Surprise(target)}, path)
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        torch.save({"state_dict": {"a": [1, 2]}}, path)
    with pytest.raises(CheckpointError, match=r"file\.pth"):
        read_state_dict(path)
    assert not target.exists()


def test_every_missing_key_is_an_error_and_named() -> None:
    model = STiCAForPreTraining(tiny_config())
    state = official_state_dict(model)
    for key in itertools.islice(state, 0, None, 7):
        damaged = {other: value for other, value in state.items() if other != key}
        with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
            convert_state_dict(damaged, model.config)


def test_unknown_keys_and_other_shapes_are_errors() -> None:
    model = STiCAForPreTraining(tiny_config())
    state = official_state_dict(model)
    with pytest.raises(CheckpointError, match=r"not known: surprise\.weight"):
        convert_state_dict(state | {"surprise.weight": torch.zeros(1)}, model.config)
    with pytest.raises(CheckpointError, match="other shapes"):
        load_official(state | {"mlp_v.block_forward.8.bias": torch.zeros(9)}, model.config)
    with pytest.raises(CheckpointError, match="no weights of STiCA"):
        infer_config({"weight": torch.zeros(1)})
