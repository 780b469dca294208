"""What extraction adds to the model: `python benchmarks/extraction.py`.

The same clips through the same network: in a bare loop over batches that are tensors already; by extraction
of clips that are decoded already, which must stay within 1.1 times of that; and by extraction that decodes in
a thread beside the model. CPU seconds and clips a second of one core; medians of rounds in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from videossl_hf import VideoMoCoConfig, VideoMoCoModel, VideoMoCoProcessor
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.features import embed, extract_features
from videossl_hf.evaluation.loading import quiet_libraries

LIMIT = 1.1


def main() -> int:
    """Time the three, print, and fail where extraction of prepared clips costs more than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=96, help="clips (96)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips through the network at a time (16)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (5)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = VideoMoCoConfig(
        arch="r3d_18", num_frames=8, fps=4, image_size=56, widths=[32, 64], depths=[1, 2]
    )
    model, processor = VideoMoCoModel(config).eval(), VideoMoCoProcessor.from_config(config)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        data = Path(folder) / "data"
        shapes = SoundingShapes(12, 12, args.clips, ClipSettings(size=64))
        write_sounding_shapes(data, shapes, show_progress=False)
        dataset = load_videos(str(data), "test")
        ready = PreparedClips(processor, dataset, keep=True)
        tensors = torch.cat([ready[row].inputs for row in range(len(ready))])

        def bare() -> None:
            for batch in tensors.split(args.batch_size):
                embed(model, batch)

        def decoded() -> None:
            for row in range(len(dataset)):
                PreparedClips(processor, dataset)[row]

        ways = {
            "bare loop over tensors": bare,
            "extraction, clips prepared": lambda: extract_features(
                model, processor, ready, batch_size=args.batch_size
            ),
            "extraction, clips decoded": lambda: extract_features(
                model, processor, dataset, batch_size=args.batch_size
            ),
            "decoding alone": decoded,
        }
        found = measure(ways, args.rounds)
    seconds = {name: (statistics.median(cpu), statistics.median(wall)) for name, (cpu, wall) in found.items()}
    reference = seconds["bare loop over tensors"][0]
    print(
        f"{args.clips} clips of 8 x 56 x 56, {args.threads} thread(s) in the model; medians of {args.rounds}"
    )
    print(f"{'':28}{'CPU s':>8}{'wall s':>8}{'clips/s/core':>14}{'to bare':>9}")
    for name, (cpu, wall) in seconds.items():
        print(f"{name:28}{cpu:8.2f}{wall:8.2f}{args.clips / cpu:14.1f}{cpu / reference:9.2f}")
    pairs = zip(found["extraction, clips prepared"][0], found["bare loop over tensors"][0], strict=True)
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    print(f"extraction of prepared clips to a bare loop: {ratio:.3f} (at most {LIMIT})")
    return 0 if ratio <= LIMIT else 1


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """CPU and wall seconds of every way in every round, after one that does not count."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for round_number in range(rounds + 1):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            if round_number:
                found[name][0].append(time.process_time() - cpu)
                found[name][1].append(time.perf_counter() - wall)
    return found


if __name__ == "__main__":
    sys.exit(main())
