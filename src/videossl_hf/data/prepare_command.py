"""`videossl prepare`: re-encode videos for training, make their codes, or generate Sounding Shapes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigurationError
from .codes_command import CODES_ONLY, add_codes_arguments, run_codes
from .prepare import PrepareSettings, prepare_videos
from .sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from .transcripts.side_files import TranscriptSource

__all__ = ["add_arguments", "run"]

_SHAPES_ONLY = ("size", "seconds", "nuisance", "seed", "validation", "test", "sequences")
_VIDEOS_ONLY = ("short_side", "crf", "splits", "shards", "revision", "transcripts", "language")
_NOT_FOR_CODES = ("short_side", "crf", "transcripts", "language", "keyframe_distance", "sample_rate")
_BESIDE = ""  # --transcripts without a folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. What is not given is None, so that options of the other mode can be refused."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("source", nargs="?", help="folder, Parquet file or Hub id of the videos to re-encode")
    what.add_argument("--sounding-shapes", type=int, metavar="N", help="generate a set with N training clips")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--processes", type=int, default=2, help="processes that work at the same time (2)")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bars")
    parser.add_argument(
        "--fps", type=float, help="frames a second (videos: at most, by default all; codes: 2; shapes: 8)"
    )
    parser.add_argument(
        "--keyframe-distance", type=int, help="frames from one keyframe to the next (videos: 16, shapes: 8)"
    )
    parser.add_argument("--sample-rate", type=int, help="samples of sound a second (24000)")

    videos = parser.add_argument_group("re-encoding")
    videos.add_argument("--short-side", type=int, help="pixels of the shorter side (128)")
    videos.add_argument("--crf", type=int, help="quality of the picture, lower is better (18)")
    videos.add_argument("--splits", nargs="+", metavar="SPLIT", help="splits to prepare (train)")
    videos.add_argument("--shards", type=int, help="Parquet files a split (one for every thousand videos)")
    videos.add_argument("--revision", help="branch, tag or commit of a Hub dataset")

    videos.add_argument(
        "--transcripts", nargs="?", const=_BESIDE, metavar="FOLDER",
        help="write the column transcript, words with times: from the files in FOLDER named after the videos "
        "(clip.vtt, clip.en.json3, clip.srt, clip.json of Whisper or YT-Temporal); without FOLDER from the "
        "source's own column, else from files beside the videos. A video without one is left out",
    )  # fmt: skip
    videos.add_argument("--language", help="of several transcripts such as clip.en.vtt and clip.de.vtt")

    add_codes_arguments(parser)

    shapes = parser.add_argument_group("Sounding Shapes")
    shapes.add_argument("--validation", type=int, help="validation clips (a quarter of N)")
    shapes.add_argument("--test", type=int, help="test clips (a quarter of N)")
    shapes.add_argument("--size", type=int, help="height and width in pixels, even (48)")
    shapes.add_argument("--seconds", type=float, help="length of a motion (2)")
    shapes.add_argument("--nuisance", help="low, mid or full: how much of the picture says nothing (mid)")
    shapes.add_argument("--sequences", type=int, metavar="K", help="K different motions in each clip (1)")
    shapes.add_argument("--seed", type=int, help="of everything that is drawn (0)")


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say; returns the exit code."""
    console = Console()
    foreign: tuple[str, ...]
    if args.source is None:
        mode, foreign = "Sounding Shapes", (*_VIDEOS_ONLY, *CODES_ONLY)
    elif args.codes is None:
        mode, foreign = "re-encoding", (*_SHAPES_ONLY, *CODES_ONLY)
    else:
        mode, foreign = "--codes", (*_SHAPES_ONLY, *_NOT_FOR_CODES)
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(args, name) is not None]
    if given:
        raise ConfigurationError(f"{mode} knows no {', '.join(given)}: see videossl prepare --help")
    if args.source is None:
        _generate(args, console)
    elif args.codes is None:
        _reencode(args, console)
    else:
        run_codes(args, console)
    return 0


def _generate(args: argparse.Namespace, console: Console) -> None:
    quarter = args.sounding_shapes // 4
    clips = ClipSettings(
        **_given(args, "size", "fps", "seconds", "nuisance", "sample_rate", "seed"),
        **({} if args.sequences is None else {"motions": args.sequences}),
    )
    dataset = SoundingShapes(
        train=args.sounding_shapes,
        validation=quarter if args.validation is None else args.validation,
        test=quarter if args.test is None else args.test,
        clips=clips,
        **_given(args, "keyframe_distance"),
    )
    folder = write_sounding_shapes(
        args.output, dataset, processes=args.processes, show_progress=not args.quiet
    )
    counts = ", ".join(f"{count} {split}" for split, count in dataset.counts().items() if count)
    console.print(f"Sounding Shapes in {folder}: {counts} clips", soft_wrap=True, highlight=False)


def _reencode(args: argparse.Namespace, console: Console) -> None:
    settings = PrepareSettings(**_given(args, "short_side", "keyframe_distance", "fps", "sample_rate", "crf"))
    transcripts = None
    if args.transcripts is not None:
        transcripts = TranscriptSource(args.transcripts or None, args.language)
    elif args.language is not None:
        raise ConfigurationError("--language chooses among transcripts: give --transcripts too")
    report = prepare_videos(
        args.source,
        args.output,
        settings,
        transcripts=transcripts,
        **_given(args, "splits", "shards", "revision"),
        processes=args.processes,
        show_progress=not args.quiet,
    )
    for split, facts in report["splits"].items():
        reasons = ", ".join(f"{count} {error}" for error, count in facts["errors"].items())
        console.print(
            f"{split}: {facts['written']} of {facts['videos']} videos written"
            + (f", left out: {reasons}" if reasons else "")
            + (f", {facts['without_sound']} without sound" if facts["without_sound"] else ""),
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"Report: {args.output / 'report.json'}", soft_wrap=True, highlight=False)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The named arguments that were given on the command line."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
