"""Loads the official code of VIMPAC from a checkout, for the benchmark that runs beside it.

A checkout is `git clone https://github.com/airsplay/vimpac`; nothing of it is copied here. Its tokeniser is
the package `DALL-E` (`pip install --no-deps --target FOLDER DALL-E==0.1`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = [
    "OfficialCode",
    "add_checkout_arguments",
    "has_checkout",
    "load_official_code",
    "load_official_encoder",
]


class OfficialCode(NamedTuple):
    """The modules of a checkout."""

    modeling: ModuleType
    masking: ModuleType
    nce: ModuleType
    positions: ModuleType


def add_checkout_arguments(parser: argparse.ArgumentParser) -> None:
    """`--official PATH` and `--dall-e PATH`, or the variables VIMPAC_CHECKOUT and DALL_E_FOLDER."""
    for option, variable, what in (
        ("--official", "VIMPAC_CHECKOUT", "a checkout of airsplay/vimpac"),
        ("--dall-e", "DALL_E_FOLDER", "the folder that DALL-E was installed into"),
    ):
        named = os.environ.get(variable)
        parser.add_argument(
            option,
            type=Path,
            default=Path(named) if named else None,
            help=f"{what} (default: the environment variable {variable})",
        )


def has_checkout(arguments: argparse.Namespace) -> bool:
    """Whether the rival is there; says how to get it otherwise."""
    there = arguments.official is not None and arguments.dall_e is not None
    if not there:
        print(
            "skipped: give --official (git clone https://github.com/airsplay/vimpac) and --dall-e"
            " (pip install --no-deps --target FOLDER DALL-E==0.1), or set VIMPAC_CHECKOUT and DALL_E_FOLDER"
        )
    return there


def load_official_code(arguments: argparse.Namespace) -> OfficialCode:
    """The official modules, able to run in one process without a GPU."""
    sys.path.insert(0, str(arguments.official))
    # Refuses to train on a CPU; of one process both compute the same.
    torch.nn.SyncBatchNorm = nn.BatchNorm1d
    group = f"file://{arguments.folder / 'group'}"  # the official code asks for its rank
    torch.distributed.init_process_group("gloo", init_method=group, rank=0, world_size=1)
    names = ("modeling", "masking", "nce_support", "positional_embedding")
    return OfficialCode(*(importlib.import_module(f"vimpac.{name}") for name in names))


def load_official_encoder(arguments: argparse.Namespace) -> Any:
    """The tokeniser's encoder with random weights."""
    sys.path.insert(0, str(arguments.dall_e))
    return importlib.import_module("dall_e.encoder").Encoder()
