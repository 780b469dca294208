"""What pre-training and fine-tuning have in common: from a recipe and a model to a folder that others load.

A run is made in steps that bad input stops as early as can be: the recipe is checked by the one who calls,
then the output folder, the checkpoint to go on from and the processes, then the data, then the model trains.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import TrainingArguments, set_seed

from ..data.alternating import AlternatingCollator, AlternatingDataset
from ..data.datasets import SeededDataset, SeededStream, load_videos
from ..data.loading import SampleLoader
from ..errors import ConfigurationError, RecipeError
from ..evaluation.loading import quiet_libraries
from .callbacks import TrainingDisplay
from .checkpoints import choose_checkpoint, list_checkpoints, prepare_output_dir, verify_checkpoint
from .recipe import Recipe, describe_keys, differences, load_recipe, make_recipe, recipe_text, save_recipe
from .trainer import VideoSSLTrainer

__all__ = ["Parts", "TrainingRun", "add_recipe_arguments", "read_arguments", "train_by_recipe"]

RECIPE_FILE = "recipe.yaml"
LEDGER_FILE = "bad_samples.jsonl"
METRICS_FILE = "metrics.jsonl"

# What may change between a run and its continuation without changing its numbers.
_WITHOUT_EFFECT = (
    *(
        "output_dir",
        "device",
        "processes",
        "prefetch_factor",
        "logging_steps",
        "save_steps",
        "keep_checkpoints",
    ),
    *("num_workers", "report_to", "run_name", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private"),
)


@dataclass(frozen=True)
class TrainingRun:
    """What came out.

    Attributes:
        output_dir: holds the model with its code and processor, recipe.yaml, metrics.jsonl, checkpoints, and
            bad_samples.jsonl where there were any.
        steps: optimiser steps of the whole run.
        resumed_from: step of the checkpoint that it went on from; None for a fresh start.
        log: the lines of metrics.jsonl.
    """

    output_dir: Path
    steps: int
    resumed_from: int | None
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Parts:
    """What a run trains, and what makes its batches.

    Attributes:
        model: in training mode.
        processor: saved with the model.
        collator: makes batches of undecoded samples, given the loader that decodes them; of a further data
            set also given its augmentation.
        monitor: as of `VideoSSLTrainer`.
        keep_best: as of `VideoSSLTrainer`.
    """

    model: Any
    processor: Any
    collator: Callable[..., Any]
    monitor: Callable[[Any], dict[str, float]] | None = None
    keep_best: str | None = None


def add_recipe_arguments(parser: argparse.ArgumentParser, example: str) -> None:
    """Arguments of the commands that train.

    Args:
        parser: of the command.
        example: a recipe file.
    """
    parser.add_argument("recipe", help=f"YAML file, such as {example}")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|CHECKPOINT",
        help="auto: from the newest complete checkpoint in training.output_dir, if there is one (default)",
    )
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="--section.key VALUE",
        help="recipe keys, over the file's values",
    )
    parser.add_argument_group(
        "recipe keys [default]",
        "model, processor and augmentation take the fields of the method's own classes; all methods have:\n"
        + describe_keys(),
    )


def read_arguments(args: argparse.Namespace, options: Sequence[str] = ()) -> tuple[Recipe, str]:
    """The recipe of a command line, and what it says of resuming.

    Args:
        args: of a parser with `add_recipe_arguments`; options that stand behind the recipe are set in it.
        options: names of further ones.
    """
    overrides = list(args.overrides)
    for name in ("resume", *options):
        while f"--{name}" in overrides:  # stands behind the recipe, where all is left to us
            position = overrides.index(f"--{name}")
            if position + 1 == len(overrides):
                what = "auto, never or a checkpoint folder" if name == "resume" else "a value"
                raise RecipeError(f"--{name} needs {what}")
            setattr(args, name, overrides[position + 1])
            del overrides[position : position + 2]
    return load_recipe(args.recipe, overrides), args.resume


def train_by_recipe(
    recipe: Recipe,
    make_parts: Callable[[Any, TrainingArguments], Parts],
    *,
    resume: str = "auto",
    console: Console | None = None,
    dataset: Any = None,
) -> TrainingRun:
    """Train what `make_parts` makes; every process of a distributed run calls this.

    Args:
        recipe: see `recipe.load_recipe`.
        make_parts: called with the undecoded training samples (a dataset of `load_videos`) and Trainer's
            arguments, once the random state is seeded.
        resume: "auto", "never" or a checkpoint folder, see `checkpoints.choose_checkpoint`.
        console: where the first process reports; by default the terminal.
        dataset: training samples instead of those that the recipe names.

    Raises:
        RecipeError, ConfigurationError: settings that cannot work (before anything heavy is done).
        OutputError: the output folder cannot be written, or holds another run.
        DataError: no such data, or too little of it.
        CheckpointError: a damaged checkpoint, or one of another model.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    console = console or Console()
    output_dir = prepare_output_dir(recipe.training.output_dir)
    checkpoint = choose_checkpoint(output_dir, resume)
    if checkpoint is not None and resume == "auto":
        _check_same_recipe(recipe, output_dir)
    args = _training_arguments(recipe)
    _check_processes(recipe, args, checkpoint, console)

    with quiet_libraries():
        dataset, train_data, replacements = _training_data(recipe, args, dataset)
        set_seed(recipe.training.seed)
        parts = make_parts(dataset, args)
        loader, *others = (_loader(recipe, output_dir, samples) for samples in replacements)
        collator = parts.collator(loader)
        if hasattr(collator, "check_source"):
            collator.check_source(recipe.data.train, recipe.data.revision)
        display = TrainingDisplay(console, recipe.task)
        trainer = VideoSSLTrainer(
            model=_in_memory_format(parts.model, recipe),
            args=args,
            optimizer_recipe=recipe.optimizer,
            schedule_recipe=recipe.schedule,
            monitor=parts.monitor,
            keep_best=parts.keep_best,
            streaming=recipe.data.streaming,
            keep_checkpoints=recipe.training.keep_checkpoints,
            moments_from=recipe.training.init_from if recipe.training.init_optimizer else None,
            published={
                RECIPE_FILE: lambda: recipe_text(recipe, hide_folders=True).encode(),
                METRICS_FILE: (output_dir / METRICS_FILE).read_bytes,
            },
            callbacks=[display],
            train_dataset=train_data,
            eval_dataset=train_data,
            data_collator=_taking_turns(recipe, parts, collator, others),
            processor=parts.processor,
        )
        if trainer.is_world_process_zero():
            save_recipe(recipe, output_dir / RECIPE_FILE)
            _introduce(console, recipe, trainer, checkpoint)
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            display.close()
        if recipe.training.push_to_hub:
            trainer.push_to_hub()
        else:
            trainer.save_model()
    steps = trainer.state.global_step
    if trainer.is_world_process_zero():
        console.print(f"[bold]{recipe.method}[/bold]: {steps} steps, saved to {output_dir}", highlight=False)
    return TrainingRun(
        output_dir=output_dir,
        steps=steps,
        resumed_from=None if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[-1]),
        log=trainer.state.log_history,
    )


