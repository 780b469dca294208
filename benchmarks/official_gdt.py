"""Loads the official code of STiCA and GDT from a checkout, for the benchmarks that run beside it.

A checkout is `git clone https://github.com/facebookresearch/GDT`; nothing of it is copied here. Packages that
it imports and the measured code does not use are replaced by empty ones.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch

from checkouts import Needed

CROPS = {"s_large_crops": 2, "s_small_crops": 4, "t_large_crops": 2, "t_small_crops": 1}
"""The crops of the official README."""

UNUSED = ("torchvision", "pandas", "torch.utils.tensorboard", "datasets", "datasets.AVideoDataset")
"""Packages that the official modules import, but not for what is measured."""


NEEDED = (
    Needed(
        "--official",
        "GDT_CHECKOUT",
        "a checkout of facebookresearch/GDT",
        "git clone https://github.com/facebookresearch/GDT",
    ),
)


def load_official_code(checkout: Path) -> tuple[ModuleType, ModuleType]:
    """The modules `main_stica` and `model` of a checkout, able to run in one process."""
    absent = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update({name: MagicMock() for name in absent})
    sys.path.insert(0, str(checkout))
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # the official losses call it on constants
    try:
        utils = importlib.import_module("utils")
        # With one process the official function concatenates an empty list, which fails.
        utils.dist_collect_other = lambda x, return_before_cat=False: x.new_empty(0, *x.shape[1:])
        return importlib.import_module("main_stica"), importlib.import_module("model")
    finally:
        for name in absent:
            del sys.modules[name]


def official_model(model_module: ModuleType, seconds: int = 1) -> torch.nn.Module:
    """STiCA as the official script builds it, with dropout off so that both sides have one loss."""
    arguments = argparse.Namespace(
        dp=0.0,
        num_layer=2,
        num_head=4,
        positional_emb=False,
        qkv_mha=False,
        num_sec=seconds,
        transformer_time_dim={1: 4, 2: 8}[seconds],
    )
    model = model_module.Stica_TransformerFMCrop(
        norm_feat=True, use_mlp=True, num_classes=256, args=arguments
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def draw_official_crops(main_module: ModuleType, duration: int) -> list[list]:
    """Crop windows of both views, drawn by the official function: [view][space or time][large or
    small][crop]."""
    drawn = [main_module.fmcrop_params(duration=duration, **CROPS) for _ in range(2)]
    return [
        [[[[int(edge) for edge in box] for box in size] for size in axis] for axis in view] for view in drawn
    ]
