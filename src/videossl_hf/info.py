"""`videossl info MODEL`: what a model is, before its weights are downloaded."""

from __future__ import annotations

import argparse
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from rich.console import Console
from rich.table import Table

from .errors import DataError
from .evaluation.results import read_results
from .hub.card import read_config
from .hub.description import ModelDescription, describe_config
from .hub.facts import method_facts
from .hub.origin import read_origin
from .hub.published_code import custom_pipelines

__all__ = ["add_arguments", "describe_folder", "run"]

DESCRIPTIVE_FILES = ("config.json", "results.json", "origin.json", "README.md")
WEIGHTS = "*.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl info`."""
    parser.add_argument("model", help="a folder, or an id on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")


def run(args: argparse.Namespace) -> None:
    """`videossl info`: a table of facts; downloads text files of the model at most."""
    with tempfile.TemporaryDirectory() as temporary:
        if Path(args.model).is_dir():
            folder = Path(args.model)
            size = sum(path.stat().st_size for path in folder.glob(WEIGHTS))
        else:
            folder, size = _download(args.model, args.revision, Path(temporary))
        rows = describe_folder(folder)
    place = [name for name, _ in rows].index("class") + 1
    rows.insert(place, ("weights", f"{size:,} bytes" if size else "none in this folder"))
    table = Table(title=args.model, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    Console(width=None if Console().is_terminal else 120).print(table)


def describe_folder(folder: Path) -> list[tuple[str, str]]:
    """Names and values of what the files of a saved model say of it.

    Raises:
        DataError: config.json cannot be read.
        InputError: the model is none of this package's.
    """
    config = read_config(folder)
    description = describe_config(config)
    facts = method_facts(description.method)
    rows = [
        ("method", facts.name),
        *((("paper", f"{facts.title}, arXiv:{facts.arxiv}"),) if facts.title else ()),
        *((("idea", facts.summary),) if facts.summary else ()),
        ("class", f"{description.architecture}, {description.parameters:,} parameters"),
        *(("takes", text) for text in description.inputs),
        ("gives", _gives(description)),
        ("for these", f"{description.feature_parameters:,} parameters, {description.cost}"),
    ]
    if description.labels:
        shown = ", ".join(description.labels[:5])
        rows.append(
            ("classes", f"{len(description.labels)}: {shown}{', ...' if len(description.labels) > 5 else ''}")
        )
    tasks = ["video-classification"] if description.labels else []
    if tasks := [*tasks, *custom_pipelines(config)]:
        rows.append(("pipelines", ", ".join(tasks)))
    if (folder / "results.json").exists():
        for result in read_results(folder / "results.json"):
            figures = ", ".join(f"{name} {figure}" for name, figure in result.figures.items())
            weights = " with random weights" if result.model.get("random_weights") else ""
            where = f"{result.data['id']} ({result.data['split']}), {result.views} views"
            rows.append(("result", f"{result.protocol['name']} on {where}{weights}: {figures}"))
    else:
        rows.append(("results", "none measured: there is no results.json"))
    origin = read_origin(folder)
    if origin:
        rows.append(("origin", f"converted from {origin.checkpoint}, source {origin.source or 'not stated'}"))
    rows.append(("licence", _license(folder)))
    return rows


def _gives(description: ModelDescription) -> str:
    if description.codes:
        return f"one of {description.codes} codes for every 8x8 pixels of every frame"
    return f"features of {description.feature_size} numbers a clip"


def _license(folder: Path) -> str:
    origin = read_origin(folder)
    if origin and origin.license:
        return origin.license
    card = folder / "README.md"
    if card.exists():
        data = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
        stated = data.get("license_name", data.get("license"))
        return str(stated) if stated and stated != "other" else "not stated"
    return "not stated"


def _download(model: str, revision: str | None, folder: Path) -> tuple[Path, int]:
    """The descriptive files of a model on the Hub, and the size of its weights."""
    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
        snapshot_download(model, revision=info.sha, local_dir=folder, allow_patterns=list(DESCRIPTIVE_FILES))
    except (HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            f"there is no folder {model} here and no such model on the Hub that you may read"
            f"{f' at revision {revision}' if revision else ''}: {error}"
        ) from error
    siblings = info.siblings or []
    return folder, sum(file.size or 0 for file in siblings if fnmatch(file.rfilename, WEIGHTS))