def _in_memory_format(model: Any, recipe: Recipe) -> Any:
    if recipe.training.channels_last_3d:
        for parameter in model.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return model


def _check_same_recipe(recipe: Recipe, output_dir: Path) -> None:
    """A checkpoint found by itself is only gone on from with the recipe that made it."""
    path = output_dir / RECIPE_FILE
    if not path.is_file():
        return
    ignored = {f"training.{name}" for name in _WITHOUT_EFFECT} | {"data.cache", "data.cache_dir"}
    before = make_recipe(yaml.safe_load(path.read_text(encoding="utf-8")))
    changed = differences(before, recipe, ignored)
    if changed:
        raise ConfigurationError(
            f"{output_dir} holds a run with another recipe (it differs in {', '.join(changed[:5])}): choose "
            "another --training.output_dir, or go on from it all the same with "
            f"--resume {list_checkpoints(output_dir)[-1]}"
        )


def _training_arguments(recipe: Recipe) -> TrainingArguments:
    training, every = recipe.training, recipe.evaluation_steps
    monitored = every is not None
    on_cpu = training.device == "cpu" or not torch.accelerator.is_available()
    return TrainingArguments(
        output_dir=training.output_dir,
        max_steps=training.max_steps or -1,
        num_train_epochs=training.epochs or 0,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        seed=training.seed,
        use_cpu=on_cpu,
        bf16=training.bf16,
        torch_compile=training.compile,
        activation_checkpointing=training.gradient_checkpointing,
        max_grad_norm=training.max_grad_norm or 0.0,
        learning_rate=recipe.optimizer.lr,
        weight_decay=recipe.optimizer.weight_decay,
        dataloader_num_workers=training.num_workers,
        dataloader_prefetch_factor=training.prefetch_factor if training.num_workers else None,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=training.find_unused_parameters,
        logging_steps=training.logging_steps,
        logging_first_step=True,
        # Trainer's filter asks after every step whether the loss is NaN, which waits for the device; ours
        # asks when a line is logged.
        logging_nan_inf_filter=False,
        save_steps=training.save_steps,
        eval_strategy="steps" if monitored else "no",
        eval_steps=every,
        eval_on_start=monitored,
        report_to=training.report_to,
        run_name=training.run_name,
        push_to_hub=training.push_to_hub,
        hub_model_id=training.hub_model_id,
        hub_strategy=training.hub_strategy,
        hub_private_repo=training.hub_private,
        disable_tqdm=True,
    )


