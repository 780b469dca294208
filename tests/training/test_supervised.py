"""A method without pre-training says so at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from videossl_hf.errors import RecipeError
from videossl_hf.registry import METHODS, has_class
from videossl_hf.training.pretrain import pretrain
from videossl_hf.training.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "training/recipes"


@pytest.mark.parametrize("method", [name for name in METHODS if not has_class(name, "ForPreTraining")])
def test_its_recipes_are_refused_with_a_hint(method: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    recipe = load_recipe(RECIPES / method / "smoke.yaml", ["--training.output_dir", str(output)])
    with pytest.raises(RecipeError, match=r"supervised.*training/finetune\.py"):
        pretrain(recipe)
    assert not output.exists()
