"""Train, stop, resume, evaluate, save and reload one method: `python training/smoke.py stica --seeds 3`.

For every seed: a random network and the trained one, both scored on the test clips by kNN and by a linear
probe whose penalty is chosen on validation, beside hand-made frame differences. Each training is killed after
its first checkpoint and goes on from there. The saved folder is loaded again in a process of its own and must
give the same features, bit for bit. What the clips look like, what runs before the trainings and what else is
scored stands in recipes/smoke_runs.yaml. Figures and means go to results/smoke-METHOD.json. Ablations of
equal length are variants:

    python training/smoke.py stica --variant gdt="--model.objective gdt" \\
        --variant average="--model.pooling_layers 0"
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from videossl_hf.data.datasets import load_videos
from videossl_hf.errors import CheckpointError, VideoSSLError
from videossl_hf.evaluation.loading import load_model, load_processor, quiet_libraries
from videossl_hf.evaluation.results import installed_versions
from videossl_hf.training.checkpoints import list_checkpoints
from videossl_hf.training.smoke_runs import FeatureScores, SmokeRun, read_smoke_run

HERE = Path(__file__).resolve().parent

# What a stranger does with the folder: nothing imported but the package (or not even that, with remote code).
RELOAD = """
import sys, torch, videossl_hf
from transformers import AutoModel, AutoProcessor
folder, clip, features = sys.argv[1:]
model = AutoModel.from_pretrained(folder).eval()
inputs = AutoProcessor.from_pretrained(folder)(videos=[clip])
inputs = {name: inputs[name] for name in ("pixel_values_videos", "input_codes") if name in inputs}
with torch.no_grad():
    computed = model(**inputs).pooler_output
