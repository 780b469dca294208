"""The command line: `videossl COMMAND ...`.

Every command lies beside what it does, in a module with `add_arguments(parser)` and `run(args)`; this file
knows their names, one line of help and an example of each. A module is imported when its command is called,
so that the help of one does not wait for the libraries of another. `videossl_launcher` runs this file
without importing the package, which leaves `videossl --help` as fast as Python itself: hence no import of
ours at the top.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """Where a command lies, what it does in a few words, and a call that a user could make."""

    module: str
    summary: str
    example: str


COMMANDS = {
    "demo": Command(
        "demo",
        "train, evaluate and reload a small model on generated clips, with a report in HTML",
        "videossl demo --output outputs/demo",
    ),
    "prepare": Command(
        "data.prepare_command",
        "re-encode videos for training, make their codes, or generate Sounding Shapes",
        "videossl prepare --sounding-shapes 2000 --output data/shapes",
    ),
    "pretrain": Command(
        "training.pretrain",
        "pre-train a method from a recipe",
        "videossl pretrain training/recipes/stica/smoke.yaml --training.max_steps 100",
    ),
    "finetune": Command(
        "training.finetune_command",
        "train a classifier on labelled videos",
        "videossl finetune training/recipes/ila/adapt.yaml --data.train my_videos",
    ),
    "evaluate": Command(
        "evaluation.evaluate",
        "score a model: kNN, linear probe and retrieval of its features, or its own classifier",
        "videossl evaluate outputs/run --data data/shapes --protocol knn",
    ),
    "extract": Command(
        "evaluation.extract",
        "write the features of a dataset to safetensors files",
        "videossl extract outputs/run --data data/shapes --output features",
    ),
    "compare": Command(
        "compare",
        "set results of several models side by side, with charts and a report in HTML",
        "videossl compare ours=outputs/run/results.json videomae.json --reference videomae",
    ),
    "convert": Command(
        "convert",
        "turn an official checkpoint into a folder that AutoModel loads",
        "videossl convert stica gdt_K400.pth outputs/gdt-k400",
    ),
    "card": Command(
        "hub.card",
        "write the model card of a run folder",
        "videossl card outputs/run --license cc-by-4.0",
    ),
    "push": Command(
        "hub.push",
        "publish a run folder on the Hub and verify what arrived",
        "videossl push outputs/run me/stica-shapes --dry-run",
    ),
    "visualize": Command(
        "visualize.command",
        "draw what a model sees of a clip",
        "videossl visualize outputs/videomoco-smoke clip.mp4 --output dropped.png",
    ),
    "info": Command(
        "info",
        "show what a model is: sizes, inputs, cost, results, licence",
        "videossl info videossl/stica-k400",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 is success, 1 an error that is one line on stderr (`--debug` shows its traceback), 2 a wrong call,
    130 an interruption.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        return run_command([argument for argument in arguments if argument != "--debug"])
    except SystemExit as stop:  # argparse ends with 0 after its help and with 2 after a wrong call
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        explanation = explain(error)
        if debug or explanation is None:
            traceback.print_exc()
        else:
            print(f"error: {' '.join(explanation.split())}", file=sys.stderr)
        return 1


def run_command(arguments: list[str]) -> int:
    """Import the module of the named command, parse its arguments and run it."""
    name = overview_parser().parse_args(arguments[:1]).command
    command = COMMANDS[name]
    module = importlib.import_module(f"videossl_hf.{command.module}")
    parser = argparse.ArgumentParser(
        prog=f"videossl {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.epilog = f"example:\n  {command.example}"
    return module.run(parser.parse_args(arguments[1:])) or 0


def overview_parser() -> argparse.ArgumentParser:
    """The parser of `videossl` itself, which only reads the name of the command."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="videossl",
        usage="videossl COMMAND ...",
        description=f"Video representation learning on the Hugging Face Hub.\n\ncommands:\n{rows}",
        epilog="videossl COMMAND --help explains a command and shows an example.\n\n"
        "example:\n  videossl demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"videossl-hf {version('videossl-hf')}")
    return parser


def explain(error: Exception) -> str | None:
    """What to tell the user of an error that is ours, of files or of the network; None for any other."""
    errors = importlib.import_module("videossl_hf.errors")
    if isinstance(error, (errors.VideoSSLError, OSError)):
        return str(error)
    # What huggingface_hub lets through where nobody answers, of whichever client library it uses.
    if {base.__module__.split(".")[0] for base in type(error).__mro__} & {"httpx", "httpx2"}:
        return f"the Hub does not answer ({error}): check the network and the variable HF_ENDPOINT"
    return None


if __name__ == "__main__":
    sys.exit(main())
