"""Recipes: one YAML file (and the command line over it) says all that a training run depends on.

Its sections are method, task, model, processor, data, augmentation, optimizer, schedule, training and
evaluation. `model` takes the fields of the method's configuration, `processor` and `augmentation` those of
its processor and augmentation; the other sections are the dataclasses below. On the command line every key is
written with its path, later ones winning:

    videossl pretrain training/recipes/stica/smoke.yaml --training.max_steps 10 --model.objective gdt
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers.configuration_utils import PreTrainedConfig

from ..data.labelled_clips import LabelledClipAugmentation
from ..errors import OutputError, RecipeError
from ..registry import COMPANIONS, METHODS, find_class, has_class
from .processors import convert_processor_settings
from .typed import CommandLineText, convert_fields, from_mapping, load_yaml, setting, unknown_key

__all__ = [
    "AlternateRecipe",
    "DataRecipe",
    "EvaluationRecipe",
    "OptimizerRecipe",
    "Recipe",
    "ScheduleRecipe",
    "TrainingRecipe",
    "describe_keys",
    "differences",
    "load_recipe",
    "make_recipe",
    "model_fields",
    "recipe_text",
    "save_recipe",
]


@dataclass(frozen=True)
class AlternateRecipe:
    """A further data set of a run, whose steps take turns with those of `data.train`."""

    train: str = setting(help="a folder, Parquet file(s) or Hub id with the training clips")
    train_split: str = setting("train", "split of it")
    revision: str | None = setting(None, "commit or tag, where the source is a Hub id")
    augmentation: dict[str, Any] = setting({}, "what differs from the section augmentation")  # noqa: RUF009


@dataclass(frozen=True)
class DataRecipe:
    """Where the samples come from, and what happens to those that cannot be decoded."""

    train: str = setting(help="a folder, Parquet file(s) or Hub id with the training clips")
    train_split: str = setting("train", "split of it")
    validation: str | None = setting(
        None, "source of the validation clips (kNN monitor); null: the same as train"
    )
    validation_split: str = setting("validation", "split of it")
    test: str | None = setting(None, "source of the test clips; null: the same as train")
    test_split: str = setting("test", "split of it; training never reads it, only evaluation after it does")
    revision: str | None = setting(None, "commit or tag, where the source is a Hub id")
    streaming: bool = setting(False, "read the training clips as a stream instead of by index")
    shuffle_buffer: int = setting(
        1000, "streaming: samples (undecoded) among which the next is drawn", minimum=1
    )
    alternate: dict[str, Any] = setting(  # noqa: RUF009
        {}, "further data sets by any name, each {train, train_split, revision, augmentation}; their steps "
        "take turns with those of train, an epoch ends with the longest"
    )  # fmt: skip
    cache: Literal["none", "memory", "disk"] = setting("none", "keep decoded clips in memory or on disk")
    cache_dir: str | None = setting(None, "folder of the disk cache")
    on_bad_sample: Literal["raise", "skip"] = setting(
        "raise", "a clip that cannot be decoded: stop, or replace it"
    )
    max_bad_share: float = setting(0.1, "skip: stop above this share of bad samples", minimum=0, maximum=1)
    max_tries: int = setting(10, "skip: how many replacements are tried for one sample", minimum=1)

    def __post_init__(self) -> None:
        if (self.cache == "disk") != (self.cache_dir is not None):
            raise ValueError("cache: disk needs cache_dir, and no other cache takes one")


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimiser. The same object is handed to a model's `parameter_groups(optimizer_config)`."""

    name: Literal["sgd", "adamw"] = setting("adamw", "which optimiser")
    lr: float = setting(1e-3, "learning rate (peak of the schedule)", minimum=0)
    reference_batch_size: int | None = setting(
        None,
        "lr holds for this many clips a step; it is scaled linearly to the run's. null: no scaling",
        minimum=1,
    )
    weight_decay: float = setting(0.0, "SGD: L2 added to the gradient; AdamW: decoupled", minimum=0)
    decay_norm_and_bias: bool = setting(True, "whether one-dimensional parameters decay too")
    momentum: float = setting(0.9, "SGD", minimum=0, maximum=1)
    nesterov: bool = setting(False, "SGD")
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW")
    eps: float = setting(1e-8, "AdamW", minimum=0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """The course of the learning rate, set before every step: linear warm-up, then constant, cosine,
    linear or steps.
    """

    name: Literal["constant", "cosine", "linear", "steps"] = setting("cosine", "what follows the warm-up")
    warmup_steps: int | None = setting(None, "length of the warm-up in steps", minimum=0)
    warmup_epochs: float | None = setting(None, "or in epochs", minimum=0)
    warmup_start_factor: float = setting(0.0, "the warm-up starts at this multiple of lr", minimum=0)
    warmup_reaches_lr: bool = setting(
        False, "the last step of the warm-up is taken with lr itself; otherwise the first one after it"
    )
    final_factor: float = setting(
        0.0, "cosine, linear: multiple of lr that the last step comes down to", minimum=0
    )
    milestone_steps: list[int] = setting([], "steps: where lr is multiplied by gamma")  # noqa: RUF009
    milestone_epochs: list[float] = setting([], "steps: the same in epochs")  # noqa: RUF009
    gamma: float = setting(0.1, "steps: the factor", minimum=0)
    hold_epochs: float | None = setting(
        None,
        "lr keeps the value of the first of so many epochs' steps; null: it may change with every step",
        minimum=0,
    )

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("give warmup_steps or warmup_epochs, not both")
        if self.milestone_steps and self.milestone_epochs:
            raise ValueError("give milestone_steps or milestone_epochs, not both")
        if self.hold_epochs == 0:
            raise ValueError("hold_epochs must be above 0, or null")
        if (self.name == "steps") != bool(self.milestone_steps or self.milestone_epochs):
            raise ValueError("name: steps and milestones belong together")


@dataclass(frozen=True)
class TrainingRecipe:
    """The loop: how long, how large the batches, on what, what is written where."""

    output_dir: str = setting(help="folder of the run: checkpoints, logs and the final model")
    max_steps: int | None = setting(None, "optimiser steps; wins over epochs", minimum=1)
    epochs: float | None = setting(None, "passes over the data", minimum=0)
    batch_size: int = setting(8, "clips per process and forward", minimum=1)
    gradient_accumulation_steps: int = setting(1, "forwards per optimiser step", minimum=1)
    seed: int = setting(0, "of the weights, the sample order and the augmentation", minimum=0)
    init_from: str | None = setting(
        None, "folder or Hub id whose weights the run starts from; null: random ones"
    )
    classifier_only: bool = setting(
        False, "classification: the linear protocol, in which nothing but the classifier learns"
    )
    init_optimizer: bool = setting(
        False, "take over the optimiser's moments too, from the newest checkpoint in init_from"
    )
    device: Literal["auto", "cpu"] = setting("auto", "cpu: even where there is an accelerator")
    processes: int | None = setting(
        None, "refuse to run in any other number of processes; null: any", minimum=1
    )
    bf16: bool = setting(False, "bfloat16 autocast, on CPU or GPU")
    channels_last_3d: bool = setting(
        False, "memory format of the 3-D convolutions (same numbers, other speed)"
    )
    compile: bool = setting(False, "torch.compile the model")
    gradient_checkpointing: bool = setting(
        False, "recompute activations in the backward pass: less memory, more time"
    )
    find_unused_parameters: bool = setting(
        False, "DistributedDataParallel: the model leaves parameters unused"
    )
    max_grad_norm: float | None = setting(
        None, "clip the gradient to this norm; null: no clipping", minimum=0
    )
    num_workers: int = setting(0, "processes that load data, per training process", minimum=0)
    prefetch_factor: int = setting(2, "batches that each of them prepares ahead", minimum=1)
    logging_steps: int = setting(10, "steps between two log lines", minimum=1)
    save_steps: int = setting(500, "steps between two checkpoints", minimum=1)
    keep_checkpoints: int = setting(2, "older checkpoints are deleted", minimum=1)
    report_to: list[str] = setting([], "trackers beside metrics.jsonl: tensorboard, trackio, wandb")  # noqa: RUF009
    run_name: str | None = setting(None, "the run's name in the tracker")
    push_to_hub: bool = setting(False, "publish the model at every checkpoint and at the end")
    hub_model_id: str | None = setting(None, "repository; null: named like output_dir")
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = setting(
        "every_save", "when to publish, and whether with what a resume needs"
    )
    hub_private: bool | None = setting(None, "whether a new repository is private")

    def __post_init__(self) -> None:
        if self.max_steps is None and not self.epochs:
            raise ValueError("give max_steps or epochs")
        if self.init_optimizer and self.init_from is None:
            raise ValueError("init_optimizer needs init_from, the folder of the run that it goes on from")


@dataclass(frozen=True)
class EvaluationRecipe:
    """The online monitor, from step 0 on: of pre-training, kNN of validation clips among training clips; of
    a classifier, its own accuracy on the validation clips, the best model of which is kept."""

    knn_every: int | None = setting(
        None, "pre-training: steps between two evaluations; null: none", minimum=1
    )
    accuracy_every: int | None = setting(
        None, "classification: steps between two evaluations; null: none", minimum=1
    )
    knn_k: int = setting(10, "neighbours that vote", minimum=1)
    knn_temperature: float | None = setting(None, "weight of a vote; null: all the same", minimum=0)
    train_samples: int | None = setting(1000, "training clips in the gallery; null: all", minimum=1)
    validation_samples: int | None = setting(1000, "validation clips; null: all", minimum=1)
    views: str = setting("1x1", "temporal clips x spatial crops averaged per sample")
    batch_size: int = setting(16, "clips per forward", minimum=1)


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, every value of its type.

    Attributes:
        method: a name of the registry.
        task: "pretraining", or "classification": a classifier learns labels (training/finetune.py).
        model: fields of the method's configuration (only those that differ from its defaults need to stand
            here).
        processor: fields of the method's processor that the configuration does not fix.
        augmentation: the task's typed augmentation, or None where it has none.
    """

    method: str
    task: str
    data: DataRecipe
    training: TrainingRecipe
    model: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    augmentation: Any = None
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)

    @property
    def evaluation_steps(self) -> int | None:
        """Steps between two evaluations by the monitor of the task."""
        settings = self.evaluation
        return settings.accuracy_every if self.task == "classification" else settings.knn_every

    def alternate_augmentation(self, name: str) -> Any:
        """The typed augmentation of a further data set."""
        return type(self.augmentation)(**self.data.alternate[name].augmentation)

    def make_config(self) -> Any:
        """The method's configuration, checked by its own class.

        Raises:
            RecipeError: values that do not go together; the message is the configuration's.
        """
        try:
            return find_class(self.method, "Config")(**self.model)
        except ValueError as error:
            raise RecipeError(f"model: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values of every section, defaults included, that `make_recipe` reads back."""
        values: dict[str, Any] = {"method": self.method, "task": self.task}
        for name in _SECTIONS:
            section = getattr(self, name)
            if name == "model":
                section = model_fields(self.make_config()) | self.model
            if dataclasses.is_dataclass(section) and not isinstance(section, type):
                section = dataclasses.asdict(section)
            values[name] = _plain(section or {})
        return values


