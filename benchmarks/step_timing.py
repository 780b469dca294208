"""Times training steps of several sides, each in a process of its own, and prints them beside the first one.

A script that uses this has a table of sides and calls `compare`; every side runs in a fresh process of that
script on one thread, so that its peak memory is its own. Time is that process's CPU time, the best of the
measured steps. Peak memory is the most that was resident at once: in the whole process, loading included, and
"of the step" while steps ran, beyond what was resident before the first one (weights and libraries).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_step_arguments", "compare"]

Step = Callable[[], dict[str, Tensor]]
"""One training step; returns named scalars, the first of which is a loss."""


def add_step_arguments(parser: argparse.ArgumentParser, batch: int, frames: int) -> None:
    """Sizes of a step, and what the sides' own processes are told."""
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def compare(
    arguments: argparse.Namespace, sides: Sequence[str], make_step: Callable[[str], Step]
) -> dict[str, dict[str, Any]]:
    """Run this process's side, or all sides, one after the other.

    Args:
        arguments: of `add_step_arguments`. Sides share files in `arguments.folder`.
        sides: their names; figures are printed relative to the first.
        make_step: builds the step of a side.

    Returns:
        Figures of every side; nothing in the process of one side.
    """
    if arguments.side:
        measure(make_step(arguments.side), arguments.steps)
        return {}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            command = [sys.executable, *sys.argv, "--side", side, "--folder", folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[side] = json.loads(output.splitlines()[-1])
            show(side.ljust(max(map(len, sides))), results[side], next(iter(results.values())))
    return results


def measure(step: Step, steps: int) -> None:
    """Print the figures of some steps as JSON."""
    torch.set_num_threads(1)
    loading, before = status("VmHWM"), status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident
    values, seconds = [], []
    for _ in range(steps):
        start = time.process_time()
        values.append({name: value.item() for name, value in step().items()})
        seconds.append(time.process_time() - start)
    running = status("VmHWM")
    figures = {"seconds": min(seconds), "peak": max(loading, running), "step": running - before}
    print(json.dumps({"values": values, **figures}))


def status(name: str) -> float:
    """A size that Linux knows of this process, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {name}: memory is measured on Linux alone")


def show(name: str, result: dict[str, Any], first: dict[str, Any]) -> None:
    """One line, relative to the first side; losses are those of the first step."""
    (what, loss), *more = result["values"][0].items()
    print(
        f"{name} {result['seconds']:7.2f} s/step  {first['seconds'] / result['seconds']:5.2f}x"
        f"   peak {result['peak']:6.0f} MiB ({result['peak'] / first['peak']:.2f}x),"
        f" of the step {result['step']:6.0f} MiB ({result['step'] / first['step']:.2f}x)"
        f"   {what} {loss:.6f} ({loss / first['values'][0][what] - 1:+.1e})"
        + "".join(f"   {other} {value:.3g}" for other, value in more),
        flush=True,
    )
