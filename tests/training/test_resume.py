"""A run that was killed and went on ends exactly as one that never stopped."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("run_toy.py")


def do_runs(folder: Path, *runs: dict[str, Any]) -> list[str]:
    process = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(runs)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    endings: list[str] = json.loads(process.stdout.splitlines()[-1])
    if "failed" in endings:
        raise AssertionError(process.stderr[-3000:])
    return endings


def seen_per_step(output: Path, rank: int = 0) -> dict[int, list[str]]:
    """Step -> its micro-batches, as the last process that took the step saw them."""
    steps: dict[int, list[str]] = {}
    last = -1
    for line in (output / f"seen-{rank}.txt").read_text().splitlines():
        step, batch = line.split(" ", 1)
        if int(step) != last:
            steps[int(step)] = []
            last = int(step)
        steps[int(step)].append(batch)
    del steps[0]  # a process began
    return steps


def assert_bitwise_equal(one: Any, other: Any, path: str = "") -> None:
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_bitwise_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_bitwise_equal(left, right, f"{path}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def check_resume(folder: Path, kill: dict[str, int], **settings: Any) -> None:
    endings = do_runs(
        folder,
        {"output": "unbroken", **settings},
        {"output": "broken", **settings, **kill},
        {"output": "broken", **settings},
    )
    assert endings == ["done", "killed", "done"]
    ends = [torch.load(folder / name / "end.pt", weights_only=True) for name in ("unbroken", "broken")]
    assert_bitwise_equal(*ends)
    for rank in range(settings.get("processes", 1)):
        assert seen_per_step(folder / "unbroken", rank) == seen_per_step(folder / "broken", rank)


def settings_of(seed: int) -> tuple[dict[str, int], dict[str, Any]]:
    draw = random.Random(seed)
    settings = {
        "save_steps": draw.choice([1, 2, 3]),
        "accumulation": draw.choice([1, 2]),
        "optimizer": draw.choice(["sgd", "adamw"]),
        "bf16": draw.random() < 0.3,
    }
    step = draw.randint(1, 8)
    if draw.random() < 0.3:
        return {
            "kill_while_saving": settings["save_steps"] * draw.randint(1, 8 // settings["save_steps"])
        }, settings
    return {"kill_at": step}, settings


def test_a_killed_run_that_goes_on_ends_bit_identical(tmp_path: Path) -> None:
    check_resume(tmp_path, {"kill_at": 5}, accumulation=2, save_steps=2)


def test_a_killed_streamed_run_in_two_processes_with_workers_ends_bit_identical(tmp_path: Path) -> None:
    check_resume(tmp_path, {"kill_at": 5}, streaming=True, processes=2, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_run_killed_at_a_random_step_ends_bit_identical(
    tmp_path: Path, seed: int, streaming: bool, workers: int, processes: int
) -> None:
    kill, settings = settings_of(seed)
    check_resume(tmp_path, kill, streaming=streaming, workers=workers, processes=processes, **settings)


def test_a_checkpoint_that_was_being_written_is_not_resumed_from(tmp_path: Path) -> None:
    check_resume(tmp_path, {"kill_while_saving": 4}, save_steps=2, keep=1)


def test_a_resumed_stream_does_not_decode_what_was_seen_before(tmp_path: Path) -> None:
    runs = {"output": "run", "streaming": True, "save_steps": 4}
    assert do_runs(tmp_path, {**runs, "kill_at": 4 + 1}, runs) == ["killed", "done"]
    decoded = (tmp_path / "run/decoded-0.txt").read_text().splitlines()
    # Nine steps of three, and the fifth twice: it came after the checkpoint of step 4.
    assert len(decoded) == 3 * (9 + 1)


def test_processes_see_disjoint_samples_that_together_are_those_of_one_large_batch(tmp_path: Path) -> None:
    do_runs(
        tmp_path,
        {"output": "one", "steps": 3, "batch_size": 4},
        {"output": "two", "steps": 3, "batch_size": 2, "processes": 2},
    )
    whole = seen_per_step(tmp_path / "one")
    parts = [seen_per_step(tmp_path / "two", rank) for rank in range(2)]
    for step in whole:
        shares = [json.loads(part[step][0]) for part in parts]
        assert not set(shares[0]) & set(shares[1])
        assert shares[0] + shares[1] == json.loads(whole[step][0])
