"""ILA on a few labelled real videos: fine-tuned and cross-validated beside the same tower's averaged frames.

    python training/frame_stage.py --output outputs/frame-clip
    python benchmarks/ila_gestures.py FOLDER --frames outputs/frame-clip

FOLDER holds one folder of clips a class. The clips of each class are dealt out to the folds; every fold is
scored by a model that was fine-tuned on the others, with settings that were fixed beforehand: ILA from the
small stand-in for CLIP that `training/frame_stage.py` wrote, and that tower with its frames averaged, which
cannot tell a movement from its reverse. `--shapes RUN` adds ILA from a smoke run's folder, which has learned
generated motions. Writes results/ila-gestures.json and its table as results/ila-gestures.md; a run that was
broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.bootstrap import bootstrap_interval
from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.features import extract_features
from videossl_hf.evaluation.loading import load_model, load_processor, quiet_libraries
from videossl_hf.evaluation.results import installed_versions
from videossl_hf.evaluation.scores import top_k_hits
from videossl_hf.training.finetune import finetune
from videossl_hf.training.recipe import load_recipe

RECIPE = Path(__file__).resolve().parents[1] / "training/recipes/ila/smoke.yaml"
COMMON = {
    "training.max_steps": 150,
    "training.batch_size": 20,
    "training.save_steps": 150,
    "training.logging_steps": 50,
    "schedule.warmup_steps": 15,
    "augmentation.decode_short_side": 40,
    "augmentation.scales": "[1.0, 0.875]",
    "augmentation.jitter_probability": 0.8,
    "evaluation.accuracy_every": "null",
}
AVERAGED = {
    "model.skip_lr_factor": 0,
    "model.aligner_lr_factor": 0,
    "model.align_loss_weight": 0,
    "model.mit_num_layers": 0,
}
VIEWS = "4x3"


def main() -> None:
    """Cross-validate the three models, write the results file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="one folder of clips a class")
    parser.add_argument("--frames", type=Path, required=True, help="what training/frame_stage.py wrote")
    parser.add_argument("--shapes", type=Path, help="also start from this folder of a smoke run")
    parser.add_argument("--folds", type=int, default=4, help="parts that each are scored once (4)")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (0)")
    parser.add_argument("--work", type=Path, default=Path("outputs/ila-gestures"), help="splits and runs")
    parser.add_argument("--output", type=Path, default=Path("results/ila-gestures.json"))
    args = parser.parse_args()
    models: dict[str, dict[str, Any]] = {
        "ILA": {"training.init_from": args.frames},
        "frames averaged": {"training.init_from": args.frames, **AVERAGED},
    }
    if args.shapes:
        models["ILA after generated motions"] = {"training.init_from": args.shapes}
    counts = write_folds(args.folder, args.work, args.folds)
    report = {
        "data": {"name": args.folder.name, "classes": len(counts), "clips": sum(counts.values())},
        "chance": round(100 / len(counts), 2),
        "folds": args.folds,
        "seed": args.seed,
        "views": VIEWS,
        "settings": {key: str(value) for key, value in COMMON.items()},
        "models": {},
        "versions": installed_versions(),
    }
    for name, settings in models.items():
        folds = [score_fold(args, name, settings, fold) for fold in range(args.folds)]
        report["models"][name] = figures(torch.cat(folds))
        Console().print(name, report["models"][name], highlight=False)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    args.output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def write_folds(folder: Path, work: Path, folds: int) -> dict[str, int]:
    """For every fold a folder whose splits are links to the clips; returns the number of clips a class."""
    counts = {}
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        clips = [path for path in kind.iterdir() if not path.name.startswith(".")]
        clips.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", path.stem)])
        counts[kind.name] = len(clips)
        for fold in range(folds):
            for number, clip in enumerate(clips):
                split = "test" if number % folds == fold else "train"
                link = work / f"fold-{fold}" / split / kind.name / clip.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(clip.resolve())
    return counts


def score_fold(args: argparse.Namespace, name: str, settings: dict[str, Any], fold: int) -> Tensor:
    """Fine-tune on the other folds; whether each clip of this one is right, as 0 or 1."""
    data = args.work / f"fold-{fold}"
    run = args.work / f"{'-'.join(name.lower().split())}-{fold}"
    own = {"data.train": data, "training.output_dir": run, "training.seed": args.seed}
    options = [part for key, value in (COMMON | settings | own).items() for part in (f"--{key}", str(value))]
    finetune(load_recipe(RECIPE, options), console=Console(quiet=True))
    with quiet_libraries():
        processor = load_processor(str(run))
        clips = PreparedClips(processor, load_videos(str(data), "test"), views=VIEWS)
        model = load_model(str(run), for_classification=True)
        table = extract_features(model, processor, clips, space="probabilities")
    return top_k_hits(table.features, table.labels).double()


def figures(hits: Tensor) -> dict[str, Any]:
    """Top-1 in percent over all clips, and its 95 % interval."""
    low, high = bootstrap_interval(100 * hits)
    return {"top1": round(100 * hits.mean().item(), 2), "low": round(low, 2), "high": round(high, 2)}


def markdown(report: dict[str, Any]) -> str:
    """The table that documents show."""
    data = report["data"]
    lines = [
        f"| {data['clips']} clips, {data['classes']} classes | top-1, % | 95 % interval |",
        "|---|---|---|",
        *(
            f"| {name} | {own['top1']:.1f} | {own['low']:.1f} to {own['high']:.1f} |"
            for name, own in report["models"].items()
        ),
        f"| chance | {report['chance']:.1f} | |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
