"""`videossl finetune RECIPE [--section.key value ...]`: one training, or one a fold."""

from __future__ import annotations

import argparse

from ..errors import RecipeError
from ..evaluation.features import ANSWERS
from .cross_validation import finetune_folds
from .finetune import finetune
from .runs import add_recipe_arguments, read_arguments

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl finetune` and of training/finetune.py."""
    add_recipe_arguments(parser, "training/recipes/ila/adapt.yaml")
    parser.add_argument(
        "--folds", metavar="N|official",
        help="train and score once a fold: N of cross-validation over data.train, or those of an official "
        "data set; the averaged figures go into results.json of the output folder",
    )  # fmt: skip
    parser.add_argument("--views", help="with --folds: clips x crops of each test video (1x1)")
    parser.add_argument(
        "--average", choices=ANSWERS, help="with --folds: what is averaged over the views (probabilities)"
    )


def run(args: argparse.Namespace) -> int:
    """Load the recipe and train; returns the exit code."""
    recipe, resume = read_arguments(args, ("folds", "views", "average"))
    if args.folds:
        settings = {name: getattr(args, name) for name in ("views", "average") if getattr(args, name)}
        finetune_folds(recipe, args.folds, resume=resume, **settings)
    elif args.views or args.average:
        raise RecipeError("--views and --average are of --folds; `videossl evaluate` scores a single run")
    else:
        finetune(recipe, resume=resume)
    return 0
