"""Loads the official code of ILA from a checkout, for the benchmark that runs beside it.

A checkout is `git clone https://github.com/Francis-Rings/ILA` (branch master); nothing of it is copied here.
It needs einops (`pip install --no-deps --target FOLDER einops`). What it imports besides and does not use on
the way measured (image transforms, text cleaning, a name of timm that torch has too) is stood in for.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType
from typing import Any

import torch

from checkouts import Needed

__all__ = ["NEEDED", "make_official_model"]

SIDE, LABEL_LENGTH = 224, 77


NEEDED = (
    Needed(
        "--official",
        "ILA_CHECKOUT",
        "a checkout of Francis-Rings/ILA",
        "git clone https://github.com/Francis-Rings/ILA",
    ),
    Needed(
        "--packages",
        "ILA_PACKAGES",
        "the folder that einops was installed into",
        "pip install --no-deps --target FOLDER einops",
    ),
)


def make_official_model(arguments: argparse.Namespace) -> Any:
    """The official ViT-B with a small text tower, whose features are computed once and kept on both sides;
    frozen as released.
    """
    sys.path[:0] = [str(arguments.official), str(arguments.packages)]
    _stand_in("timm.models.layers", trunc_normal_=torch.nn.init.trunc_normal_)
    names = ("Compose", "Resize", "CenterCrop", "ToTensor", "Normalize", "InterpolationMode")
    _stand_in("torchvision.transforms", **dict.fromkeys(names))
    _stand_in("ftfy", fix_text=None)
    importlib.import_module("clip")  # first: the packages import each other in a circle
    code = importlib.import_module("models.xclip")
    torch.manual_seed(0)
    model = code.XCLIP(
        embed_dim=512,
        image_resolution=SIDE,
        vision_layers=12,
        vision_width=768,
        vision_patch_size=arguments.patch,
        context_length=LABEL_LENGTH,
        vocab_size=arguments.vocabulary,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=1,
        T=arguments.frames,
        mit_layers=1,
        prompts_alpha=0.1,
        use_cache=True,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "temporal_skip" in name or ".12." in name:  # zero at the start, which would hide differences
                torch.nn.init.normal_(parameter, std=0.02)
    frozen = (
        *("class_embedding", "positional_embedding", "proj", "conv1", "ln_pre", "ln_post"),
        *("attn", "ln_1", "ln_2", "mlp"),
    )
    for name, parameter in model.named_parameters():
        part = name.split(".")
        in_block = part[:3] == ["visual", "transformer", "resblocks"]
        inside_clip = part[0] == "visual" and part[4 if in_block else 1] in frozen
        text = not any(word in name for word in ("visual.", "mit", "prompts"))
        parameter.requires_grad_(not (inside_clip or text))
    return model


def _stand_in(path: str, **contents: Any) -> None:
    """A module of this name that holds no more than these."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:depth]), ModuleType(parts[depth - 1]))
    for name, value in contents.items():
        setattr(sys.modules[path], name, value)
