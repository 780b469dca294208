"""A second stage goes on with the optimiser of the first, its moments fitted to the new sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import tiny_vimpac
from videossl_hf.errors import CheckpointError, RecipeError
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining
from videossl_hf.models.vimpac.positions_vimpac import interpolate_table
from videossl_hf.training.checkpoints import seal_checkpoint
from videossl_hf.training.moments import take_over_moments
from videossl_hf.training.optimization import make_optimizer
from videossl_hf.training.recipe import OptimizerRecipe, load_recipe

RECIPE = OptimizerRecipe(lr=1e-2, weight_decay=0.1, decay_norm_and_bias=False)
ROWS = "vimpac.embeddings.positions.rows"


def state_of(model: Any, optimizer: Any, name: str) -> dict[str, Any]:
    return optimizer.state[dict(model.named_parameters())[name]]


@pytest.fixture
def first_stage(tmp_path: Path) -> tuple[Path, Any, Any]:
    """The folder of a run of two steps, its model and its optimiser."""
    torch.manual_seed(0)
    model = VIMPACForPreTraining(tiny_vimpac.make_config()).train()
    optimizer = make_optimizer(model, RECIPE)
    for _ in range(2):
        model(**tiny_vimpac.make_inputs("ForPreTraining", 3)).loss.backward()
        optimizer.step()
    checkpoint = tmp_path / "stage1" / "checkpoint-2"
    model.save_pretrained(checkpoint)
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    seal_checkpoint(checkpoint, 2, 1)
    return checkpoint.parent, model, optimizer


def test_moments_go_on_and_those_of_tables_are_interpolated(first_stage: tuple[Path, Any, Any]) -> None:
    folder, before, old = first_stage
    model = VIMPACForPreTraining.from_pretrained(folder / "checkpoint-2", image_size=48)
    optimizer = make_optimizer(model, RECIPE)
    take_over_moments(optimizer, model, folder)
    for name, parameter in model.named_parameters():
        found, expected = state_of(model, optimizer, name), state_of(before, old, name)
        assert found.keys() == expected.keys()
        assert torch.equal(found["step"], expected["step"])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert found[moment].shape == parameter.shape
            if parameter.shape == expected[moment].shape:
                assert torch.equal(found[moment], expected[moment])
    rows = state_of(before, old, ROWS)["exp_avg_sq"]
    assert torch.equal(state_of(model, optimizer, ROWS)["exp_avg_sq"], interpolate_table(rows, [4], [6]))
    inputs = {"input_codes": torch.zeros(2, 5, 6, 6, dtype=torch.int64)}
    model(**inputs, second_input_codes=inputs["input_codes"]).loss.backward()
    optimizer.step()
    assert float(state_of(model, optimizer, ROWS)["step"]) == 3


def test_an_optimiser_that_does_not_fit_is_refused(
    first_stage: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    folder, model, _ = first_stage
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        take_over_moments(make_optimizer(model, RECIPE), model, tmp_path)
    other = VIMPACForPreTraining(tiny_vimpac.make_config(contrastive_weight=0.0))
    with pytest.raises(CheckpointError, match="other groups"):
        take_over_moments(make_optimizer(other, RECIPE), other, folder)
    wider = VIMPACForPreTraining(tiny_vimpac.make_config(hidden_size=32))
    with pytest.raises(CheckpointError, match="the moments of"):
        take_over_moments(make_optimizer(wider, RECIPE), wider, folder)


def test_a_recipe_needs_a_run_to_go_on_from() -> None:
    recipe = Path(__file__).parents[2] / "training/recipes/vimpac/smoke.yaml"
    with pytest.raises(RecipeError, match="init_optimizer needs init_from"):
        load_recipe(recipe, ["--training.init_optimizer", "true"])
