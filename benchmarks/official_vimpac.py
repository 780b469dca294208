"""Loads the official code of VIMPAC from a checkout, for the benchmark that runs beside it.

A checkout is `git clone https://github.com/airsplay/vimpac`; nothing of it is copied here. Its tokeniser is
the package `DALL-E` (`pip install --no-deps --target FOLDER DALL-E==0.1`).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from checkouts import Needed

__all__ = [
    "NEEDED",
    "OfficialCode",
    "load_official_code",
    "load_official_encoder",
]


class OfficialCode(NamedTuple):
    """The modules of a checkout."""

    modeling: ModuleType
    masking: ModuleType
    nce: ModuleType
    positions: ModuleType


NEEDED = (
    Needed(
        "--official",
        "VIMPAC_CHECKOUT",
        "a checkout of airsplay/vimpac",
        "git clone https://github.com/airsplay/vimpac",
    ),
    Needed(
        "--dall-e",
        "DALL_E_FOLDER",
        "the folder that DALL-E was installed into",
        "pip install --no-deps --target FOLDER DALL-E==0.1",
    ),
)


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
