"""`videossl finetune RECIPE --folds N|official`: one fine-tuning a fold, scored on what it has not seen.

Every fold trains a classifier in a folder of its own, `fold-1` and so on, which goes on where it was broken
off. With `evaluation.accuracy_every` the best model is chosen on a fifth of the fold's training clips, which
are then not trained on; the fold's test clips are looked at once, by the model that was kept. The averaged
figures go into results.json of the output folder, as `videossl evaluate` writes them.

>>> result = finetune_folds(load_recipe("training/recipes/ila/adapt.yaml"), "4")
>>> str(result.figures["top1"])
'71.3 [61.3, 81.3]'
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..data.datasets import load_videos
from ..errors import RecipeError
from ..evaluation.clip_values import ClipValues, write_clip_values
from ..evaluation.features import extract_features
from ..evaluation.fingerprint import data_fingerprint, model_fingerprint, short_hash
from ..evaluation.folds import Fold, average_folds, official_folds, stratified_folds
from ..evaluation.linear import hold_out
from ..evaluation.loading import load_model, load_processor, quiet_libraries
from ..evaluation.protocols import Outcome, classify_protocol
from ..evaluation.results import Result, write_results
from ..evaluation.table import FeatureTable
from .finetune import finetune
from .recipe import Recipe

__all__ = ["finetune_folds"]


def finetune_folds(
    recipe: Recipe,
    folds: str,
    *,
    views: str = "1x1",
    average: str = "probabilities",
    resume: str = "auto",
    console: Console | None = None,
) -> Result:
    """Fine-tune and score every fold; every process of a distributed run calls this.

    Args:
        recipe: of the task "classification"; its validation and test splits are not read.
        folds: a number, for cross-validation over `data.train`, or "official".
        views: "CLIPSxCROPS" of a test.
        average: what is averaged over views, "probabilities" or "logits".
        resume, console: see `finetune`.

    Raises:
        RecipeError: a recipe that pre-trains, or streams; see `finetune` for further errors.
        DataError: no such folds, or a class with a single clip.
    """
    console = console or Console()
    if recipe.task != "classification" or recipe.data.streaming:
        raise RecipeError("folds are for recipes of the task classification that do not stream")
    output = Path(recipe.training.output_dir)
    with quiet_libraries():
        dataset, parts = _cut(recipe, folds)
    started = time.perf_counter()
    outcomes, weights, tables = [], [], []
    for number, fold in enumerate(parts, 1):
        console.print(f"[bold]fold {number} of {len(parts)}[/bold]", highlight=False)
        run = finetune(_of_fold(recipe, output, number), resume=resume, console=console,
                       samples=_splits(dataset, fold, recipe))  # fmt: skip
        best = run.output_dir / "best"
        kept = best if recipe.evaluation.accuracy_every and best.is_dir() else run.output_dir
        with quiet_libraries():
            outcome, table, fingerprint = _score(kept, dataset.select(fold.test), recipe, views, average)
        outcomes.append(outcome)
        weights.append(fingerprint)
        tables.append(table)
    outcome = average_folds(outcomes, [fold.test for fold in parts], seed=recipe.training.seed)
    result = Result(
        model={
            "id": str(output),
            "revision": None,
            "class": f"{recipe.method} classifier, one a fold",
            "weights": short_hash(weights),
            "init_from": recipe.training.init_from,
        },
        data={
            "id": recipe.data.train,
            "revision": recipe.data.revision,
            "split": "folds" if folds == "official" else recipe.data.train_split,
            "fingerprint": data_fingerprint(dataset),
            "samples": len(dataset),
        },
        protocol=outcome.protocol
        | {"name": "finetune", "folds": folds if folds == "official" else len(parts), "average": average},
        views=views,
        seed=recipe.training.seed,
        figures=outcome.figures,
        wall_time=time.perf_counter() - started,
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        _write(output / "results.json", result, outcome, tables)
        for name, figure in result.figures.items():
            console.print(f"{name} over {len(parts)} folds: {figure}", highlight=False)
    return result


def _cut(recipe: Recipe, folds: str) -> tuple[Any, list[Fold]]:
    if folds == "official":
        return official_folds(recipe.data.train)
    if not folds.isdecimal():
        raise RecipeError(f'folds must be a number or "official", got {folds!r}')
    dataset: Any = load_videos(recipe.data.train, recipe.data.train_split, revision=recipe.data.revision)
    if "label" not in dataset.column_names:
        raise RecipeError(f"the videos of {recipe.data.train} have no labels to be learned")
    return dataset, stratified_folds(dataset["label"][:], int(folds), recipe.training.seed)


def _of_fold(recipe: Recipe, output: Path, number: int) -> Recipe:
    training = dataclasses.replace(recipe.training, output_dir=str(output / f"fold-{number}"))
    return dataclasses.replace(recipe, training=training)


def _splits(dataset: Any, fold: Fold, recipe: Recipe) -> Mapping[str, Any]:
    """What a fold trains on, and what its best model is chosen on."""
    train = fold.train
    if recipe.evaluation.accuracy_every is None:
        return {"train": dataset.select(train.tolist())}
    labels = torch.tensor(dataset["label"][:])[train]
    kept, held = hold_out(labels, seed=recipe.training.seed)
    return {
        "train": dataset.select(train[kept].tolist()),
        "validation": dataset.select(train[held].tolist()),
    }


def _score(
    folder: Path, test: Any, recipe: Recipe, views: str, average: str
) -> tuple[Outcome, FeatureTable, str]:
    model, processor = load_model(str(folder), for_classification=True), load_processor(str(folder))
    if recipe.training.device != "cpu" and torch.accelerator.is_available():
        model = model.to(torch.accelerator.current_accelerator())
    settings: dict[str, Any] = {"batch_size": recipe.evaluation.batch_size, "views": views, "space": average}
    answers = extract_features(model, processor, test, num_workers=recipe.training.num_workers, **settings)
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    outcome = classify_protocol(answers, names, seed=recipe.training.seed)
    return outcome, answers, model_fingerprint(model)


def _write(path: Path, result: Result, outcome: Outcome, tables: list[FeatureTable]) -> None:
    assert outcome.scores is not None
    clips = ClipValues(
        [key for table in tables for key in table.keys],
        outcome.values,
        torch.cat([table.labels for table in tables]),
        outcome.scores.argmax(dim=1),
        tables[0].label_names,
    )
    write_results(path, [result])
    write_clip_values(path, result, clips)
