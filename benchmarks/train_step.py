"""Time and memory of one STiCA training step, ours beside the official code, on this CPU.

    python benchmarks/train_step.py --official PATH_TO_GDT_CHECKOUT

Both sides take the same weights, the same two views and the README's crops; a step is forward, loss, backward
and SGD. How it is timed: step_timing.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from checkouts import add_checkout_arguments, has_checkout
from official_gdt import (
    CROPS,
    NEEDED,
    draw_official_crops,
    load_official_code,
    official_model,
)
from step_timing import add_step_arguments, compare

SIDES = {
    "official fp32": ("official", "float32"),
    "ours fp32": ("ours", "float32"),
    "ours bf16 + channels last": ("ours", "bfloat16"),
}


def make_inputs(arguments: argparse.Namespace) -> tuple[list[Tensor], Tensor]:
    """Two views `(batch, channels, frames, height, width)` and a spectrogram `(batch, 1, 257, 99)`.

    Smooth, as clips are: views of one clip are alike and clips differ.
    """
    generator = torch.Generator().manual_seed(0)

    def coarse(*shape: int) -> Tensor:
        return torch.randn(arguments.batch, *shape, generator=generator)

    size = (arguments.frames, arguments.size, arguments.size)
    clips = coarse(3, 4, 7, 7)
    views = [F.interpolate(clips + 0.3 * coarse(3, 4, 7, 7), size=size, mode="trilinear") for _ in range(2)]
    return views, F.interpolate(3 * coarse(1, 16, 10) - 5, size=(257, 99), mode="bilinear")


def official_step(arguments: argparse.Namespace, folder: Path) -> Callable[[], dict[str, Tensor]]:
    """The official step; also writes weights and crops for our side."""
    main, model_module = load_official_code(arguments.official)
    torch.manual_seed(0)
    model = official_model(model_module)
    crops = draw_official_crops(main, duration=4)
    torch.save({"weights": model.state_dict(), "crops": crops}, folder / "shared.pt")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    views, spectrogram = make_inputs(arguments)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def step() -> dict[str, Tensor]:
        outputs = [model(view, spectrogram, params=own) for view, own in zip(views, crops, strict=True)]
        sums, counts = main.nce_crop_losses_dual(
            feats_v=outputs[0][1], feats_v2=outputs[1][1], XE=cross_entropy, temp=0.5, **CROPS
        )
        cross_modal = 0.5 * sum(main.gdt_loss(video, sound, cross_entropy) for video, _, sound in outputs)
        loss = 0.5 * sum(sums) / sum(counts) + 0.5 * cross_modal
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return step


def our_step(
    arguments: argparse.Namespace, folder: Path, dtype: torch.dtype
) -> Callable[[], dict[str, Tensor]]:
    """Our step, as the trainer runs it."""
    from videossl_hf.models.stica.conversion_stica import infer_config, load_official
    from videossl_hf.models.stica.objective_stica import FeatureCrops

    shared = torch.load(folder / "shared.pt", weights_only=True)
    weights = shared["weights"]
    config = infer_config(weights, pooling_tokens=4, projection_dropout=0.0, num_frames=arguments.frames)
    model = load_official(weights, config).train()
    steps = -(-arguments.frames // 8)
    crops = []
    for (large, small), (time_large, time_small) in shared["crops"]:
        windows = [torch.tensor(boxes) for boxes in (large, small, time_large, time_small)]
        # The official slices run past the end of a short map, which cuts them there.
        crops.append(FeatureCrops(*windows[:2], *(window.clamp(max=steps) for window in windows[2:])))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    views, spectrogram = make_inputs(arguments)
    clips = [view.transpose(1, 2).contiguous() for view in views]

    def step() -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(*clips, spectrogram, crops=crops).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_arguments(parser, NEEDED)
    add_step_arguments(parser, batch=8, frames=16)
    arguments = parser.parse_args()
    if not has_checkout(arguments, NEEDED):
        return
    if not arguments.side:
        shape = f"{arguments.frames} x {arguments.size} x {arguments.size}"
        print(f"{arguments.batch} clips of {shape}, two views, one CPU thread", flush=True)

    def make_step(side: str) -> Callable[[], dict[str, Tensor]]:
        code, dtype = SIDES[side]
        if code == "official":
            return official_step(arguments, arguments.folder)
        return our_step(arguments, arguments.folder, getattr(torch, dtype))

    compare(arguments, list(SIDES), make_step)


if __name__ == "__main__":
    main()
