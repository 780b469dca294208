"""Variants of a method at equal steps: `python benchmarks/ablation.py stica --seeds 3 --jobs 2`.

Every cell is one variant (ablations.yaml lists them) of the smoke recipe, or of another, at one seed, trained
for the same number of steps on the same clips, and scored by kNN and linear probe on validation and test
beside the same network with random weights. Hand-made features that learn nothing stand below. A cell that is
finished is not run again, and a training that was broken off goes on. Every process has one thread, so that
two cells fit on two cores.

Writes results/ABLATION-ablation.json, and the table as results/ABLATION-ablation.md. What decides about
settings is validation; test is printed beside it, not chosen on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

from videossl_hf.evaluation.loading import load_model
from videossl_hf.evaluation.results import installed_versions
from videossl_hf.training.processors import make_processor
from videossl_hf.training.recipe import load_recipe
from videossl_hf.training.smoke_runs import FeatureScores, SmokeRun, read_smoke_run

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = yaml.safe_load((ROOT / "benchmarks/ablations.yaml").read_text(encoding="utf-8"))
HAND_MADE = ("frame-difference", "raw-pixels")
SPLITS = ("validation", "test")
ROW_KEYS = ("variant", "weights", "seeds")
MOST_COLUMNS = 10
HEADINGS = {"knn": "kNN", "linear": "probe"}


def main() -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ablation", choices=ABLATIONS, help="an entry of ablations.yaml")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of a variant, seeds 0 to SEEDS-1 (3)")
    parser.add_argument("--steps", type=int, help="of every training (as many as in ablations.yaml)")
    parser.add_argument("--clips", type=int, help="training clips to generate (as smoke_runs.yaml says)")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each (2)")
    parser.add_argument("--work", type=Path, help="data and runs (outputs/ABLATION-ablation)")
    parser.add_argument("--output", type=Path, help="results file (results/ABLATION-ablation.json)")
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help="only these")
    parser.add_argument(
        "--set", default="", metavar="OVERRIDES", help="recipe keys of every run, in one string"
    )
    parser.add_argument("--cell", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    ablation = ABLATIONS[args.ablation]
    method = ablation.get("method", args.ablation)
    args.steps = args.steps or ablation["steps"]
    args.work = args.work or Path(f"outputs/{args.ablation}-ablation")
    args.output = args.output or Path(f"results/{args.ablation}-ablation.json")
    args.recipe = ROOT / f"training/recipes/{method}" / ablation.get("recipe", "smoke.yaml")
    args.start = ROOT / f"training/recipes/{method}" / ablation["start"] if "start" in ablation else None
    args.overrides = ablation["variants"]
    args.plan = read_smoke_run(ROOT / "training/recipes/smoke_runs.yaml", method)
    args.start_plan = args.plan
    if "overrides" in ablation:
        args.plan = dataclasses.replace(args.plan, overrides=ablation["overrides"])
    args.work = args.work.resolve()
    unknown = set(args.variants or ()) - set(args.overrides)
    if unknown:
        parser.error(f"unknown variants {sorted(unknown)}; {args.ablation} has {list(args.overrides)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    if args.cell:
        run_cell(args, args.cell[0], int(args.cell[1]))
        return 0
    args.plan.prepare(ROOT, args.work / "data", args.work, clips=args.clips)
    wanted = [(name, seed) for name in args.variants or args.overrides for seed in range(args.seeds)]
    wanted += [(name, 0) for name in HAND_MADE]
    todo = [cell for cell in wanted if read_cell(args, *cell) is None]
    print(f"{len(wanted)} cells, {len(wanted) - len(todo)} finished before", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda seed: train_start(args, seed), sorted({seed for _, seed in todo})))
        failed = [cell for cell, code in zip(todo, pool.map(start_cell, todo), strict=True) if code]
    cells = [cell for cell in (read_cell(args, *name) for name in wanted) if cell is not None]
    if cells:
        write_table(args, cells)
    if failed:
        print(f"failed: {failed}; see log.txt in their folders, and run this again", file=sys.stderr)
    return 1 if failed else 0


def folder_of(args: argparse.Namespace, variant: str, seed: int) -> Path:
    """Where a cell lies."""
    name = "".join(letter if letter.isalnum() else "-" for letter in variant.lower())
    return args.work / f"{name}-{seed}"


def start_of(args: argparse.Namespace, seed: int) -> Path:
    """Where the run lies that every variant of a seed goes on from."""
    return args.work / f"start-{seed}"


def settings_of(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    """All that a cell depends on: a finished one with other settings does not count."""
    start = {} if args.start is None else {"start": args.start.read_text(encoding="utf-8")}
    return start | {
        "variant": variant,
        "seed": seed,
        "steps": args.steps,
        "data": args.plan.shapes(args.clips).settings(),
        "plan": dataclasses.asdict(args.plan),
        "overrides": shlex.split(args.overrides.get(variant, "")) + shlex.split(args.set),
        "recipe": args.recipe.read_text(encoding="utf-8"),
    }


def read_cell(args: argparse.Namespace, variant: str, seed: int) -> dict[str, Any] | None:
    """A finished cell, or None."""
    path = folder_of(args, variant, seed) / "cell.json"
    if not path.is_file():
        return None
    cell = json.loads(path.read_text())
    return cell if cell["settings"] == settings_of(args, variant, seed) else None


def start_cell(cell: tuple[str, int]) -> int:
    """Run one cell in a process of its own; its output goes to log.txt in its folder."""
    command = [sys.executable, __file__, *sys.argv[1:], "--cell", cell[0], str(cell[1])]
    started = time.perf_counter()
    code = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode
    state = f"failed with exit code {code}" if code else f"done in {time.perf_counter() - started:.0f} s"
    print(f"{cell[0]}, seed {cell[1]}: {state}", flush=True)
    return code


def run_cell(args: argparse.Namespace, variant: str, seed: int) -> None:
    """Train (or go on training) and score one cell."""
    torch.set_num_threads(1)
    folder = folder_of(args, variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(args, variant, seed)
    started = time.process_time()
    data, run = args.work / "data", folder / "run"
    if variant in HAND_MADE:
        # Hand-made features see the clips through the processor of any cell: all have the same one.
        figures = {"hand-made": FeatureScores(processor_folder(args), data).of(load_model(variant), SPLITS)}
    else:
        train(args, folder, settings)
        models = {
            "random": load_model(str(run), random_weights=True, seed=seed),
            "trained": load_model(str(run)),
        }
        scores = FeatureScores(run, data)
        figures = {weights: scores.of(model, SPLITS) for weights, model in models.items()}
        for weights, split in itertools.product(models, SPLITS):
            figures[weights] |= args.plan.further_scores(
                run, data, args.work, split=split, random_weights=weights == "random", seed=seed
            )
        figures["trained"] |= args.plan.last_metrics(run, strict=False)
    cell = {"settings": settings, "figures": figures, "cpu_seconds": round(cpu_seconds(started), 1)}
    part = folder / "cell.json.part"
    part.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "cell.json")


def processor_folder(args: argparse.Namespace) -> Path:
    """The processor of the recipe, saved once."""
    folder = args.work / "processor"
    overrides = args.plan.recipe_overrides(args.work / "data", args.work)
    recipe = load_recipe(args.recipe, [*overrides, *shlex.split(args.set)])
    make_processor(recipe.method, recipe.make_config(), recipe.processor).save_pretrained(folder)
    return folder


def train(args: argparse.Namespace, folder: Path, settings: dict[str, Any]) -> None:
    """Train one cell for the steps of all, from its seed's start where there is one."""
    seed = settings["seed"]
    start = [] if args.start is None else ["--training.init_from", str(start_of(args, seed) / "run")]
    overrides = [*start, "--training.max_steps", str(args.steps), *settings["overrides"]]
    pretrain(args, args.plan, args.recipe, folder, seed, overrides)


