"""Loads the official code of TVTS from a checkout, for the benchmarks that run beside it.

A checkout is `git clone https://github.com/TencentARC/TVTS`; nothing of it is copied here. What it imports
and does not use for what is measured (timm's layers, readers of video, its own training loop) is replaced by
empty modules; einops, and for transcripts ftfy, tslearn and editdistance, come from a folder of their own
(`pip install --no-deps --target FOLDER einops ftfy wcwidth tslearn numba llvmlite editdistance`).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from checkouts import Needed

__all__ = ["NEEDED", "load_transcript_code", "official_model"]


NEEDED = (
    Needed(
        "--official",
        "TVTS_CHECKOUT",
        "a checkout of TencentARC/TVTS",
        "git clone https://github.com/TencentARC/TVTS",
    ),
    Needed(
        "--packages",
        "TVTS_PACKAGES",
        "the folder that the packages it needs were installed into",
        "pip install --no-deps --target FOLDER einops ftfy wcwidth tslearn numba llvmlite editdistance",
    ),
)


def official_model(arguments: argparse.Namespace, text_model: nn.Module) -> Any:
    """The official pre-training model with random weights, around a text tower that is given.

    Its constructor would download the text tower and read an image MAE; the parts are put together here as
    it does.
    """
    _search(arguments)
    _stub("timm.models.layers", trunc_normal_=nn.init.trunc_normal_, to_2tuple=lambda x: (x, x))
    _stub("base", BaseModel=nn.Module)
    _stub("utils.util")
    official = importlib.import_module("model.model_dist_TVTS")
    model = official.TVTS.__new__(official.TVTS)
    nn.Module.__init__(model)
    model.text_params, model.text_model = {"model": "distilbert-base-uncased"}, text_model
    model.video_model = official.VisionTransformer(
        patch_size=16, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4, qkv_bias=True, num_frames=16,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    model.video_model.pre_logits = nn.Identity()
    model.txt_proj = nn.Sequential(nn.ReLU(), nn.Linear(768, 256))
    model.vid_proj = nn.Sequential(nn.Linear(768, 256))
    model.pred_model = official.SortTransformer(num_classes=4)
    model.similarities = official.sim_matrix
    model.contrastive = importlib.import_module("model.loss").NormSoftmaxLoss()
    return model


def load_transcript_code(arguments: argparse.Namespace) -> ModuleType:
    """The module with `clean_subtitles` and `align_using_dtw`."""
    _search(arguments)
    for name in ("cv2", "decord", "imageio", "regex", "demoji", "pims", "video_transforms.videoaug"):
        _stub(name)
    path = arguments.official / "v1" / "base" / "base_dataset_yt.py"
    spec = importlib.util.spec_from_file_location("official_transcripts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _search(arguments: argparse.Namespace) -> None:
    sys.path[:0] = [str(arguments.official / "v1"), str(arguments.packages)]
    torch.manual_seed(0)


class _Empty(ModuleType):
    """A module that has every name; all of them are nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _stub(name: str, **contents: Any) -> None:
    """Put an empty module, and those it lies in, where an import finds it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = sys.modules.setdefault(".".join(parts[:end]), _Empty(".".join(parts[:end])))
        module.__path__ = []
    vars(sys.modules[name]).update(contents)
