"""Several data sets in one recipe: what they share, what each says of its own, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets as hf
import pytest
import torch

from videossl_hf.data.alternating import AlternatingCollator, AlternatingDataset
from videossl_hf.data.datasets import SeededDataset
from videossl_hf.errors import RecipeError
from videossl_hf.training.recipe import load_recipe, make_recipe, recipe_text
from videossl_hf.training.trainer import LossParts

RECIPE = Path(__file__).parents[2] / "training/recipes/tvts/smoke.yaml"
OTHER = [
    "--data.alternate.images.train",
    "/far/images",
    "--data.alternate.images.augmentation.crop",
    "resized",
]


def test_a_further_data_set_takes_the_augmentation_of_the_run_but_for_what_it_says_itself() -> None:
    recipe = load_recipe(RECIPE, [*OTHER, "--augmentation.resize_ratio", "1.5"])
    found = recipe.alternate_augmentation("images")
    assert (found.crop, found.resize_ratio, found.text) == ("resized", 1.5, recipe.augmentation.text)
    assert recipe.augmentation.crop == "short_side"
    assert make_recipe(recipe.to_dict()).to_dict() == recipe.to_dict()
    assert "/far" not in recipe_text(recipe, hide_folders=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--data.alternate.images.train_split", "train"], r"data\.alternate\.images\.train is missing"),
        ([*OTHER, "--data.alternate.images.trian", "x"], r"did you mean data\.alternate\.images\.train\?"),
        ([*OTHER, "--data.alternate.images.augmentation.crop", "none"], r"images\.augmentation: .*crop"),
        ([*OTHER, "--data.alternate.images.augmentation.colour", "1"], r"unknown recipe key"),
        ([*OTHER, "--data.streaming", "true"], "take turns in pre-training without streaming alone"),
        (["--data.alternate.images", "3"], r"data\.alternate\.images must be a mapping"),
    ],
)
def test_a_further_data_set_is_checked_as_the_first_is(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(RECIPE, overrides)


def test_samples_know_their_data_set_and_each_pass_draws_anew() -> None:
    first, second = (hf.Dataset.from_dict({"name": [f"{name}{row}" for row in range(3)]}) for name in "ab")
    both, alone = AlternatingDataset([first, second], seed=3), SeededDataset(first, seed=3)
    alone.set_epoch(2)
    assert both[0, 2, 1] == alone[1] | {"sample_source": 0}
    assert both[1, 0, 2]["name"] == "b2"
    seeds = {both[source, passed, 1]["sample_seed"] for source in (0, 1) for passed in (0, 1)}
    assert len(seeds) == 4
    collate = AlternatingCollator([lambda samples: ("first", len(samples)), lambda samples: "second"])
    assert collate([both[0, 0, 0], both[0, 0, 1]]) == ("first", 2)
    assert collate([both[1, 0, 0]]) == "second"


def test_parts_of_a_loss_that_only_some_steps_have_are_averaged_over_those() -> None:
    parts: Any = LossParts()
    for step, sorting in enumerate((None, 2.0, None, 4.0), start=1):
        outputs = {"loss": torch.tensor(float(step))}
        if sorting is not None:
            outputs["loss_sorting"] = torch.tensor(sorting)
        parts.add(outputs, step)
    means, bad = parts.drain(lambda value: value)
    assert means == {"loss": 2.5, "loss_sorting": 3.0}
    assert bad is None
    assert parts.drain(lambda value: value) == ({}, None)
