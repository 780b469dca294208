"""`videossl prepare SOURCE --codes TOKENISER`: make the codes of a dataset once."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ..errors import ConfigurationError
from .prepare_codes import Share, prepare_codes
from .stored_codes import CROPS, CodesManifest, CodeView

__all__ = ["CODES_ONLY", "add_codes_arguments", "run_codes"]

CODES_ONLY = ("codes", "image_size", "scales", "crops", "flips")


def add_codes_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; what is not given is None."""
    codes = parser.add_argument_group(
        "codes",
        "of a tokeniser, in the column `codes`. Several processes share the work: accelerate launch -m"
        " videossl_hf.cli prepare ...",
    )
    codes.add_argument(
        "--codes", metavar="TOKENISER", help="folder or Hub id of a tokeniser (videossl convert dvae ...)"
    )
    codes.add_argument("--image-size", type=int, help="side in pixels of the squares that become codes (128)")
    codes.add_argument(
        "--scales", type=float, nargs="+", metavar="S", help="short sides before cutting, in image sizes (1)"
    )
    codes.add_argument("--crops", nargs="+", choices=CROPS, help="which squares are cut out (center)")
    codes.add_argument("--flips", action="store_true", default=None, help="each of them mirrored too")


def run_codes(args: argparse.Namespace, console: Console) -> None:
    """Make the codes and say what was left out.

    Raises:
        ConfigurationError: the model makes no codes, or sizes that cannot work.
    """
    share = Share.of_environment()
    tokenizer = _load(args.codes).to(_device())
    size = args.image_size or 128
    if size < 8 or size % 8:
        raise ConfigurationError(f"--image-size must be a multiple of 8, got {size}")
    if min(args.scales or [1]) < 1:
        raise ConfigurationError(f"--scales must be at least 1, got {min(args.scales)}")
    views = [
        CodeView(round(scale * size), crop, flip)
        for scale in args.scales or [1.0]
        for crop in args.crops or ["center"]
        for flip in ([False, True] if args.flips else [False])
    ]
    manifest = CodesManifest(
        tokenizer=args.codes,
        fingerprint=tokenizer.fingerprint(),
        num_codes=tokenizer.config.vocab_size,
        fps=args.fps or 2.0,
        image_size=size,
        views={view.column(size): view for view in views},
    )

    def encode(frames: Tensor) -> Tensor:
        return tokenizer.encode(frames)

    given = {name: getattr(args, name) for name in ("splits", "shards", "revision")}
    report = prepare_codes(
        args.source,
        args.output,
        manifest,
        encode,
        **{name: value for name, value in given.items() if value is not None},
        processes=args.processes,
        share=share,
        show_progress=not args.quiet and share.rank == 0,
    )
    for split, facts in report["splits"].items():
        console.print(
            f"{split}: codes of {facts['written']} of {facts['videos']} videos"
            + (f", left out: {len(facts['dropped'])}" if facts["dropped"] else ""),
            highlight=False,
        )


def _load(name: str) -> Any:
    from transformers import AutoModel

    tokenizer = AutoModel.from_pretrained(name)
    if not hasattr(tokenizer, "fingerprint"):
        raise ConfigurationError(f"{name} is a {tokenizer.config.model_type}, which makes no codes")
    return tokenizer.eval()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
