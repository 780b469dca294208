"""Trains by a recipe in processes that can be killed, as `videossl pretrain` and `finetune` do.

    python run_recipe.py '[[["pretrain", "recipe.yaml", "--training.max_steps", "6"], null], [[...], 3]]'

does these runs one after the other, each in a fresh process (forked: libraries are imported once), and
prints how each ended as a JSON list: its exit code, or "killed". A number kills the run, by SIGKILL and at
whatever it is doing, once its log has that step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from videossl_hf.cli import main
from videossl_hf.training import finetune, pretrain, trainer  # noqa: F401 - imported before the processes part


def last_step(output: Path) -> int:
    log = output / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=-1)


def run(arguments: list[str], kill_at: int | None) -> int | str:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os._exit(main(arguments))
    output = Path(arguments[arguments.index("--training.output_dir") + 1])
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "killed" if status == signal.SIGKILL else os.waitstatus_to_exitcode(status)
        if kill_at is not None and last_step(output) >= kill_at:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


if __name__ == "__main__":
    print(json.dumps([run(*each) for each in json.loads(sys.argv[1])]))
