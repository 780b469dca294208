"""Train a classifier on labelled videos.

The classes are those of the training videos. The model starts from what `training.init_from` names: a folder
of the method, pre-trained or fine-tuned; a checkpoint of another kind that the method builds on (its
configuration and classifier then have `from_KIND`, such as ILA's `from_clip`); or from random weights.

>>> run = finetune(load_recipe("training/recipes/ila/adapt.yaml", ["--data.train", "my_videos"]))
>>> run.output_dir / "best"
PosixPath('outputs/ila-adapt/best')
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from transformers import TrainingArguments
from transformers.configuration_utils import PreTrainedConfig

from ..data.datasets import load_videos
from ..data.labelled_clips import LabelledClipCollator
from ..data.loading import SampleLoader
from ..data.stored_codes import read_codes_manifest
from ..errors import CheckpointError, ConfigurationError, DataError, RecipeError
from ..registry import find_class, has_class
from .monitor import AccuracyMonitor, draw_subset
from .processors import make_processor
from .recipe import Recipe, model_fields
from .runs import Parts, TrainingRun, train_by_recipe

__all__ = ["finetune"]


def finetune(
    recipe: Recipe,
    *,
    resume: str = "auto",
    console: Console | None = None,
    samples: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Train a classifier; every process of a distributed run calls this.

    The run's folder holds the last model and, with `evaluation.accuracy_every`, in `best` the one with the
    highest accuracy on the validation clips.

    Args:
        recipe: of the task "classification", see `recipe.load_recipe`.
        resume, console: see `runs.train_by_recipe`, also for further errors.
        samples: "train" and "validation" clips (datasets of `load_videos`) instead of those that the recipe
            names, for a fold.

    Raises:
        RecipeError: the recipe is one of pre-training, or settings that cannot work.
        CheckpointError: `training.init_from` is no checkpoint that the method starts from.
        DataError: videos without labels, or other classes to validate on.
    """
    if recipe.task != "classification":
        raise RecipeError(
            "this recipe pre-trains: run it with training/pretrain.py (videossl pretrain), or write one with"
            " `task: classification`"
        )
    recipe = _resolve(recipe)

    def make_parts(dataset: Any, args: TrainingArguments) -> Parts:
        labels = _class_names(dataset, recipe.data.train)
        model = _start(recipe, labels)
        settings = dict(recipe.processor)
        reads_labels = getattr(model.config, "reads_labels", False)
        if reads_labels:
            settings.setdefault("tokenizer", recipe.training.init_from)
            if settings["tokenizer"] is None:
                raise RecipeError(
                    f"{recipe.method} compares clips with the names of their classes: give"
                    " training.init_from, or processor.tokenizer, a folder or Hub id with a tokenizer"
                )
        processor = make_processor(recipe.method, model.config, settings)
        if reads_labels:
            model.set_labels(labels, processor.tokenizer)
        if recipe.training.classifier_only:
            _freeze_backbone(model)
        collator_class = _collator_class(recipe.method)

        def collator(loader: SampleLoader) -> Any:
            return collator_class(model.config, processor, recipe.augmentation, loader)

        monitor = _monitor(recipe, processor, labels, args, (samples or {}).get("validation"))
        return Parts(model.train(), processor, collator, monitor, "eval_top1" if monitor else None)

    dataset = samples["train"] if samples else None
    return train_by_recipe(recipe, make_parts, resume=resume, console=console, dataset=dataset)


def _collator_class(method: str) -> Any:
    if has_class(method, "LabelledClipCollator"):
        return find_class(method, "LabelledClipCollator")
    supervised = not has_class(method, "ForPreTraining")
    return find_class(method, "Collator") if supervised else LabelledClipCollator


def _checkpoint_settings(source: str) -> dict[str, Any]:
    """The contents of a checkpoint's config.json."""
    try:
        settings = PreTrainedConfig.get_config_dict(source)[0]
    except OSError as error:
        raise CheckpointError(f"training.init_from: {source} is no checkpoint: {error}") from error
    if "model_type" not in settings:
        raise CheckpointError(f"training.init_from: {source} holds no config.json of a model")
    return settings


