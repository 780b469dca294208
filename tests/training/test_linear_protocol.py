"""Training nothing but a classifier of what a pre-trained folder's model sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.tiny_videomoco import make_config
from videossl_hf.errors import RecipeError
from videossl_hf.models.videomoco.modeling_videomoco import VideoMoCoForPreTraining
from videossl_hf.training.finetune import finetune
from videossl_hf.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "training/recipes/videomoco"


@pytest.mark.parametrize("recipe", ["linear_ucf101", "finetune_ucf101"])
def test_the_recipe_trains_what_it_says(recipe: str, clips: Path, tmp_path: Path) -> None:
    """Statistics of BatchNorm stay in both; weights of the backbone in the linear protocol alone."""
    torch.manual_seed(0)
    start = VideoMoCoForPreTraining(make_config())
    for name, buffer in start.videomoco.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    start.save_pretrained(tmp_path / "start")
    overrides = {
        "data.train": clips, "training.init_from": tmp_path / "start",
        "training.output_dir": tmp_path / "run", "training.epochs": "null", "training.max_steps": 2,
        "training.batch_size": 4, "training.num_workers": 0, "training.device": "cpu",
        "schedule.name": "constant", "schedule.milestone_epochs": "[]",
        "model.image_size": 32, "model.num_frames": 8,
    }  # fmt: skip
    arguments = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
    finetune(load_recipe(RECIPES / f"{recipe}.yaml", arguments))
    before, after = (
        load_file(tmp_path / "start/model.safetensors"),
        load_file(tmp_path / "run/model.safetensors"),
    )
    backbone = [name for name in after if name.startswith("videomoco.")]
    assert backbone
    for name in backbone:
        same = torch.equal(before[name], after[name])
        assert same == (recipe == "linear_ucf101" or "running" in name or "num_batches" in name), name
    assert after["classifier.bias"].abs().max() > 0  # it starts at zero
    assert after["classifier.weight"].shape == (12, start.config.hidden_size)


def test_a_method_that_freezes_by_its_own_rules_is_refused(clips: Path, tmp_path: Path) -> None:
    overrides = ["--data.train", str(clips), "--training.output_dir", str(tmp_path / "run")]
    overrides += ["--training.classifier_only", "true", "--training.device", "cpu"]
    with pytest.raises(RecipeError, match=r"ILAForVideoClassification decides by its own configuration"):
        finetune(load_recipe(RECIPES.parent / "ila/smoke.yaml", [*overrides, "--training.init_from", "null"]))


def test_pretraining_has_no_classifier() -> None:
    with pytest.raises(RecipeError, match=r"training\.classifier_only is not for the task pretraining"):
        load_recipe(RECIPES / "smoke.yaml", ["--training.classifier_only", "true"])
