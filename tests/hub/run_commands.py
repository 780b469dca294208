"""Runs command lines in their order until one fails: `python run_commands.py '["videossl ...", "..."]'`.

Those of videossl run in forks of this process, which has imported the libraries once; any other is the
shell's. The last line printed is how each ended, as a JSON list of exit codes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import torch

from videossl_hf.cli import COMMANDS, main
from videossl_hf.evaluation import evaluate  # noqa: F401 - imported before the processes part


def run(command: str) -> int:
    words = shlex.split(command)
    if words[0] != "videossl":
        return subprocess.run(["bash", "-c", command]).returncode
    assert words[1] in COMMANDS
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        code = main(words[1:])
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    codes: list[int] = []
    for line in json.loads(sys.argv[1]):
        print(f"$ {line}", flush=True)
        codes.append(run(line))
        if codes[-1]:
            break
    print(json.dumps(codes))
