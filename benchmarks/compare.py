"""All methods, and what they are held against, on the same clips: `python benchmarks/compare.py --seeds 3
--jobs 2`.

Rows and settings stand in comparison.yaml. Every row is trained from random weights (ILA from a tower that
knows single frames, VIMPAC on codes of a tokeniser trained before) and scored as frozen features by kNN and
by a linear probe whose penalty is chosen on validation, beside the same network with random weights and
beside hand-made frame differences. There are two tables: by equal steps, and by equal operations in training
(forward and backward, counted by torch; optimisers, decoding and what comes before are not).

What will be run and how long it takes is printed first (`--plan` stops there). A cell (row, level, seed,
table) that is finished is not run again, a training that was broken off goes on. Writes results/compare.json,
the tables as results/compare.md, and a page with charts as results/compare.html.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videossl_hf.data.sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from videossl_hf.evaluation.loading import load_model
from videossl_hf.evaluation.results import installed_versions, read_results
from videossl_hf.training.processors import make_processor
from videossl_hf.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "training/recipes"
PLAN = ROOT / "benchmarks/comparison.yaml"
PEER_PROCESSOR = "videomoco/smoke.yaml"
TABLES = {"steps": "equal steps", "operations": "equal operations"}
HAND_MADE = "frame difference"
CELL_KEYS = ("figures", "parameters", "cpu_seconds")
# Counts the operations of steps of a recipe, and times a step, in a process of its own.
MEASURE = """
import json, sys, time
from rich.console import Console
from videossl_hf.evaluation.cost import flop_counter
from videossl_hf.training.finetune import finetune
from videossl_hf.training.pretrain import pretrain
from videossl_hf.training.recipe import load_recipe
output, recipe, *overrides = sys.argv[1:]
def train(name, steps):
    own = ["--training.max_steps", str(steps), "--training.output_dir", f"{output}/{name}",
           "--evaluation.knn_every", "null", "--evaluation.accuracy_every", "null"]
    made = load_recipe(recipe, [*overrides, *own])
    started = time.process_time()
    run = finetune if made.task == "classification" else pretrain
    run(made, resume="never", console=Console(quiet=True))
    return time.process_time() - started
with flop_counter() as counter:
    train("counted", 2)