sys.exit(0 if torch.equal(computed, torch.load(features, weights_only=True)) else 1)
"""


def main() -> int:
    """Parse, run everything, write the results file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", help="a folder under training/recipes")
    parser.add_argument("--seeds", type=int, default=3, help="trainings, seeds 0 to SEEDS-1 (3)")
    parser.add_argument("--work", type=Path, help="folder of clips and runs (outputs/smoke-METHOD)")
    parser.add_argument("--clips", type=int, help="training clips to generate (as smoke_runs.yaml says)")
    parser.add_argument("--nuisance", help="low, mid or full clips, instead of what smoke_runs.yaml says")
    parser.add_argument("--output", type=Path, help="results file (results/smoke-METHOD.json)")
    parser.add_argument(
        "--set", default="", metavar="OVERRIDES", help="recipe keys of every run, in one string"
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME=OVERRIDES", help="also train this ablation"
    )
    args = parser.parse_args()
    try:
        smoke(args)
    except VideoSSLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def smoke(args: argparse.Namespace) -> None:
    """All seeds of all variants."""
    console = Console()
    plan = read_smoke_run(HERE / "recipes/smoke_runs.yaml", args.method)
    if args.nuisance:
        plan = dataclasses.replace(plan, data={**plan.data, "nuisance": args.nuisance})
    recipe_file = HERE / "recipes" / args.method / "smoke.yaml"
    output = args.output or Path("results") / f"smoke-{args.method}.json"
    work = (args.work or Path("outputs") / f"smoke-{args.method}").resolve()
    data = work / "data"
    with quiet_libraries():
        plan.prepare(HERE.parent, data, work, clips=args.clips, show_progress=console.is_terminal)
    common = [*plan.recipe_overrides(data, work), *shlex.split(args.set)]
    variants = {args.method: ""} | dict(variant.split("=", 1) for variant in args.variant)

    runs = []
    for name, extra in variants.items():
        for seed in range(args.seeds):
            folder = work / f"{name}-{seed}"
            overrides = [*common, *shlex.split(extra), "--training.seed", str(seed)]
            command = [sys.executable, str(HERE / plan.script), str(recipe_file), *overrides]
            run = train(command, folder, data)
            run |= evaluate(plan, folder, data, work, seed)
            runs.append({"variant": name, "seed": seed, **run})
            console.print({key: value for key, value in runs[-1].items() if not isinstance(value, list)})
    report = {
        "recipe": recipe_file.relative_to(HERE.parent).as_posix(),
        "data": {"sounding_shapes": plan.shapes(args.clips).settings()},
        "variants": variants,
        "overrides": args.set,
        "runs": runs,
        "means": {name: means([run for run in runs if run["variant"] == name]) for name in variants},
        "versions": installed_versions(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(console, report)
    console.print(f"written to {output}", highlight=False)


def train(command: list[str], folder: Path, data: Path) -> dict[str, Any]:
    """Train in a process of its own that is killed once and goes on; then reload in another."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [*command, "--training.output_dir", str(folder)]
    started = time.perf_counter()
    killed_at = train_and_kill(command, folder)
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    if not reloads_identically(folder, data):
        raise CheckpointError(f"{folder} loaded in another process gives other features than in this one")
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": max(entry["step"] for entry in log),
        "killed_after_step": killed_at,
        "training_seconds": round(seconds, 1),
        "reloaded_bit_identical": True,
        "curve": [[entry["step"], entry["eval_knn_top1"]] for entry in log if "eval_knn_top1" in entry],
        "loss": [[entry["step"], entry["loss"]] for entry in log if "loss" in entry],
    }


def train_and_kill(command: list[str], folder: Path) -> int | None:
    """Start the training and send SIGKILL to it and its children when the first checkpoint is complete."""
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        checkpoints = list_checkpoints(folder)
        if checkpoints:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return int(checkpoints[-1].name.rsplit("-", 1)[-1])
        time.sleep(0.5)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return None  # it was over before there was anything to kill


def evaluate(plan: SmokeRun, folder: Path, data: Path, work: Path, seed: int) -> dict[str, float]:
    """Figures in percent on the test clips, of random and trained weights and of frame differences."""
    with quiet_libraries():
        models = {
            "random": load_model(str(folder), random_weights=True, seed=seed),
            "trained": load_model(str(folder)),
            "frame_difference": load_model("frame-difference"),
        }
        scores = FeatureScores(folder, data)
    figures = {name: scores.of(model) for name, model in models.items()}
    for name in ("random", "trained"):
        random = name == "random"
        figures[name] |= plan.further_scores(folder, data, work, random_weights=random, seed=seed)
    by_name = {
        f"{name}_{figure.removeprefix('test_')}": value
        for name, own in figures.items()
        for figure, value in own.items()
    }
    return by_name | {f"trained_{name}": value for name, value in plan.last_metrics(folder).items()}


def reloads_identically(folder: Path, data: Path) -> bool:
    """Whether a fresh process that loads the folder computes the same features of a clip."""
    clip = load_videos(str(data), "test")[0]["video"]["path"]
    with quiet_libraries(), torch.no_grad():
        inputs = load_processor(str(folder))(videos=[clip])
        inputs = {name: inputs[name] for name in ("pixel_values_videos", "input_codes") if name in inputs}
        features = load_model(str(folder))(**inputs).pooler_output
    torch.save(features, folder / "expected_features.pt")
    command = [sys.executable, "-c", RELOAD, str(folder), clip, str(folder / "expected_features.pt")]
    same = subprocess.run(command).returncode == 0
    (folder / "expected_features.pt").unlink()
    return same


def means(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Mean over seeds of every figure, and of what training adds to random weights."""
    names = [name for name in runs[0] if name.startswith(("random_", "trained_", "frame_difference_"))]
    result = {name: statistics.fmean(run[name] for run in runs) for name in names}
    for figure in [name.removeprefix("random_") for name in names if name.startswith("random_")]:
        result[f"gain_{figure}"] = result[f"trained_{figure}"] - result[f"random_{figure}"]
    return {name: round(value, 2) for name, value in result.items()}


def show(console: Console, report: dict[str, Any]) -> None:
    """The means as a table."""
    table = Table(title="On the test clips, means over seeds", title_justify="left")
    table.add_column("figure")
    for name in report["means"]:
        table.add_column(name, justify="right")
    for figure in next(iter(report["means"].values())):
        values = (f"{means[figure]:.1f}" for means in report["means"].values())
        table.add_row(figure.replace("_", " "), *values)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
