"""Time and memory of one STiCA training step, ours beside the official code, on this CPU.

    python benchmarks/train_step.py --official PATH_TO_GDT_CHECKOUT

Both sides take the same weights, the same two views and the README's crops; a step is forward, loss, backward
and SGD. Each side runs in a process of its own (so that peak memory is its own) on one thread; time is that
process's CPU time, the best of the measured steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from official_gdt import (
    CROPS,
    add_checkout_argument,
    draw_official_crops,
    has_checkout,
    load_official_code,
    official_model,
)

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


def official_step(arguments: argparse.Namespace, folder: Path) -> Callable[[], Tensor]:
    """The official step; also writes weights and crops for our side."""
    main, model_module = load_official_code(arguments.official)
    torch.manual_seed(0)
    model = official_model(model_module)
    crops = draw_official_crops(main, duration=4)
    torch.save({"weights": model.state_dict(), "crops": crops}, folder / "shared.pt")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    views, spectrogram = make_inputs(arguments)
    cross_entropy = torch.nn.CrossEntropyLoss()

    def step() -> Tensor:
        outputs = [model(view, spectrogram, params=own) for view, own in zip(views, crops, strict=True)]
        sums, counts = main.nce_crop_losses_dual(
            feats_v=outputs[0][1], feats_v2=outputs[1][1], XE=cross_entropy, temp=0.5, **CROPS
        )
        cross_modal = 0.5 * sum(main.gdt_loss(video, sound, cross_entropy) for video, _, sound in outputs)
        loss = 0.5 * sum(sums) / sum(counts) + 0.5 * cross_modal
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def our_step(arguments: argparse.Namespace, folder: Path, dtype: torch.dtype) -> Callable[[], Tensor]:
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

    def step() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(*clips, spectrogram, crops=crops).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measure(arguments: argparse.Namespace) -> None:
    """Runs one side in this process and prints its figures as JSON."""
    torch.set_num_threads(1)
    code, dtype = SIDES[arguments.side]
    folder = Path(arguments.folder)
    if code == "official":
        step = official_step(arguments, folder)
    else:
        step = our_step(arguments, folder, getattr(torch, dtype))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses, seconds = [], []
    for _ in range(arguments.steps):
        start = time.process_time()
        losses.append(step().item())
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {"losses": losses, "seconds": min(seconds), "peak": peak / 1024, "step": (peak - before) / 1024}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkout_argument(parser)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not has_checkout(arguments):
        return
    if arguments.side:
        measure(arguments)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[side] = json.loads(output.splitlines()[-1])
    official = results["official fp32"]
    shape = f"{arguments.frames} x {arguments.size} x {arguments.size}"
    print(f"{arguments.batch} clips of {shape}, two views, one CPU thread")
    for side, result in results.items():
        print(
            f"{side:27s} {result['seconds']:7.2f} s/step  {official['seconds'] / result['seconds']:5.2f}x"
            f"   peak {result['peak']:6.0f} MiB ({result['peak'] / official['peak']:.2f}x),"
            f" of the step {result['step']:6.0f} MiB ({result['step'] / official['step']:.2f}x)"
            f"   loss {result['losses'][0]:.6f} ({result['losses'][0] / official['losses'][0] - 1:+.1e})"
        )


if __name__ == "__main__":
    main()
