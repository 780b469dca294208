"""Time and memory of VIMPAC, ours beside the official code, on this CPU.

    python benchmarks/vimpac_step.py --official VIMPAC_CHECKOUT --dall-e FOLDER

- A training step of the small model: two clips a video, both losses, the gradients, AdamW; the same weights,
  codes and masks on both sides, no dropout, so that losses can be compared. How it is timed: step_timing.py.
- Codes of a frame: the encoder of the package DALL-E and ours, the same weights, the same codes.
- Masks of a batch of clips.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from checkouts import add_checkout_arguments, has_checkout
from official_vimpac import (
    NEEDED,
    load_official_code,
    load_official_encoder,
)
from step_timing import add_step_arguments, compare

OURS = {"ours fp32": torch.float32, "ours bf16": torch.bfloat16}
CODES = 8192
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.98), "weight_decay": 0.05}

Step = Callable[[], dict[str, Tensor]]


def make_clips(arguments: argparse.Namespace) -> Tensor:
    """Codes (2 * videos, frames, rows, columns): first clips, then second clips."""
    side = arguments.size // 8
    shape = (2 * arguments.batch, arguments.frames, side, side)
    return torch.randint(CODES, shape, generator=torch.Generator().manual_seed(0))


def official_step(arguments: argparse.Namespace) -> Step:
    """The official step; also writes weights and masked clips for the other sides."""
    code = load_official_code(arguments)
    torch.manual_seed(0)
    side, width = arguments.size // 8, 512
    backbone = code.modeling.TransformerLayout(
        height=side,
        width=side,
        length=arguments.frames,
        vocab_size=CODES + 5,
        hid_dim=width,
        layers=6,
        heads=8,
        dropout=0.0,
        output_mode="both",
        pos_emb_args=code.positions.option2args("hw_separation"),
        layout="T,H|W",
        args=SimpleNamespace(halve_att=False, halve_mlp=False),
    )
    head = code.modeling.BertLMPredictionHead(
        width, output_labels=CODES + 5, tied_embedding=backbone.embedding
    )
    projection = code.modeling.CLSMLPHead(2, width, 2048, 256)
    model = code.modeling.ModelWithHead(backbone, head, projection).train()
    random.seed(0)
    seen, labels = code.masking.mask_3d(make_clips(arguments), mask_blocks=5)
    torch.save({"state": model.state_dict(), "seen": seen, "labels": labels}, arguments.folder / "shared.pt")
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    contrast = code.nce.DistributedNCELoss()

    def step() -> dict[str, Tensor]:
        cls, logits = model(seen)
        loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
        loss = loss + contrast(cls, temperature=0.2, dist=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.detach()}

    return step


def our_step(arguments: argparse.Namespace, dtype: torch.dtype) -> Step:
    """Our step, as the trainer runs it."""
    from videossl_hf.models.vimpac.conversion_vimpac import infer_config, load_official
    from videossl_hf.models.vimpac.masking_vimpac import IGNORED, NOT_MASKED, find_masked_positions

    shared = torch.load(arguments.folder / "shared.pt", weights_only=True)
    weights = shared.pop("state")
    config = infer_config(weights, dropout=0.0, attention_dropout=0.0)
    model = load_official(weights, config).train()
    del weights
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
    first, second = make_clips(arguments).chunk(2)
    mask = torch.where(shared["labels"] == IGNORED, NOT_MASKED, config.mask_code)
    inputs = {
        "input_codes": first,
        "second_input_codes": second,
        "mask": mask.chunk(2)[0],
        "second_mask": mask.chunk(2)[1],
        "masked_positions": find_masked_positions(mask),
        "has_padding": False,
    }

    def step() -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.detach()}

    return step


def show_tokenising(arguments: argparse.Namespace, frames: int = 4, rounds: int = 3) -> None:
    """Seconds a frame of the full-size encoders, alternating, and whether the codes are the same."""
    from videossl_hf.models.vimpac.conversion_dvae import load_official_dvae

    torch.manual_seed(0)
    official = load_official_encoder(arguments).eval()
    ours = load_official_dvae(official.state_dict())
    pixels = torch.rand(frames, 3, arguments.size, arguments.size) * 0.8 + 0.1

    with torch.no_grad():
        sides = {
            "official": lambda: official(pixels).argmax(1),
            "ours": lambda: ours.encode(pixels),
        }
        seconds, codes = alternate(sides, rounds)
    same = float((codes["official"] == codes["ours"]).float().mean())
    print(
        f"tokenising a frame: official {seconds['official'] / frames:.3f} s, ours"
        f" {seconds['ours'] / frames:.3f} s, {seconds['official'] / seconds['ours']:.2f}x,"
        f" {same:.1%} of the codes equal",
        flush=True,
    )


def show_masks(arguments: argparse.Namespace, clips: int = 256, rounds: int = 20) -> None:
    """Seconds of the masks of a batch: the official loop, and ours from draws to masks."""
    from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
    from videossl_hf.models.vimpac.masking_vimpac import draw_mask_numbers, make_masks

    code = load_official_code(arguments)
    config = VIMPACConfig(num_frames=arguments.frames, image_size=arguments.size)
    codes = torch.zeros(clips, *config.grid, dtype=torch.int64)
    seconds, _ = alternate(
        {
            "official": lambda: code.masking.mask_3d(codes, mask_blocks=5),
            "ours": lambda: make_masks(config, draw_mask_numbers(config, clips)),
        },
        rounds,
    )
    print(
        f"masks of {clips} clips: official {1000 * seconds['official']:.2f} ms, ours"
        f" {1000 * seconds['ours']:.2f} ms, {seconds['official'] / seconds['ours']:.1f}x",
        flush=True,
    )


def alternate(sides: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """CPU seconds of each side, the best of some rounds, and what it gave, after one call each to warm up."""
    results = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            side()
            seconds[name].append(time.process_time() - start)
    return {name: min(values) for name, values in seconds.items()}, results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    add_step_arguments(parser, batch=2, frames=5)
    parser.set_defaults(size=128)
    parser.add_argument("--part", choices=("step", "tokenising", "masks"), help="only this (all)")
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    if arguments.part in (None, "step"):
        if not arguments.side:
            shape = f"{arguments.frames} x {arguments.size} x {arguments.size}"
            print(
                f"small model, {arguments.batch} videos, two clips of {shape} each, one CPU thread",
                flush=True,
            )
        compare(
            arguments,
            ["official fp32", *OURS],
            lambda side: our_step(arguments, OURS[side]) if side in OURS else official_step(arguments),
        )
    if not arguments.side:
        torch.set_num_threads(1)
        if arguments.part in (None, "tokenising"):
            show_tokenising(arguments)
        if arguments.part in (None, "masks"):
            with tempfile.TemporaryDirectory() as folder:
                arguments.folder = Path(folder)
                show_masks(arguments)


if __name__ == "__main__":
    main()
