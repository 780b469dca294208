"""What a benchmark needs of the authors' code: options that say where it lies, and how to get it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Needed", "add_checkout_arguments", "has_checkout"]


class Needed(NamedTuple):
    """A folder that the rival runs from.

    Attributes:
        option: that names it, such as --official.
        variable: of the environment, its default.
        what: lies in it.
        command: that makes it.
    """

    option: str
    variable: str
    what: str
    command: str


def add_checkout_arguments(parser: argparse.ArgumentParser, needed: Sequence[Needed]) -> None:
    """An option for each folder."""
    for option, variable, what, _ in needed:
        named = os.environ.get(variable)
        parser.add_argument(
            option,
            type=Path,
            default=Path(named) if named else None,
            help=f"{what} (default: the environment variable {variable})",
        )


def has_checkout(arguments: argparse.Namespace, needed: Sequence[Needed]) -> bool:
    """Whether the rival is there; says how to get it otherwise."""
    missing = [item for item in needed if vars(arguments)[item.option.strip("-").replace("-", "_")] is None]
    if missing:
        wanted = " and ".join(f"{item.option} ({item.command})" for item in missing)
        print(f"skipped: give {wanted}, or set {', '.join(item.variable for item in missing)}")
    return not missing
