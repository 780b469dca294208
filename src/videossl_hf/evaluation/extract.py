"""`videossl extract MODEL --data D --output FOLDER`: features of one split as safetensors shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from .inputs import FeatureSource, add_input_arguments

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl extract`."""
    add_input_arguments(parser)
    parser.add_argument("--split", default="train", help="split of the data (train)")
    parser.add_argument(
        "--space",
        choices=("features", "shared"),
        default="features",
        help="of the backbone, or where a pre-training model compares video and sound",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder; an interrupted run goes on there")
    parser.add_argument("--shard-size", type=int, default=1024, help="samples a file (1024)")


def run(args: argparse.Namespace) -> None:
    """Extract, or go on extracting, and say where the features lie."""
    source = FeatureSource(args)
    table = source.extract(
        args.split,
        source.clips(args.split),
        args.space,
        cache_dir=args.output,
        shard_size=args.shard_size,
        progress="Extracting features",
    ).table
    rows, width = table.features.shape
    seconds = table.info["seconds"]
    console = Console()
    console.print(f"{rows:,} features of width {width} in {args.output}", highlight=False)
    if seconds["model"]:
        console.print(
            f"decoding took {seconds['data']:.1f} s, the model {seconds['model']:.1f} s", highlight=False
        )
    for skipped in table.info["skipped"]:
        console.print(f"[yellow]left out[/] {skipped['key']}: {skipped['reason']}", highlight=False)