short, long = train("short", 1), train("long", 5)
seconds = max(long - short, 0.0) / 4
print(json.dumps({"flop_per_step": counter.get_total_flops() / 2, "seconds_per_step": seconds}))
"""


@dataclass(frozen=True)
class Cell:
    """One training and its scores."""

    row: str
    level: str
    seed: int
    table: str
    steps: int

    @property
    def name(self) -> str:
        """Of its folder; cells of both tables with equally many steps are one training."""
        return f"{self.level}/{words_of(self.row)}-{self.steps}-steps-{self.seed}"


def main() -> int:
    """Prepare, measure, say what comes, run what is missing, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of a row, seeds 0 to SEEDS-1 (3)")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each (2)")
    parser.add_argument("--steps", type=int, help="of every row (as comparison.yaml says)")
    parser.add_argument("--clips", type=int, help="training clips to generate (as comparison.yaml says)")
    parser.add_argument("--levels", nargs="+", help="of the clips (as comparison.yaml says)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="both by default")
    parser.add_argument("--work", type=Path, default=Path("outputs/compare"), help="data and runs")
    parser.add_argument("--output", type=Path, default=Path("results/compare.json"), help="results file")
    parser.add_argument("--plan", action="store_true", help="measure, print what would be run, and stop")
    args = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    for key in ("steps", "clips", "levels"):
        setattr(args, key, getattr(args, key) or plan[key])
    args.work, args.all_rows, args.most_steps = args.work.resolve(), plan["rows"], plan["most_steps"]
    unknown = set(args.rows or ()) - plan["rows"].keys()
    if unknown:
        parser.error(f"unknown rows {sorted(unknown)}; there are {list(plan['rows'])}")
    chosen = args.rows or list(plan["rows"])
    os.environ["OMP_NUM_THREADS"] = "1"
    for level in args.levels:
        prepare_level(args, level, chosen)
    costs = {row: measure(args, row) for row in dict.fromkeys([*chosen, plan["budget_of"]])}
    budget = args.steps * costs[plan["budget_of"]]["flop_per_step"]
    cells = []
    for level in args.levels:
        for row in chosen:
            equal = max(1, min(round(budget / costs[row]["flop_per_step"]), args.most_steps))
            steps = {"steps": args.steps, "operations": equal}
            cells += [
                Cell(row, level, seed, table, steps[table])
                for table in args.tables
                for seed in range(args.seeds)
            ]
    todo = list({cell.name: cell for cell in cells if read_cell(args, cell) is None}.values())
    announce(args, cells, todo, costs, budget)
    if args.plan:
        return 0
    with ThreadPoolExecutor(args.jobs) as pool:
        errors = list(pool.map(lambda cell: try_cell(args, cell), todo))
    failed = [cell.name for cell, error in zip(todo, errors, strict=True) if error]
    for level in args.levels:
        score_hand_made(args, level)
    write_tables(args, [cell for cell in cells if read_cell(args, cell) is not None], costs, budget)
    if failed:
        print(
            f"failed: {', '.join(failed)}; see log.txt in their folders, and run this again", file=sys.stderr
        )
    return 1 if failed else 0


def filled(args: argparse.Namespace, text: str, row: str, level: str, steps: int = 0) -> list[str]:
    """The words of a command line, with folders, level and steps in their places."""
    own = args.work / level / "before" / words_of(row)
    text = re.sub(r"\{steps:([\d.]+)\}", lambda match: str(round(float(match[1]) * steps)), text)
    places = {"{data}": args.work / level / "data", "{work}": own, "{level}": level}
    words = shlex.split(text)
    for place, value in places.items():
        words = [word.replace(place, str(value)) for word in words]
    return words


def prepare_level(args: argparse.Namespace, level: str, rows: list[str]) -> None:
    """The clips, the processor that peers and frame differences take, and what comes before trainings."""
    quarter = args.clips // 4
    shapes = SoundingShapes(args.clips, quarter, quarter, ClipSettings(nuisance=level))
    write_sounding_shapes(args.work / level / "data", shapes, processes=args.jobs)
    recipe = load_recipe(RECIPES / PEER_PROCESSOR)
    make_processor(recipe.method, recipe.make_config(), recipe.processor).save_pretrained(
        args.work / level / "processor"
    )
    for row in rows:
        for number, text in enumerate(args.all_rows[row].get("before", [])):
            command = filled(args, text, row, level)
            own = args.work / level / "before" / words_of(row)
            done = own / f"{number}.json"
            if done.is_file() and json.loads(done.read_text())["command"] == command:
                continue
            own.mkdir(parents=True, exist_ok=True)
            seconds = run_logged([sys.executable, *command], own / "log.txt")
            done.write_text(json.dumps({"command": command, "cpu_seconds": round(seconds, 1)}) + "\n")


def run_logged(command: list[str], log: Path) -> float:
    """CPU seconds of a command on one thread, whose output goes to a file."""
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return cpu_seconds(usage)


def cpu_seconds(usage: resource.struct_rusage) -> float:
    """Of a process and its children."""
    return usage.ru_utime + usage.ru_stime


def training_command(
    args: argparse.Namespace, row: str, level: str, output: Path, steps: int, seed: int
) -> list[str]:
    """What trains a cell, as a user would call it."""
    settings, data = args.all_rows[row], args.work / level / "data"
    if "peer" in settings:
        script = [str(ROOT / "benchmarks/compare_peers.py"), settings["peer"], "--data", str(data)]
        script += ["--processor", str(args.work / level / "processor"), "--output", str(output)]
        return [sys.executable, *script, "--steps", str(steps), "--seed", str(seed)]
    recipe = RECIPES / settings["recipe"]
    overrides = ["--data.train", str(data), *filled(args, settings.get("overrides", ""), row, level, steps)]
    script = ROOT / "training" / ("finetune.py" if is_supervised(recipe, overrides) else "pretrain.py")
    return [
        *(sys.executable, str(script), str(recipe), *overrides, "--training.output_dir", str(output)),
        *("--training.max_steps", str(steps), "--training.seed", str(seed), "--training.device", "cpu"),
        *("--evaluation.knn_every", "null", "--evaluation.accuracy_every", "null"),
    ]


def is_supervised(recipe: Path, overrides: list[str]) -> bool:
    """Whether training/finetune.py runs it."""
    return load_recipe(recipe, overrides).task == "classification"


def measure(args: argparse.Namespace, row: str) -> dict[str, float]:
    """Operations and CPU seconds of a training step, once."""
    settings, level = args.all_rows[row], args.levels[0]
    folder = args.work / "costs" / words_of(row)
    path = folder / "cost.json"
    state = {"settings": settings, "clips": args.clips, "level": level}
    if path.is_file() and (kept := json.loads(path.read_text())).get("state") == state:
        return kept["cost"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if row not in (args.rows or args.all_rows):
        prepare_level(args, level, [row])
    if "peer" in settings:
        command = training_command(args, row, level, folder / "steps", 8, 0)
        subprocess.run([*command, "--measure"], check=True, cwd=ROOT)
        cost = json.loads((folder / "steps/cost.json").read_text())
        one, many = (run_logged([*command, "--steps", str(n)], folder / "log.txt") for n in (1, 9))
        cost["seconds_per_step"] = max(many - one, 0.0) / 8
    else:
        overrides = ["--data.train", str(args.work / level / "data"), "--training.device", "cpu"]
        overrides += filled(
            args, f"{settings.get('overrides', '')} {settings.get('measure', '')}", row, level, 8
        )
        command = [sys.executable, "-c", MEASURE, str(folder), str(RECIPES / settings["recipe"]), *overrides]
        done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        cost = json.loads(done.stdout.strip().splitlines()[-1])
    path.write_text(json.dumps({"state": state, "cost": cost}) + "\n")
    return cost


def announce(
    args: argparse.Namespace, cells: list[Cell], todo: list[Cell], costs: dict[str, Any], budget: float
) -> None:
    """The plan, and the time it takes."""
    # CPU seconds to start, and to decode and embed all clips: once trained, and every other time untrained.
    scoring = 1.5 * (10 + 0.01 * args.clips)
    seconds = [cell.steps * costs[cell.row]["seconds_per_step"] + scoring for cell in todo]
    print(f"{len(cells)} cells, {len(todo)} trainings to do; equal operations: {budget / 1e12:.2f} TFLOP")
    print(f"{'row':26}{'GFLOP/step':>12}{'s/step':>9}  steps")
    for row, cost in costs.items():
        steps = " / ".join(str(n) for n in dict.fromkeys(cell.steps for cell in cells if cell.row == row))
        print(f"{row:26}{cost['flop_per_step'] / 1e9:12.2f}{cost['seconds_per_step']:9.3f}  {steps}")
    hours = sum(seconds) / 3600
    longest = max(seconds, default=0.0)
    print(
        f"time budget: {hours:.1f} CPU hours, {hours / args.jobs:.1f} hours with {args.jobs} cells at once; "
        f"the longest cell {longest / 60:.1f} CPU minutes",
        flush=True,
    )


def state_of(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """All that a cell depends on: a finished one with another state does not count."""
    settings = args.all_rows[cell.row]
    recipe = (RECIPES / settings["recipe"]).read_text(encoding="utf-8") if "recipe" in settings else ""
    return {
        "settings": settings,
        "recipe": recipe,
        "clips": args.clips,
        "steps": cell.steps,
        "seed": cell.seed,
    }


def read_cell(args: argparse.Namespace, cell: Cell) -> dict[str, Any] | None:
    """What a finished cell found, or None."""
    path = args.work / cell.name / "cell.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if found["state"] == state_of(args, cell) else None


def try_cell(args: argparse.Namespace, cell: Cell) -> bool:
    """Run a cell; True if it failed."""
    started = time.perf_counter()
    try:
        run_cell(args, cell)
    except subprocess.CalledProcessError as error:
        print(f"{cell.name}: failed with exit code {error.returncode}", flush=True)
        return True
    print(f"{cell.name}: done in {time.perf_counter() - started:.0f} s", flush=True)
    return False


def run_cell(args: argparse.Namespace, cell: Cell) -> None:
    """Train (or go on training) and score by the public commands."""
    folder = args.work / cell.name
    state = state_of(args, cell)
    prepare_folder(folder, state)
    run, log = folder / "run", folder / "log.txt"
    seconds = run_logged(training_command(args, cell.row, cell.level, run, cell.steps, cell.seed), log)
    for part in run.glob("checkpoint-*"):
        shutil.rmtree(part)
    processor = ["--processor", str(args.work / cell.level / "processor")]
    own = processor if "peer" in args.all_rows[cell.row] else []
    evaluate(args, cell.level, str(run), folder / "trained.json", cell.seed, own, log)
    # What random weights score does not depend on the steps: both tables share it.
    random = args.work / cell.level / "random" / f"{words_of(cell.row)}-{cell.seed}" / "results.json"
    prepare_folder(random.parent, {name: value for name, value in state.items() if name != "steps"})
    if not random.is_file():
        evaluate(args, cell.level, str(run), random, cell.seed, [*own, "--random-weights"], log)
    figures = {"trained": figures_of(folder / "trained.json"), "random": figures_of(random)}
    parameters = sum(parameter.numel() for parameter in load_model(str(run)).parameters())
    content = {"state": state, "figures": figures, "parameters": parameters, "cpu_seconds": round(seconds, 1)}
    part = folder / "cell.json.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "cell.json")


def words_of(row: str) -> str:
    """A row's name as part of a file name."""
    return re.sub(r"\W+", "-", row.lower())


def prepare_folder(folder: Path, state: dict[str, Any]) -> None:
    """Make a folder, or empty it if what lies there was made from another state."""
    kept = folder / "state.json"
    if not kept.is_file() or json.loads(kept.read_text()) != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kept.write_text(json.dumps(state) + "\n", encoding="utf-8")


def evaluate(
    args: argparse.Namespace, level: str, model: str, output: Path, seed: int, options: list[str], log: Path
) -> None:
    """`videossl evaluate`, kNN and linear probe on the test clips."""
    output.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "videossl_hf.cli",
        "evaluate",
        model,
        "--data",
        str(args.work / level / "data"),
    ]
    command += ["--protocol", "knn", "linear", "--validation-split", "validation", "--device", "cpu"]
    run_logged([*command, "--seed", str(seed), "--output", str(output), *options], log)


def figures_of(path: Path) -> dict[str, float]:
    """Top-1 in percent by protocol."""
    return {result.protocol["name"]: round(result.figures["top1"].value, 2) for result in read_results(path)}


def score_hand_made(args: argparse.Namespace, level: str) -> None:
    """Frame differences see what peers see."""
    folder = args.work / level / "frame-difference"
    prepare_folder(folder, {"clips": args.clips})
    if not (folder / "results.json").is_file():
        options = ["--processor", str(args.work / level / "processor")]
        evaluate(args, level, "frame-difference", folder / "results.json", 0, options, folder / "log.txt")


def write_tables(args: argparse.Namespace, cells: list[Cell], costs: dict[str, Any], budget: float) -> None:
    """compare.json, compare.md and the page."""
    found = {cell: read_cell(args, cell) for cell in cells}
    hand_made = {
        level: figures_of(args.work / level / "frame-difference/results.json") for level in args.levels
    }
    rows = []
    for table in args.tables:
        for row in dict.fromkeys(cell.row for cell in cells):
            own = [cell for cell in cells if (cell.row, cell.table) == (row, table)]
            if own:
                rows.append(summary(args, row, table, own, found, costs))
    report = {
        "clips": args.clips,
        "levels": args.levels,
        "seeds": args.seeds,
        "steps": args.steps,
        "budget_flop": budget,
        "most_steps": args.most_steps,
        "rows": rows,
        "hand_made": {HAND_MADE: hand_made},
        "before_cpu_seconds": before_seconds(args),
        "cells": [vars(cell) | {key: found[cell][key] for key in CELL_KEYS} for cell in cells],
        "versions": installed_versions(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    args.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    draw_page(args, cells)
    print(f"written to {args.output}, .md and .html beside it")


def summary(
    args: argparse.Namespace,
    row: str,
    table: str,
    cells: list[Cell],
    found: dict[Cell, Any],
    costs: dict[str, Any],
) -> dict[str, Any]:
    """Means and spreads over seeds of a row in a table."""
    figures: dict[str, Any] = {}
    for level in args.levels:
        own = [found[cell] for cell in cells if cell.level == level]
        for protocol in ("knn", "linear") if own else ():
            trained, random = (
                [cell["figures"][weights][protocol] for cell in own] for weights in ("trained", "random")
            )
            figures[f"{level} {protocol}"] = {
                "mean": statistics.fmean(trained),
                "std": statistics.stdev(trained) if len(trained) > 1 else None,
                "random": statistics.fmean(random),
            }
    return {
        "row": row,
        "table": table,
        "saw": args.all_rows[row]["saw"],
        "parameters": found[cells[0]]["parameters"],
        "steps": cells[0].steps,
        "flop": cells[0].steps * costs[row]["flop_per_step"],
        "cpu_seconds": statistics.fmean(found[cell]["cpu_seconds"] for cell in cells),
        "figures": figures,
    }


def before_seconds(args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of what came before the trainings of a row, means over levels."""
    seconds: dict[str, list[float]] = {}
    for row in args.all_rows:
        for level in args.levels:
            own = args.work / level / "before" / words_of(row)
            parts = [json.loads(path.read_text())["cpu_seconds"] for path in own.glob("*.json")]
            if parts:
                seconds.setdefault(row, []).append(sum(parts))
    return {row: round(statistics.fmean(parts), 1) for row, parts in seconds.items()}


def markdown(report: dict[str, Any]) -> str:
    """Both tables."""
    levels = report["levels"]
    headings = [f"{level} {name}" for level in levels for name in ("kNN", "probe")]
    keys = [f"{level} {protocol}" for level in levels for protocol in ("knn", "linear")]
    lines = [
        "Test top-1 in percent (chance 8.3) of frozen features on Sounding Shapes,",
        f"{report['clips']} training clips; mean ± standard deviation over seeds, in brackets the",
        "gain over the same network with random weights. *saw*: supervision in training. Operations",
        "are those of training steps, CPU seconds those of the training process on one thread; + what",
        "came before (a tokeniser, a tower, told sequences).",
    ]
    before = report["before_cpu_seconds"]
    for table in dict.fromkeys(row["table"] for row in report["rows"]):
        budget, most = report["budget_flop"] / 1e12, report["most_steps"]
        limits = (
            f" ({budget:.1f} TFLOP; no row takes more than {most} steps)" if table == "operations" else ""
        )
        lines += ["", f"By {TABLES[table]}{limits}:", ""]
        lines.append(f"| features | saw | parameters | steps | TFLOP | CPU s | {' | '.join(headings)} |")
        lines.append("|---" * (6 + len(headings)) + "|")
        for row in (row for row in report["rows"] if row["table"] == table):
            extra = f" + {before[row['row']]:.0f}" if row["row"] in before else ""
            cells = [shown(row["figures"].get(key)) for key in keys]
            lines.append(
                f"| {row['row']} | {row['saw']} | {row['parameters'] / 1e6:.2f} M | {row['steps']} "
                f"| {row['flop'] / 1e12:.2f} | {row['cpu_seconds']:.0f}{extra} | {' | '.join(cells)} |"
            )
        for name, figures in report["hand_made"].items():
            cells = [f"{figures[level][protocol]:.1f}" for level in levels for protocol in ("knn", "linear")]
            lines.append(f"| {name} | none | 0 | | | | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(figure: dict[str, Any] | None) -> str:
    """A mean with its spread and its gain."""
    if figure is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.1f}"
    return f"{figure['mean']:.1f}{spread} ({round(figure['mean'] - figure['random'], 1) + 0.0:+.1f})"


def draw_page(args: argparse.Namespace, cells: list[Cell]) -> None:
    """`videossl compare` of the first table, seeds under one name, each with the supervision that it saw."""
    table = args.tables[0]
    saw = {row: "" if "supervised" in row else f" ({args.all_rows[row]['saw']})" for row in args.all_rows}
    runs = [
        f"{cell.row}{saw[cell.row]}={args.work / cell.name / 'trained.json'}"
        for cell in cells
        if cell.table == table
    ]
    runs += [f"{HAND_MADE}={args.work / level / 'frame-difference/results.json'}" for level in args.levels]
    folder = args.work / "page"
    command = [sys.executable, "-m", "videossl_hf.cli", "compare", *runs, "--reference", HAND_MADE]
    run_logged([*command, "--output", str(folder)], args.work / "page.txt")
    page = (folder / "report.html").read_text(encoding="utf-8")
    # Where the work lies on this machine is nobody's business.
    args.output.with_suffix(".html").write_text(page.replace(f"{args.work}/", ""), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