def _resolve(recipe: Recipe) -> Recipe:
    """The recipe with the sizes of what it starts from; its own model section wins."""
    source = recipe.training.init_from
    if source is None:
        recipe.make_config()
        return recipe
    config_class = find_class(recipe.method, "Config")
    kind = _checkpoint_settings(source).get("model_type")
    try:
        if kind == config_class.model_type:
            saved = model_fields(config_class.from_pretrained(source))
            config = config_class(**_merged(saved, recipe.model))
        else:
            start = getattr(config_class, f"from_{kind}", None)
            if start is None:
                raise CheckpointError(
                    f"training.init_from: {source} holds a model of type {kind!r}, which {recipe.method}"
                    " does not start from"
                )
            config = start(source, **recipe.model)
    except ConfigurationError as error:
        raise RecipeError(f"model: {error}") from error
    return dataclasses.replace(recipe, model=model_fields(config))


def _merged(saved: Any, changes: Any) -> dict[str, Any]:
    """Nested settings with changes, which may name some of a section's only."""
    merged = dict(saved)
    for name, value in changes.items():
        before = merged.get(name)
        is_section = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(before, value) if is_section else value
    return merged


def _class_names(dataset: Any, source: str) -> list[str]:
    names = getattr((dataset.features or {}).get("label"), "names", None)
    if not names:
        raise DataError(
            f"the videos of {source} have no labels: put them into one folder a class, or write the column"
            " `label` into metadata.jsonl"
        )
    return list(names)


def _start(recipe: Recipe, labels: list[str]) -> Any:
    """The model of these classes, with the weights that training starts from."""
    model_class, source = find_class(recipe.method, "ForVideoClassification"), recipe.training.init_from
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    config = find_class(recipe.method, "Config")(**recipe.model, **names)
    if source is None:
        return model_class(config)
    settings = _checkpoint_settings(source)
    kind = settings.get("model_type")
    if kind != config.model_type:
        start = getattr(model_class, f"from_{kind}")
        return start(source, labels, recipe.processor.get("tokenizer"), **recipe.model)
    known = {int(index): name for index, name in (settings.get("id2label") or {}).items()}
    if known == names["id2label"] or getattr(config, "reads_labels", False):
        return model_class.from_pretrained(source, config=config)
    # Classes of other names: a head that fits by its size alone would be a wrong one.
    model = model_class(config)
    backbone = find_class(recipe.method, "Model").from_pretrained(source, config=config)
    # A classifier has no tower of sound or text: those of the checkpoint stay behind.
    weights, kept = backbone.state_dict(), model.base_model.state_dict().keys()
    model.base_model.load_state_dict({name: weights[name] for name in kept})
    return model


def _freeze_backbone(model: Any) -> None:
    """Nothing below the classifier has a gradient; whether BatchNorm follows the clips is the method's own
    setting."""
    model.base_model.requires_grad_(False)
    model.train()  # where a method that freezes parts of its own would undo this
    if any(parameter.requires_grad for parameter in model.base_model.parameters()):
        raise RecipeError(
            f"training.classifier_only: {type(model).__name__} decides by its own configuration which parts"
            " learn: set those fields of the section model instead"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(
            f"training.classifier_only: {type(model).__name__} has no parameters beyond its backbone"
        )


def _monitor(
    recipe: Recipe, processor: Any, labels: list[str], args: TrainingArguments, clips: Any = None
) -> AccuracyMonitor | None:
    settings, data = recipe.evaluation, recipe.data
    if settings.accuracy_every is None:
        return None
    source = data.validation or data.train
    if clips is None:
        clips = load_videos(source, data.validation_split, revision=data.revision)
    if _class_names(clips, source) != labels:
        raise DataError("the validation videos have other classes than those that are trained on")
    return AccuracyMonitor(
        processor,
        draw_subset(clips, settings.validation_samples, recipe.training.seed),
        settings,
        rank=args.process_index,
        world_size=args.world_size,
        codes=read_codes_manifest(source, data.revision),
    )
