"""Official layouts of both branches, there and back, strictly; files with more than weights in them."""

from __future__ import annotations

import copy
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.model_checks import perturb
from models.tiny_ila import TEXT, VISION, clips, make_config
from videossl_hf import ILAConfig, ILAForVideoClassification
from videossl_hf.errors import CheckpointError
from videossl_hf.models.ila.conversion_ila import (
    convert,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
)

HEADS = {
    "vision_config": {"num_attention_heads": VISION["num_attention_heads"]},
    "text_config": {"num_attention_heads": TEXT["num_attention_heads"]},
    "head_dim": 8,
}
BRANCHES = {
    "master": {"head": "text", "interactive_block": "depthwise"},
    "SSV2": {"head": "linear", "interactive_block": "dense"},
}


def model_of(branch: str) -> ILAForVideoClassification:
    torch.manual_seed(0)
    model = ILAForVideoClassification(make_config(**BRANCHES[branch])).eval()
    perturb(model)
    return model


def official(model: ILAForVideoClassification) -> dict[str, Tensor]:
    """What the authors' code would have saved; counters of halves of one BatchNorm agree there."""
    return copy.deepcopy(official_state_dict(model))


@torch.no_grad()
@pytest.mark.parametrize("branch", BRANCHES)
def test_there_and_back_is_the_same_model(branch: str) -> None:
    model = model_of(branch)
    state = official(model)
    loaded = load_official(state, infer_config(state, **HEADS))
    if branch == "master":
        loaded.config.id2label, loaded.config.label_tokens = model.config.id2label, model.config.label_tokens
    torch.testing.assert_close(loaded(clips(2)).logits, model(clips(2)).logits, rtol=0, atol=0)
    assert all(torch.equal(value, state[key]) for key, value in official(loaded).items())


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_key_is_accounted_for(branch: str) -> None:
    state = official(model_of(branch))
    config = infer_config(state, **HEADS)
    for key in state:
        with pytest.raises(CheckpointError, match="missing"):
            load_official({name: value for name, value in state.items() if name != key}, config)
    with pytest.raises(CheckpointError, match=r"not known: visual\.surplus"):
        load_official(state | {"visual.surplus": torch.zeros(1)}, config)
    with pytest.raises(CheckpointError, match="other shapes"):
        load_official(state | {"mit.positional_embedding": torch.zeros(1, 9, 16)}, config)


def test_reads_sizes_off_the_weights() -> None:
    state = official(model_of("SSV2"))
    config = infer_config(state, **HEADS)
    assert (config.num_frames, config.image_size, config.projection_dim) == (4, 32, 16)
    assert (config.head, config.interactive_block, config.num_labels, config.align_hidden) == (
        "linear",
        "dense",
        5,
        16,
    )


def test_refuses_what_is_not_ila_and_the_form_that_was_never_published() -> None:
    state = official(model_of("master"))
    with pytest.raises(CheckpointError, match="no weights of ILA"):
        infer_config({"visual.conv1.weight": torch.zeros(4, 3, 8, 8)})
    with pytest.raises(CheckpointError, match="temporal_skip_fc"):
        infer_config({key: value for key, value in state.items() if "temporal_skip" not in key})


def test_reads_a_training_checkpoint_with_settings_of_another_project(
    tmp_path: Path, monkeypatch: Any
) -> None:
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):  # as yacs has it
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    settings = CfgNode(TRAIN=CfgNode(EPOCHS=50))
    state = {f"module.{key}": value for key, value in official(model_of("SSV2")).items()}
    torch.save({"model": state, "epoch": 3, "max_accuracy": 65.0, "config": settings}, tmp_path / "ssv2.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    model = convert(tmp_path / "ssv2.pth", **HEADS)
    assert torch.equal(official(model)["visual.proj"], state["module.visual.proj"])


def test_the_table_names_every_tensor_of_a_full_size_model() -> None:
    for name in ("ila-base-patch32-8f-k400", "ila-base-patch16-8f-ssv2"):
        config = ILAConfig.from_preset(name)
        with torch.device("meta"):
            ours = set(ILAForVideoClassification(config).state_dict())
        named = [key for entry in key_table(config).values() for key in entry.ours]
        assert len(named) == len(set(named))
        assert ours - set(named) == {"ila.disturbance"}
