"""Recipes: every mistake is named with its full path, and what was resolved can be read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from videossl_hf.errors import OutputError, RecipeError
from videossl_hf.registry import METHODS
from videossl_hf.training.recipe import Recipe, differences, load_recipe, make_recipe, save_recipe

RECIPES = sorted(Path(__file__).parents[2].glob("training/recipes/*/*.yaml"))


def tree(**sections: Any) -> dict[str, Any]:
    minimal = {"method": "toy", "data": {"train": "clips"}, "training": {"output_dir": "out", "max_steps": 3}}
    return minimal | sections


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_recipes_of_the_repository_are_valid(path: Path) -> None:
    assert isinstance(load_recipe(path), Recipe)


@pytest.mark.parametrize(
    "path",
    [p for p in RECIPES if p.stem.startswith("paper") or p.stem in ("gdt", "moco")],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_number_of_a_paper_recipe_names_its_source(path: Path) -> None:
    lines = path.read_text().splitlines()
    settings = [line for line in lines if line.startswith("  ") and ":" in line]
    unsourced = [line for line in settings if "[" not in line.partition("#")[2] and "output_dir" not in line]
    assert len(settings) > 30
    assert unsourced == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"output_dir": "o", "max_step": 3}},
            "training.max_step: did you mean training.max_steps?",
        ),
        ({"trainning": {"max_steps": 3}}, "trainning.max_steps: did you mean training.max_steps?"),
        ({"model": {"hiden_size": 3}}, "model.hiden_size: did you mean model.hidden_size?"),
        ({"augmentation": {"nose": 3}}, "augmentation.nose: did you mean augmentation.noise?"),
        ({"processor": {"num_frame": 3}}, "processor.num_frame: did you mean processor.num_frames?"),
        ({"data": {"train": "a", "max_steps": 3}}, "data.max_steps: did you mean"),
        ({"model": {"hidden_size": "wide"}}, "model.hidden_size must be whole number, got 'wide'"),
        ({"optimizer": {"lr": True}}, "optimizer.lr must be number, got True"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas must be tuple of number, number"),
        ({"optimizer": {"name": "lars"}}, "optimizer.name must be one of sgd, adamw, got 'lars'"),
        ({"training": {"output_dir": "o", "max_steps": 0}}, "training.max_steps must be at least 1, got 0"),
        ({"training": {"output_dir": "o"}}, "training: give max_steps or epochs"),
        ({"training": {"max_steps": 3}}, "training.output_dir is missing"),
        (
            {"data": {"train": "a", "streaming": True}, "training": {"output_dir": "o", "epochs": 2}},
            "a stream has no length, so that epochs mean nothing: set training.max_steps",
        ),
        ({"data": None}, "data.train is missing"),
        ({"data": "clips"}, "data must be a mapping"),
        ({"data": {"train": "a", "cache": "disk"}}, "cache: disk needs cache_dir"),
        ({"model": {"hidden_size": 1}}, "hidden_size=1 is too small"),
        ({"schedule": {"warmup_steps": 1, "warmup_epochs": 1}}, "not both"),
        ({"schedule": {"milestone_steps": [1]}}, "name: steps and milestones belong together"),
        (
            {"method": "toyy"},
            f"unknown method 'toyy': the methods are {', '.join(sorted({*METHODS, 'toy'}))}",
        ),
        ({"method": None}, "method is missing"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr must be number"),
    ],
)
def test_a_mistake_is_named_with_its_path(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe(tree(**sections))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: toy\nmethod: stica", "stands twice"),
        ("method: [", "is not valid YAML"),
        ("just words", "must hold a mapping"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text))


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(tmp_path / "absent.yaml")


def test_the_command_line_wins_over_the_file_and_later_over_earlier(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(tree(optimizer={"lr": 1})))
    overrides = [
        "--optimizer.lr",
        "2",
        "--optimizer.lr=3e-3",
        "--model.hidden_size",
        "4",
        "--training.run_name",
        "7",
    ]
    recipe = load_recipe(
        path, [*overrides, "--evaluation.train_samples", "null", "--optimizer.betas", "[0.5, 0.6]"]
    )
    assert recipe.optimizer.lr == 0.003
    assert recipe.model == {"hidden_size": 4}
    assert recipe.training.run_name == "7"
    assert recipe.evaluation.train_samples is None
    assert recipe.optimizer.betas == (0.5, 0.6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--training.max_step", "3"], "did you mean training.max_steps"),
        (["--training.max_steps"], "needs a value"),
        (["--training.max_steps", "--training.seed"], "needs a value"),
        (["--training.bf16", "maybe"], "training.bf16 must be true or false, got 'maybe'"),
        (["max_steps=3"], "cannot read 'max_steps=3'"),
        (["--data.train.deep", "3"], "has no keys"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = write(tmp_path, yaml.safe_dump(tree()))
    with pytest.raises(RecipeError) as error:
        load_recipe(path, overrides)
    assert message in str(error.value)


def test_numbers_with_an_exponent_need_no_point(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(tree()) + "optimizer: {lr: 2e-3, weight_decay: 1E-5}\n")
    recipe = load_recipe(path)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (0.002, 0.00001)


def test_a_resolved_recipe_reads_back_equal_with_all_defaults_written_out(tmp_path: Path) -> None:
    recipe = make_recipe(tree(processor={"num_frames": 4}, augmentation={"noise": 0.5}))
    save_recipe(recipe, tmp_path / "resolved.yaml")
    again = load_recipe(tmp_path / "resolved.yaml")
    assert again.to_dict() == recipe.to_dict()
    assert yaml.safe_load((tmp_path / "resolved.yaml").read_text())["model"]["dropout"] == 0.2


def test_a_recipe_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        save_recipe(make_recipe(tree()), tmp_path / "absent/recipe.yaml")


def test_differences_name_the_keys_that_matter() -> None:
    one = make_recipe(tree())
    other = make_recipe(tree(model={"hidden_size": 4}, optimizer={"lr": 0.1}))
    assert differences(one, other) == ["model.hidden_size", "optimizer.lr"]
    assert differences(one, other, ignore={"model"}) == ["optimizer.lr"]