_SECTIONS = ("model", "processor", "data", "augmentation", "optimizer", "schedule", "training", "evaluation")
_TYPED: dict[str, type] = {
    "data": DataRecipe,
    "optimizer": OptimizerRecipe,
    "schedule": ScheduleRecipe,
    "training": TrainingRecipe,
    "evaluation": EvaluationRecipe,
}


def model_fields(config: Any) -> dict[str, Any]:
    """The fields of a configuration that a recipe may hold, as plain values: neither those that every model
    of transformers has, nor those that follow from the data (`fields_of_data` of its class)."""
    left_out = {item.name for item in dataclasses.fields(PreTrainedConfig)}
    left_out.update(getattr(config, "fields_of_data", ()))
    names = [item.name for item in dataclasses.fields(config) if item.name not in left_out]
    return {name: _plain(getattr(config, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, PreTrainedConfig):
        return model_fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _augmentation_class(method: str, task: str) -> Any:
    """The augmentation that a method has for a task, None where it has none. One that pre-trains has its own
    for that; its classifiers, like all that bring none, see clips as `data.labelled_clips` makes them."""
    if task == "classification" and has_class(method, "LabelledClipAugmentation"):
        return find_class(method, "LabelledClipAugmentation")
    if task == "classification" and has_class(method, "ForPreTraining"):
        return LabelledClipAugmentation
    return find_class(method, "Augmentation") if has_class(method, "Augmentation") else None


def _known_keys(method: str, task: str) -> dict[str, Any]:
    """Every dotted key -> its default (or MISSING), for one method."""
    keys: dict[str, Any] = {"method": dataclasses.MISSING, "task": dataclasses.MISSING}
    classes = dict(_TYPED, model=find_class(method, "Config"))
    if augmentation := _augmentation_class(method, task):
        classes["augmentation"] = augmentation
    for section in _SECTIONS:
        if section in classes:
            for item in dataclasses.fields(classes[section]):
                if item.init:
                    keys[f"{section}.{item.name}"] = item.default
    return keys


def describe_keys() -> str:
    """The keys that are the same for every method, with type-free defaults and explanations, for `--help`."""
    lines = []
    for section, cls in _TYPED.items():
        lines.append(f"{section}:")
        for item in dataclasses.fields(cls):
            if item.default is not dataclasses.MISSING:
                default = f" [{item.default}]"
            elif item.default_factory is not dataclasses.MISSING:
                default = f" [{item.default_factory()}]"
            else:
                default = " [required]"
            lines.append(f"  --{section}.{item.name}{default}  {item.metadata.get('help', '')}")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {path}; see training/recipes/ for those that come with us"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    try:
        tree = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} must hold a mapping of sections (method, model, data, ...), got {tree!r}")
    return tree


def _override(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write `--a.b value` and `--a.b=value` into the tree."""
    rest = list(overrides)
    while rest:
        flag = rest.pop(0)
        match = re.fullmatch(r"--([A-Za-z_][\w.]*)(?:=(.*))?", flag, re.DOTALL)
        if match is None:
            raise RecipeError(f"cannot read {flag!r}: recipe keys are given as --section.key value")
        path, value = match.groups()
        if value is None:
            if not rest or re.match(r"--[A-Za-z_]", rest[0]):
                raise RecipeError(f"--{path} needs a value, such as --{path} true")
            value = rest.pop(0)
        *parents, leaf = path.split(".")
        section = tree
        for name in parents:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                raise RecipeError(f"unknown recipe key {path}: {name} is a single value, it has no keys")
        section[leaf] = CommandLineText(value)


def _read_task(tree: Mapping[str, Any], method: str) -> str:
    """The task that a recipe names; by default the first of those that the method has."""
    tasks = {"pretraining": "ForPreTraining", "classification": "ForVideoClassification"}
    known = [task for task, suffix in tasks.items() if has_class(method, suffix)]
    task = tree.get("task")
    if task is None:
        return known[0]
    if task not in known:
        raise RecipeError(f"{method} has no task {task!r}: give {' or '.join(known)}")
    return str(task)


def _alternates(
    tree: Mapping[str, Any], values: Mapping[str, Any], augmentation: Any, task: str
) -> dict[str, AlternateRecipe]:
    """The further data sets, with all of their augmentation: the run's, and what differs from it."""
    found: dict[str, AlternateRecipe] = {}
    for name, entry in values["data"].alternate.items():
        path = f"data.alternate.{name}"
        if values["data"].streaming or task != "pretraining" or augmentation is None:
            raise RecipeError(f"{path}: data sets take turns in pre-training without streaming alone")
        alternate = from_mapping(AlternateRecipe, entry, path)
        settings = {**(tree.get("augmentation") or {}), **alternate.augmentation}
        whole: Any = from_mapping(augmentation, settings, f"{path}.augmentation")
        found[name] = dataclasses.replace(alternate, augmentation=dataclasses.asdict(whole))
    return found


def make_recipe(tree: Mapping[str, Any]) -> Recipe:
    """Check a nested mapping and make it a typed recipe.

    Raises:
        RecipeError: unknown method or key (with the nearest known one), wrong type, missing value, settings
            that contradict each other.
    """
    method = tree.get("method")
    if method is None:
        raise RecipeError(f"method is missing: one of {', '.join(sorted(METHODS))}")
    if not isinstance(method, str) or method not in METHODS.keys() | COMPANIONS.keys():
        raise RecipeError(f"unknown method {method!r}: the methods are {', '.join(sorted(METHODS))}")
    method = str(method)
    task = _read_task(tree, method)
    known = _known_keys(method, task)
    for section, content in tree.items():
        if section not in ("method", "task", *_SECTIONS):
            keys = (
                [f"{section}.{key}" for key in content]
                if isinstance(content, Mapping) and content
                else [section]
            )
            raise unknown_key(keys[0], known if "." in keys[0] else ("method", "task", *_SECTIONS))
        if isinstance(content, Mapping) and section != "processor":
            for key in content:
                if f"{section}.{key}" not in known:
                    raise unknown_key(f"{section}.{key}", known)

    values: dict[str, Any] = {name: from_mapping(cls, tree.get(name), name) for name, cls in _TYPED.items()}
    values["model"] = convert_fields(find_class(method, "Config"), tree.get("model"), "model")
    if augmentation := _augmentation_class(method, task):
        values["augmentation"] = from_mapping(augmentation, tree.get("augmentation"), "augmentation")
    elif tree.get("augmentation"):
        raise RecipeError(
            f"method {method} has no augmentation settings: leave the section augmentation empty"
        )
    values["data"] = dataclasses.replace(
        values["data"], alternate=_alternates(tree, values, augmentation, task)
    )
    if values["data"].streaming and values["training"].max_steps is None:
        raise RecipeError("a stream has no length, so that epochs mean nothing: set training.max_steps")
    other = "knn_every" if task == "classification" else "accuracy_every"
    if getattr(values["evaluation"], other) is not None:
        raise RecipeError(f"evaluation.{other} is not for the task {task}: leave it null")
    if values["training"].classifier_only and task != "classification":
        raise RecipeError(f"training.classifier_only is not for the task {task}, which has no classifier")
    recipe = Recipe(method=method, task=task, **values)
    settings = convert_processor_settings(method, recipe.make_config(), tree.get("processor"))
    return dataclasses.replace(recipe, processor=settings)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, lay the command line over it and check everything.

    Args:
        path: YAML file.
        overrides: `["--training.max_steps", "10", "--model.objective=gdt", ...]`; later ones win.

    Raises:
        RecipeError: see `make_recipe`; also no such file, or not YAML.
    """
    tree = _read(Path(path))
    _override(tree, overrides)
    return make_recipe(tree)


def recipe_text(recipe: Recipe, *, hide_folders: bool = False) -> str:
    """The resolved recipe as YAML.

    Args:
        hide_folders: absolute paths are cut to their last part, for what is published.
    """
    content = recipe.to_dict()
    if hide_folders:
        content = _without_folders(content)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return "# The resolved recipe of this run.\n" + text


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        return Path(value).name
    return value


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write the resolved recipe, defaults included, so that it can be read again years later.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        Path(path).write_text(recipe_text(recipe), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def differences(one: Recipe, other: Recipe, ignore: Iterable[str] = ()) -> list[str]:
    """Dotted keys in which two recipes differ, but for `ignore` (keys or whole sections)."""
    skipped = set(ignore)
    first, second = one.to_dict(), other.to_dict()
    found = [name for name in ("method", "task") if getattr(one, name) != getattr(other, name)]
    for section in _SECTIONS:
        for key in sorted(first[section].keys() | second[section].keys()):
            path = f"{section}.{key}"
            if not skipped & {section, path} and first[section].get(key) != second[section].get(key):
                found.append(path)
    return found
