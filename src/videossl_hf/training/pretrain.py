"""`videossl pretrain RECIPE [--section.key value ...]`: pre-train a method as its recipe says.

>>> run = pretrain(load_recipe("training/recipes/stica/smoke.yaml", ["--training.max_steps", "20"]))
>>> run.output_dir, run.steps
(PosixPath('outputs/stica-smoke'), 20)
"""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from transformers import TrainingArguments

from ..data.datasets import load_videos
from ..data.loading import SampleLoader
from ..errors import RecipeError
from ..registry import find_class, has_class
from .monitor import KNNMonitor, draw_subset
from .processors import make_processor
from .recipe import Recipe
from .runs import Parts, TrainingRun, add_recipe_arguments, read_arguments, train_by_recipe

__all__ = ["add_arguments", "pretrain", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl pretrain` and of training/pretrain.py."""
    add_recipe_arguments(parser, "training/recipes/stica/smoke.yaml")


def run(args: argparse.Namespace) -> int:
    """Load the recipe and train; returns the exit code."""
    recipe, resume = read_arguments(args)
    pretrain(recipe, resume=resume)
    return 0


def pretrain(recipe: Recipe, *, resume: str = "auto", console: Console | None = None) -> TrainingRun:
    """Pre-train a method; every process of a distributed run calls this.

    Args:
        recipe: see `recipe.load_recipe`.
        resume, console: see `runs.train_by_recipe`, also for further errors.

    Raises:
        RecipeError: the recipe trains a classifier, or settings that cannot work.
    """
    if not has_class(recipe.method, "ForPreTraining"):
        raise RecipeError(
            f"{recipe.method} is supervised, it has no pre-training: run its recipes with"
            " training/finetune.py (videossl finetune)"
        )
    if recipe.task != "pretraining":
        raise RecipeError(
            "this recipe trains a classifier: run it with training/finetune.py (videossl finetune)"
        )
    config = recipe.make_config()

    def make_parts(dataset: Any, args: TrainingArguments) -> Parts:
        model_class = find_class(recipe.method, "ForPreTraining")
        if recipe.training.init_from is None:
            model = model_class(config)
        else:
            model = model_class.from_pretrained(recipe.training.init_from, config=config)
        processor = make_processor(recipe.method, config, recipe.processor)

        def collator(loader: SampleLoader, augmentation: Any = recipe.augmentation) -> Any:
            return find_class(recipe.method, "Collator")(config, processor, augmentation, loader)

        return Parts(model.train(), processor, collator, _monitor(recipe, processor, args))

    return train_by_recipe(recipe, make_parts, resume=resume, console=console)


def _monitor(recipe: Recipe, processor: Any, args: TrainingArguments) -> KNNMonitor | None:
    settings, data, seed = recipe.evaluation, recipe.data, recipe.training.seed
    if settings.knn_every is None:
        return None
    gallery = load_videos(data.train, data.train_split, revision=data.revision)
    queries = load_videos(data.validation or data.train, data.validation_split, revision=data.revision)
    return KNNMonitor(
        processor,
        draw_subset(gallery, settings.train_samples, seed),
        draw_subset(queries, settings.validation_samples, seed),
        settings,
        rank=args.process_index,
        world_size=args.world_size,
    )
