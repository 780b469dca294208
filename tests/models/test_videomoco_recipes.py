"""VideoMoCo's recipes: the options of the authors' script, and the course of the learning rate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from videossl_hf.models.videomoco.collation_videomoco import VideoMoCoAugmentation
from videossl_hf.training.optimization import LearningRateCurve
from videossl_hf.training.recipe import Recipe, differences, load_recipe

RECIPES = Path(__file__).parents[2] / "training/recipes/videomoco"
PAPER = RECIPES / "paper.yaml"
STEPS = 10  # an epoch


def options() -> dict[str, list[str]]:
    """Option of the authors' script -> overrides, out of the comment at the head of paper.yaml."""
    head = PAPER.read_text().partition("method:")[0].partition("Options of the authors' script:")[2]
    found = re.findall(r"#   (-[\w ]*?(?:-\w+)?[\w_]*)  +(--.*(?:\n# {9,}--.*)*)", head)
    return {option.strip(): shlex.split(text.replace("\n#", " ")) for option, text in found}


def curve(recipe: Recipe, *epochs: int) -> list[float]:
    """Learning rates at the beginning of some epochs."""
    multiple = LearningRateCurve(recipe.schedule, 200 * STEPS, STEPS)
    return [recipe.optimizer.lr * multiple(epoch * STEPS) for epoch in epochs]


def test_every_option_of_the_authors_script_is_an_override() -> None:
    assert options().keys() == {"--mlp", "--aug_plus", "--cos", "--warmup", "-a r3d_18"}
    for overrides in options().values():
        assert differences(load_recipe(PAPER), load_recipe(PAPER, overrides))


def test_the_second_augmentation_is_that_of_the_option() -> None:
    paper = load_recipe(PAPER).augmentation
    expected = VideoMoCoAugmentation.v2(
        per_frame=True, legacy_augmentations=True, reject_short=True, decode_short_side=None
    )
    assert load_recipe(PAPER, options()["--aug_plus"]).augmentation == expected
    assert paper == VideoMoCoAugmentation(
        per_frame=True, legacy_augmentations=True, reject_short=True, decode_short_side=None
    )


@pytest.mark.parametrize(
    ("option", "epochs", "expected"),
    [
        (None, (0, 119, 120, 159, 160, 199), (5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5)),
        ("--cos", (0, 100, 150), (5e-3, 2.5e-3, 7.322e-4)),
        ("--warmup", (0, 60, 120, 159, 160), (2.5e-3, 3.75e-3, 5e-3, 5e-3, 5e-4)),
    ],
)
def test_learning_rates_are_those_of_the_authors_script(
    option: str | None, epochs: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    recipe = load_recipe(PAPER, options()[option] if option else [])
    assert curve(recipe, *epochs) == pytest.approx(expected, rel=1e-3)


def test_the_recipes_differ_where_they_say() -> None:
    paper, plus, moco = (load_recipe(RECIPES / f"{name}.yaml") for name in ("paper", "paper_plus", "moco"))
    run = ["training.output_dir", "training.batch_size", "training.save_steps", "evaluation"]
    assert differences(paper, plus, ignore=run) == [
        "model.temporal_decay", "optimizer.lr", "optimizer.reference_batch_size",
    ]  # fmt: skip
    unused = ["model.num_dropped_frames", "training.find_unused_parameters"]
    assert differences(paper, moco, ignore=[*run, *unused]) == [
        "model.dropped_frames", "model.temporal_decay",
    ]  # fmt: skip
    assert paper.make_config().dropped_frame_count(32) == 8
    assert (paper.make_config().adversarial_start_epoch, paper.training.epochs) == (100, 200)
