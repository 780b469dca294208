"""`videossl convert METHOD CHECKPOINT OUTPUT`: make an official checkpoint a folder that AutoModel loads."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import sys
from importlib.metadata import version
from pathlib import Path

from .errors import InputError, OutputError
from .hub.facts import official_source
from .hub.origin import Origin, write_origin
from .registry import COMPANIONS, METHODS, find_class, has_class

__all__ = ["add_arguments", "convert_checkpoint", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl convert`."""
    parser.add_argument("method", choices=sorted({*METHODS, *COMPANIONS}), help="method of the checkpoint")
    parser.add_argument("checkpoint", type=Path, help="file that the official code saved")
    parser.add_argument("output", type=Path, help="folder to write: model, processor, code, origin")
    parser.add_argument("--license", help="licence of the weights, such as cc-by-nc-4.0")
    parser.add_argument("--source", help="where the file was published")
    parser.add_argument(
        "--generator", type=Path, help="videomoco: the file of the generator that belongs to the encoders"
    )


def run(args: argparse.Namespace) -> None:
    """`videossl convert`: convert, and say what came out."""
    files = {} if args.generator is None else {"generator": args.generator}
    origin = convert_checkpoint(args.method, args.checkpoint, args.output, args.license, args.source, **files)
    print(f"wrote {args.output}; licence of the weights: {origin.license or 'not known, shown as other'}")
    if origin.license is None:
        print(
            "the weights belong to their authors: state their licence with --license before you publish them",
            file=sys.stderr,
        )


def convert_checkpoint(
    method: str,
    checkpoint: str | Path,
    output: str | Path,
    license: str | None = None,
    source: str | None = None,
    **further_files: Path,
) -> Origin:
    """Convert an official checkpoint and write model, processor, code and origin into a folder.

    Nothing in the file is executed, and every key of it is accounted for.

    Args:
        method: a name of the registry; also of a companion, such as the tokeniser "dvae".
        checkpoint: file that the official code saved.
        output: a folder that is absent or empty.
        license: of the weights; files with the names of an official release have its licence by default.
        source: where the file was published; likewise.
        further_files: other files of the same weights, by the name that the method's conversion gives them.

    Raises:
        InputError: no such file, a further file that the method does not have, or the output folder holds
            something.
        CheckpointError: the file is damaged, holds more than weights, or does not fit the method.
        OutputError: the folder cannot be written.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    for path in (checkpoint, *further_files.values()):
        if not path.is_file():
            raise InputError(f"there is no checkpoint file {path}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists already: name a new folder")
    folder = COMPANIONS[method][0] if method in COMPANIONS else method
    conversion = importlib.import_module(f".models.{folder}.conversion_{method}", __package__)
    for name in further_files:
        if name not in inspect.signature(conversion.convert).parameters:
            raise InputError(
                f"checkpoints of {method} have no {name} in a file of its own: leave --{name} out"
            )
    model = conversion.convert(checkpoint, **further_files)
    known = official_source(folder, checkpoint.name)
    origin = Origin(
        method=method,
        checkpoint=checkpoint.name,
        sha256=_sha256(checkpoint),
        license=license or known.get("license"),
        source=source or known.get("source"),
        converted_with=f"videossl-hf {version('videossl-hf')}",
        further_files={path.name: _sha256(path) for path in further_files.values()},
    )
    try:
        model.save_pretrained(output)
        if has_class(method, "Processor"):
            find_class(method, "Processor").from_config(model.config).save_pretrained(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    write_origin(origin, output)
    return origin


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
