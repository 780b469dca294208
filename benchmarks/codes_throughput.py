"""Training of VIMPAC from stored codes and from files, with tokenisers of two sizes: clips per CPU second.

    python benchmarks/codes_throughput.py

Stored codes cost the same whatever tokeniser made them; made while training, they cost the tokeniser. Batches
are those of the collator, the step is that of the smoke recipe's model on clips of --size pixels. One thread;
the best of --rounds. Tokenisers have random weights: what they cost does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videossl_hf.data.datasets import SeededDataset, load_videos
from videossl_hf.data.prepare_codes import prepare_codes
from videossl_hf.data.stored_codes import CodesManifest, CodeView
from videossl_hf.data.writer import write_video
from videossl_hf.models.vimpac.collation_vimpac import VIMPACCollator
from videossl_hf.models.vimpac.configuration_dvae import DVAEConfig
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor
from videossl_hf.training.recipe import load_recipe

WIDTHS = {"small tokeniser": 32, "DALL-E's tokeniser": 256}
RECIPE = Path(__file__).parents[1] / "training/recipes/vimpac/smoke.yaml"


def make_videos(folder: Path, count: int, size: int, fps: float = 12.0, seconds: int = 4) -> None:
    """Files of moving noise."""
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(picture, 3 * step, axis=1) for step in range(round(seconds * fps))])
        path = folder / "train" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames, fps)


def best_of(rounds: int, function: Callable[[], Any]) -> float:
    """CPU seconds, after one call to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def measure(folder: Path, name: str, arguments: argparse.Namespace) -> None:
    """One line: collation and whole steps, on the fly and from stored codes."""
    torch.manual_seed(0)
    overrides = {"model.image_size": arguments.size, "model.num_codes": 8192}
    config = load_recipe(RECIPE, [f"--{key}={value}" for key, value in overrides.items()]).make_config()
    tokenizer = DVAEModel(DVAEConfig(hidden_size=WIDTHS[name], use_decoder=False)).eval()
    view = CodeView(arguments.size)
    manifest = CodesManifest(
        name, tokenizer.fingerprint(), 8192, config.fps, arguments.size, {view.column(arguments.size): view}
    )
    stored = folder / name.replace(" ", "-")
    prepare_codes(str(folder / "videos"), stored, manifest, tokenizer.encode, show_progress=False)
    collate = VIMPACCollator(config, VIMPACProcessor.from_config(config, tokenizer))
    model = VIMPACForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(batch: dict[str, Any]) -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    figures = []
    for source in (folder / "videos", stored):
        dataset = SeededDataset(load_videos(str(source), "train"))
        samples = [dataset[index] for index in range(len(dataset))]
        clips = 2 * len(samples)
        batch = collate(samples)
        made = best_of(arguments.rounds, lambda samples=samples: collate(samples))
        trained = best_of(arguments.rounds, lambda batch=batch: step(batch))
        figures += [clips / made, clips / (made + trained)]
    flying, flying_step, cached, cached_step = figures
    print(
        f"{name.ljust(max(map(len, WIDTHS)))}  batches: {flying:7.1f} clips/s on the fly, {cached:8.1f} from"
        f" stored codes; with the step: {flying_step:7.1f} and {cached_step:7.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64, help="side of a frame in pixels (64)")
    parser.add_argument("--videos", type=int, default=4, help="of a batch (4)")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder) / "videos", arguments.videos, arguments.size)
        for name in WIDTHS:
            measure(Path(folder), name, arguments)


if __name__ == "__main__":
    main()