def _check_processes(
    recipe: Recipe, args: TrainingArguments, checkpoint: Path | None, console: Console
) -> None:
    wanted = recipe.training.processes
    if wanted is not None and wanted != args.world_size:
        raise ConfigurationError(
            f"training.processes asks for {wanted}, but {args.world_size} run. Two on a CPU: "
            "ACCELERATE_USE_CPU=true accelerate launch --config_file training/accelerate/cpu_2.yaml ..."
        )
    if checkpoint is not None:
        before = verify_checkpoint(checkpoint)
        if before != args.world_size and args.process_index == 0:
            console.print(
                f"[yellow]{checkpoint.name} was written by {before} process(es), {args.world_size} go on: "
                "the samples of each step will be others than in an unbroken run[/yellow]"
            )


def _loader(recipe: Recipe, output_dir: Path, replacements: SeededDataset | None) -> SampleLoader:
    data = recipe.data
    return SampleLoader(
        data.on_bad_sample,
        max_bad_share=data.max_bad_share,
        max_tries=data.max_tries,
        ledger=output_dir / LEDGER_FILE,
        cache=data.cache,
        cache_dir=data.cache_dir,
        replacements=replacements,
    )


def _taking_turns(recipe: Recipe, parts: Parts, first: Any, loaders: list[SampleLoader]) -> Any:
    """The collator of `data.train`, or with further data sets one that knows all of theirs."""
    if not loaders:
        return first
    pairs = zip(loaders, recipe.data.alternate, strict=True)
    others = [parts.collator(loader, recipe.alternate_augmentation(name)) for loader, name in pairs]
    return AlternatingCollator([first, *others])


def _training_data(
    recipe: Recipe, args: TrainingArguments, dataset: Any = None
) -> tuple[Any, Any, list[SeededDataset | None]]:
    """The undecoded samples, the same with seeds, and of each data set those that may replace a bad one."""
    data, seed = recipe.data, recipe.training.seed
    if dataset is None:
        dataset = load_videos(data.train, data.train_split, streaming=data.streaming, revision=data.revision)
    if data.streaming:
        stream = SeededStream(
            dataset,
            seed,
            shuffle_buffer=data.shuffle_buffer,
            rank=args.process_index,
            world_size=args.world_size,
        )
        return dataset, stream, [None]
    seeded = SeededDataset(dataset, seed)
    if not data.alternate:
        return dataset, seeded, [seeded]
    others = [
        load_videos(other.train, other.train_split, revision=other.revision)
        for other in data.alternate.values()
    ]
    replacements: list[SeededDataset | None] = [seeded, *(SeededDataset(other, seed) for other in others)]
    return dataset, AlternatingDataset([dataset, *others], seed), replacements


def _introduce(console: Console, recipe: Recipe, trainer: VideoSSLTrainer, checkpoint: Path | None) -> None:
    """One look at what is about to happen."""
    args = trainer.args
    batch = trainer.get_total_train_batch_size(args)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    clips = "a stream" if recipe.data.streaming else f"{len(trainer.train_dataset):,} clips"
    length = (
        f"{recipe.training.max_steps:,} steps"
        if recipe.training.max_steps
        else f"{recipe.training.epochs:g} epochs"
    )
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("method", f"{recipe.method} ({parameters / 1e6:.2f} M parameters)"),
        ("data", f"{recipe.data.train} ({clips})"),
        ("device", f"{args.device.type}, {args.world_size} process(es){', bf16' if args.bf16 else ''}"),
        ("length", f"{length}, {batch} clips a step"),
        ("output", args.output_dir + (f", going on from {checkpoint.name}" if checkpoint else "")),
    ):
        table.add_row(f"[dim]{name}[/dim]", value)
    console.print(table, highlight=False)
