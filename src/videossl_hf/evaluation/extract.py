"""`videossl extract MODEL --data D --output FOLDER`: features of one split as safetensors shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from .inputs import FeatureSource, add_input_arguments
from .processes import Processes

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl extract`."""
    add_input_arguments(parser)
    parser.add_argument("--split", default="train", help="split of the data (train)")
    parser.add_argument(
        "--space",
        choices=("features", "mean", "tokens", "shared"),
        default="features",
        help="pooled by the backbone, the mean of its tokens, the tokens themselves, or where a pre-training "
        "model compares video and sound",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder; an interrupted run goes on there")
    parser.add_argument("--shard-size", type=int, default=1024, help="samples a file (1024)")


def run(args: argparse.Namespace) -> None:
    """Extract, or go on extracting, and say where the features lie.

    Every process of `accelerate launch training/extract.py` calls this; the first one reports.
    """
    source = FeatureSource(args)
    table = source.extract(
        args.split,
        source.clips(args.split),
        args.space,
        cache_dir=args.output,
        shard_size=args.shard_size,
        progress="Extracting features",
    ).table
    if not Processes.of_this_run(source.device).is_main:
        return
    rows, *shape = table.features.shape
    seconds = table.info["seconds"]
    console = Console()
    what = (
        f"features of width {shape[0]}" if len(shape) == 1 else f"times {shape[0]} tokens of width {shape[1]}"
    )
    console.print(f"{rows:,} {what} in {args.output}", highlight=False)
    if seconds["model"]:
        console.print(
            f"waited {seconds['data']:.1f} s for clips, the model took {seconds['model']:.1f} s",
            highlight=False,
        )
    for skipped in table.info["skipped"]:
        console.print(f"[yellow]left out[/] {skipped['key']}: {skipped['reason']}", highlight=False)