def train_start(args: argparse.Namespace, seed: int) -> None:
    """Train what the variants of a seed go on from, if they do: its recipe's own steps, once."""
    folder = start_of(args, seed)
    if args.start is not None and not (folder / "run/model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pretrain(args, args.start_plan, args.start, folder, seed, [])


def pretrain(
    args: argparse.Namespace, plan: SmokeRun, recipe: Path, folder: Path, seed: int, overrides: Sequence[str]
) -> None:
    """The command of the README, on one CPU thread; goes on from the newest checkpoint."""
    command = [
        *(sys.executable, str(ROOT / "training" / plan.script), str(recipe)),
        *plan.recipe_overrides(args.work / "data", args.work),
        *("--training.output_dir", str(folder / "run"), "--training.seed", str(seed)),
        *("--training.device", "cpu", *overrides),
    ]
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)


def cpu_seconds(started: float) -> float:
    """Of this process since `started` (its `process_time`) and of its finished children."""
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() - started + children.ru_utime + children.ru_stime


def write_table(args: argparse.Namespace, cells: Sequence[dict[str, Any]]) -> None:
    """Means over seeds as JSON, and as a Markdown table."""
    rows = []
    for variant in dict.fromkeys(cell["settings"]["variant"] for cell in cells):
        own = [cell for cell in cells if cell["settings"]["variant"] == variant]
        for weights in own[0]["figures"]:
            rows.append({"variant": variant, "weights": weights, "seeds": len(own), **summary(own, weights)})
    report = {
        "what": ABLATIONS[args.ablation]["what"],
        "recipe": str(args.recipe.relative_to(ROOT)),
        "steps": args.steps,
        "data": args.plan.shapes(args.clips).settings(),
        "rows": rows,
        "cells": cells,
        "versions": installed_versions(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = markdown(report)
    args.output.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
    print(f"written to {args.output} and {args.output.with_suffix('.md')}")


def summary(cells: Sequence[dict[str, Any]], weights: str) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure, and the gain over random weights."""
    result: dict[str, Any] = {}
    for name in cells[0]["figures"][weights]:
        values = [cell["figures"][weights][name] for cell in cells]
        spread = statistics.stdev(values) if len(values) > 1 else None
        result[name] = {"mean": statistics.fmean(values), "std": spread}
        if weights == "trained" and name in cells[0]["figures"]["random"]:
            gains = [cell["figures"]["trained"][name] - cell["figures"]["random"][name] for cell in cells]
            result[name]["gain"] = statistics.fmean(gains)
    return result


def markdown(report: dict[str, Any]) -> str:
    """One row a variant and kind of weights, or one column where there are many figures."""
    figures = list(dict.fromkeys(name for row in report["rows"] for name in row if name not in ROW_KEYS))
    data = report["data"]
    lines = [
        f"Percent (top-1: chance 8.3) after {report['steps']} steps of `{report['recipe']}` on Sounding",
        f"Shapes {data['nuisance']}, {data['train']} training clips: mean ± standard deviation over seeds;",
        "in brackets the gain over the same network with random weights.",
        "",
    ]
    table = [["features", "weights", "seeds", *map(heading, figures)]]
    for row in report["rows"]:
        table.append([*(str(row[key]) for key in ROW_KEYS), *(shown(row.get(name)) for name in figures)])
    if len(figures) > MOST_COLUMNS:
        table = [list(column) for column in zip(*table, strict=True)]
    table.insert(1, ["---"] * len(table[0]))
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join(lines) + "\n"


def heading(figure: str) -> str:
    """`validation_knn` as "validation kNN"."""
    split, _, name = figure.partition("_")
    return f"{split} {HEADINGS.get(name, name)}" if split in SPLITS else figure.replace("_", " ")


def shown(figure: dict[str, Any] | None) -> str:
    """A mean with its spread and its gain."""
    if figure is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.1f}"
    gain = f" ({round(figure['gain'], 1) + 0.0:+.1f})" if "gain" in figure else ""
    return f"{figure['mean']:.1f}{spread}{gain}"


if __name__ == "__main__":
    sys.exit(main())
