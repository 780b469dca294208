"""Official layouts to ours: every key accounted for, nothing in a file run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from models import tiny_vimpac
from videossl_hf.errors import CheckpointError
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.conversion_vimpac import (
    TIED,
    convert,
    infer_config,
    key_table,
    load_official,
    official_state_dict,
)
from videossl_hf.models.vimpac.modeling_vimpac import (
    VIMPACForPreTraining,
    VIMPACForVideoClassification,
    VIMPACModel,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "large-half": {"halve_att": True, "halve_mlp": True, "projection_layers": 3},
    "pre-norm": {"pre_norm": True, "layout": "T,H,W", "positions": "space_time"},
    "joint": {"positions": "joint", "projection_final_norm": True},
    "layer-norm head": {"projection_norm": "layer", "image_size": [32, 48]},
    "mask alone": {"contrastive_weight": 0.0},
    "contrast alone": {"token_loss_weight": 0.0},
}


def randomised(model: Any) -> Any:
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_()
        else:
            tensor.fill_(7)
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model_class", [VIMPACForPreTraining, VIMPACForVideoClassification, VIMPACModel])
def test_there_and_back_loses_nothing(variant: str, model_class: Any) -> None:
    model = randomised(model_class(tiny_vimpac.make_config(**VARIANTS[variant])))
    official = official_state_dict(model)
    loaded = load_official(official, model.config)
    assert type(loaded) is model_class
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "joint"])
def test_sizes_are_read_off_the_shapes(variant: str) -> None:
    config = tiny_vimpac.make_config(**VARIANTS[variant])
    inferred = infer_config(official_state_dict(VIMPACForPreTraining(config)), num_attention_heads=4)
    names = {"projection_hidden", "projection_dim", "positions", "vocab_size", "pad_code", "mask_code"}
    names |= {"hidden_size", "num_hidden_layers", "num_frames", "image_size", *VARIANTS[variant]}
    if config.contrastive_weight == 0:
        names -= {"projection_hidden", "projection_dim"}
    assert {name: getattr(inferred, name) for name in names} == {n: getattr(config, n) for n in names}


def test_full_size_layouts_have_the_published_keys_and_shapes() -> None:
    for config, width, parts in (
        (VIMPACConfig.small(), 512, 256),
        (VIMPACConfig.large_half(), 1024, 256),
    ):
        with torch.device("meta"):
            model = VIMPACForPreTraining(config)
        official = official_state_dict(model)
        block = f"backbone.transformer.resblocks.{config.num_hidden_layers - 1}."
        shapes = {
            f"{block}attention_blocks.1.attentions.1.attention.key.weight": (parts, width),
            f"{block}attention_blocks.1.output.dense.weight": (width, config.attention_size),
            f"{block}attention_blocks.1.output.LayerNorm.bias": (width,),
            f"{block}mlp.c_fc.weight": (2048, width),
            f"{block}ln.weight": (width,),
            "backbone.cls_param": (width,),
            "backbone.embedding.weight": (8197, width),
            "backbone.positional_embedding.height_pos_embedding": (16, width),
            "mlm_head.decoder.weight": (8197, width),
            "mlm_head.transform.2.weight": (width,),
            "cls_head.mlp.bn_0.running_var": (config.projection_hidden,),
        }
        assert {key: tuple(official[key].shape) for key in shapes} == shapes
        inferred = infer_config(official)
        assert inferred.to_dict() == config.to_dict()


@pytest.fixture
def model() -> VIMPACForPreTraining:
    return randomised(VIMPACForPreTraining(tiny_vimpac.make_config()))


def test_reads_a_file_of_the_official_code(model: VIMPACForPreTraining, tmp_path: Path) -> None:
    torch.save(official_state_dict(model), tmp_path / "classifier.pt")
    loaded = convert(tmp_path / "classifier.pt", num_attention_heads=4, dropout=0.0, attention_dropout=0.0)
    inputs = tiny_vimpac.make_inputs("ForPreTraining")
    assert torch.equal(loaded(**inputs).loss, model(**inputs).loss)


def test_every_key_is_accounted_for(model: VIMPACForPreTraining) -> None:
    state = official_state_dict(model)
    for key in key_table(model.config, "pretraining"):
        if key.endswith("num_batches_tracked"):
            continue
        with pytest.raises(CheckpointError, match=r"missing|tied"):
            load_official({name: value for name, value in state.items() if name != key}, model.config)
    with pytest.raises(CheckpointError, match=r"not known: backbone\.more"):
        load_official(state | {"backbone.more": torch.zeros(1)}, model.config)
    with pytest.raises(CheckpointError, match="other shapes"):
        load_official(state | {"backbone.cls_param": torch.zeros(3)}, model.config)
    with pytest.raises(CheckpointError, match="no weights"):
        load_official({"encoder.weight": torch.zeros(1)})


@pytest.mark.parametrize("key", TIED)
def test_what_should_be_tied_and_is_not_is_refused(model: VIMPACForPreTraining, key: str) -> None:
    state = official_state_dict(model)
    with pytest.raises(CheckpointError, match="tied"):
        load_official(state | {key: state[key] + 1}, model.config)


class Command:
    """Unpickles to the call of a command that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    for content in (Command(target), {"a": Command(target)}, {"args": argparse.Namespace(lr=1)}, {}, [1]):
        torch.save(content, tmp_path / "classifier.pt")
        with pytest.raises(CheckpointError):
            convert(tmp_path / "classifier.pt")
    assert not target.exists()
