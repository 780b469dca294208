"""The recipes for classifiers of pre-trained folders, by the numbers of each method's authors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import tiny_stica, tiny_tvts, tiny_videomoco
from videossl_hf.errors import RecipeError
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining
from videossl_hf.models.videomoco.modeling_videomoco import VideoMoCoForPreTraining
from videossl_hf.training.finetune import finetune
from videossl_hf.training.optimization import LearningRateCurve, scale_learning_rate
from videossl_hf.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "training/recipes"
STARTS: dict[str, Any] = {
    "stica": lambda: STiCAForPreTraining(tiny_stica.make_config()),
    "tvts": lambda: TVTSForPreTraining(tiny_tvts.make_config()),
    "videomoco": lambda: VideoMoCoForPreTraining(tiny_videomoco.make_config()),
}


@pytest.mark.parametrize(
    "recipe",
    [
        "stica/finetune_ucf101", "tvts/finetune_ssv2", "tvts/linear_ssv2", "videomoco/finetune_ucf101",
        "videomoco/linear_ucf101",
    ],
)  # fmt: skip
def test_the_recipe_trains_what_it_says(recipe: str, clips: Path, tmp_path: Path) -> None:
    """Weights below the classifier stay in the linear protocol alone; the statistics of BatchNorm in all that
    freeze them."""
    torch.manual_seed(0)
    method = recipe.partition("/")[0]
    start = STARTS[method]()
    for name, buffer in start.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    start.save_pretrained(tmp_path / "start")
    overrides = {
        "data.train": clips, "training.init_from": tmp_path / "start",
        "training.output_dir": tmp_path / "run", "training.epochs": "null", "training.max_steps": 2,
        "training.batch_size": 4, "training.num_workers": 0, "training.device": "cpu",
        "schedule.name": "constant", "schedule.milestone_epochs": "[]", "schedule.warmup_epochs": "null",
        "model.image_size": 32, "model.num_frames": 8,
    }  # fmt: skip
    arguments = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
    finetune(load_recipe(RECIPES / f"{recipe}.yaml", arguments))
    before, after = (
        load_file(tmp_path / "start/model.safetensors"),
        load_file(tmp_path / "run/model.safetensors"),
    )
    backbone = [name for name in after if name.startswith(f"{method}.")]
    assert backbone
    assert not [name for name in backbone if "audio" in name or "text" in name], "of no use to a classifier"
    stays = "linear" in recipe
    stale = [name for name in backbone if "running" in name or "num_batches" in name]
    for name in backbone:
        frozen = stays or (name in stale and method == "videomoco")
        same = torch.equal(before[name], after[name])
        assert same == frozen, name
    assert after["classifier.bias"].abs().max() > 0  # it starts at zero
    assert after["classifier.weight"].shape[0] == 12


def rates(recipe: str, batch_size: int, epochs: list[float]) -> list[float]:
    """Rates that a run with 40 steps an epoch has at these epochs."""
    made = load_recipe(RECIPES / f"{recipe}.yaml")
    assert made.training.epochs is not None
    curve = LearningRateCurve(made.schedule, int(40 * made.training.epochs), 40)
    lr = scale_learning_rate(made.optimizer, batch_size).lr
    return [lr * curve(round(40 * epoch)) for epoch in epochs]


def test_rates_of_stica_are_held_over_ten_clips_of_each_video() -> None:
    """Multiples of the base rate in the official epochs 0 to 11, measured on the official scheduler."""
    multiples = [1, 4.5, 8, 8, 8, 8, 8, 0.4, 0.4, 0.4, 0.4, 0.02]
    expected = [0.0025 * multiple for multiple in multiples for _ in range(2)]
    epochs = [epoch + part for epoch in range(0, 120, 10) for part in (0, 9.975)]
    assert rates("stica/finetune_ucf101", 32, epochs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("recipe", "warmup", "epochs", "peak"), [("finetune", 5, 50, 1.5e-3), ("linear", 10, 100, 0.15)]
)
def test_rates_of_tvts_rise_and_fall_as_the_official_scripts_have_it(
    recipe: str, warmup: int, epochs: int, peak: float
) -> None:
    """A warm-up whose last step has the full rate, then half a cosine, whose first has it again."""
    middle, last = (warmup + epochs) / 2, epochs - 1 / 40
    found = rates(f"tvts/{recipe}_ssv2", 384, [0, warmup - 1 / 40, warmup, middle, last])
    assert found[:4] == pytest.approx([0, peak, peak, (peak + 1.5e-6) / 2])
    assert 1.5e-6 < found[4] < 1e-4 * peak + 1.5e-6


def test_a_method_that_freezes_by_its_own_rules_is_refused(clips: Path, tmp_path: Path) -> None:
    overrides = ["--data.train", str(clips), "--training.output_dir", str(tmp_path / "run")]
    overrides += ["--training.classifier_only", "true", "--training.device", "cpu"]
    with pytest.raises(RecipeError, match=r"ILAForVideoClassification decides by its own configuration"):
        finetune(load_recipe(RECIPES / "ila/smoke.yaml", [*overrides, "--training.init_from", "null"]))


def test_pretraining_has_no_classifier() -> None:
    with pytest.raises(RecipeError, match=r"training\.classifier_only is not for the task pretraining"):
        load_recipe(RECIPES / "videomoco/smoke.yaml", ["--training.classifier_only", "true"])
