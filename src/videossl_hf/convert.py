"""`videossl convert METHOD CHECKPOINT OUTPUT`: make an official checkpoint a folder that AutoModel loads."""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import InputError, OutputError
from .hub.facts import official_source
from .hub.origin import Origin, write_origin
from .registry import COMPANIONS, METHODS, find_class, has_class

__all__ = ["add_arguments", "convert_checkpoint", "read_labels", "run"]


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
    parser.add_argument(
        "--tokenizer",
        metavar="ID_OR_DIR",
        help="of the text tower, or VIMPAC's tokeniser of frames; saved with the model",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        help="names of a classifier's classes, in order: one a line, or a CSV of id,name",
    )


def run(args: argparse.Namespace) -> None:
    """`videossl convert`: convert, and say what came out."""
    files = {} if args.generator is None else {"generator": args.generator}
    origin = convert_checkpoint(
        args.method,
        args.checkpoint,
        args.output,
        args.license,
        args.source,
        tokenizer=args.tokenizer,
        labels=None if args.labels is None else read_labels(args.labels),
        **files,
    )
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
    *,
    tokenizer: str | None = None,
    labels: Sequence[str] | None = None,
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
        tokenizer: folder or Hub id of the text tower's tokenizer, or of VIMPAC's tokeniser of frames.
        labels: names of the classes of a classifier, in the order of its outputs.
        further_files: other files of the same weights, by the name that the method's conversion gives them.

    Raises:
        InputError: no such file; a further file, a tokenizer or labels that the method does not have; a
            number of labels that is not that of the outputs; or the output folder holds something.
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
    known = official_source(method, checkpoint.name)
    origin = Origin(
        method=method,
        checkpoint=checkpoint.name,
        sha256=_sha256(checkpoint),
        license=license or known.get("license"),
        source=source or known.get("source"),
        converted_with=f"videossl-hf {version('videossl-hf')}",
        further_files={path.name: _sha256(path) for path in further_files.values()},
    )
    processor = _make_processor(method, model.config, tokenizer)
    if labels is not None:
        _name_classes(model, labels, processor)
    try:
        model.save_pretrained(output)
        if processor is not None:
            processor.save_pretrained(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    write_origin(origin, output)
    return origin


def read_labels(path: Path) -> list[str]:
    """Names of classes: one a line, or of a CSV file with the columns id and name, in the order of the ids.

    Raises:
        InputError: the file cannot be read, or the ids are not 0, 1, 2 and so on.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the labels {path}: {error}") from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines or lines[0].replace(" ", "") != "id,name":
        return lines
    rows = {row["id"].strip(): row["name"].strip() for row in csv.DictReader(["id,name", *lines[1:]])}
    if rows.keys() != {str(index) for index in range(len(lines) - 1)}:
        raise InputError(f"the ids in {path} must be 0 to {len(lines) - 2}, each once")
    return [rows[str(index)] for index in range(len(rows))]


def _make_processor(method: str, config: Any, tokenizer: str | None) -> Any:
    """The processor that goes with a configuration, None where the method has none."""
    if not has_class(method, "Processor"):
        return None
    make = find_class(method, "Processor").from_config
    if tokenizer is None:
        return make(config)
    # Of texts, or the model that makes codes of frames.
    for name in ("tokenizer", "tokenizer_model"):
        if name in inspect.signature(make).parameters:
            return make(config, **{name: tokenizer})
    raise InputError(f"{method} reads neither texts nor codes: leave --tokenizer out")


def _name_classes(model: Any, labels: Sequence[str], processor: Any) -> None:
    """Tell a classifier the names of its classes."""
    if not type(model).__name__.endswith("ForVideoClassification"):
        raise InputError(f"{type(model).__name__} is no classifier: leave --labels out")
    if getattr(model.config, "reads_labels", False):
        if processor.tokenizer is None:
            raise InputError("this classifier reads the names of its classes: give --tokenizer, too")
        model.set_labels(labels, processor.tokenizer)
        return
    if len(labels) != model.config.num_labels:
        raise InputError(
            f"{len(labels)} labels are given, but the model has {model.config.num_labels} outputs"
        )
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
