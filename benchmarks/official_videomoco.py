"""Loads the official code of VideoMoCo from a checkout, for the benchmark that runs beside it.

A checkout is `git clone https://github.com/tinapan-pt/VideoMoCo`; nothing of it is copied here. Its encoders
are torchvision's, of which the Python part suffices (`pip install --no-deps --target FOLDER torchvision`).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType
from typing import NamedTuple

import torch

from checkouts import Needed

__all__ = ["NEEDED", "OfficialCode", "load_official_code"]


class OfficialCode(NamedTuple):
    """The modules of a checkout, and torchvision's video models."""

    builder: ModuleType
    train_utils: ModuleType
    video_models: ModuleType


NEEDED = (
    Needed(
        "--official",
        "VIDEOMOCO_CHECKOUT",
        "a checkout of tinapan-pt/VideoMoCo",
        "git clone https://github.com/tinapan-pt/VideoMoCo",
    ),
    Needed(
        "--torchvision",
        "TORCHVISION_FOLDER",
        "the folder that torchvision was installed into",
        "pip install --no-deps --target FOLDER torchvision",
    ),
)


def load_official_code(arguments: argparse.Namespace) -> OfficialCode:
    """The official modules, able to run in one process without a GPU."""
    sys.path[:0] = [str(arguments.official), str(arguments.torchvision)]
    # Declared by torchvision's compiled part, which only loads beside the torch that it was built with.
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor"
        )
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    group = f"file://{arguments.folder / 'group'}"  # the official code gathers keys, of one process too
    torch.distributed.init_process_group("gloo", init_method=group, rank=0, world_size=1)
    return OfficialCode(
        importlib.import_module("moco.builder"),
        importlib.import_module("utils.train_utils"),
        importlib.import_module("torchvision.models.video"),
    )
