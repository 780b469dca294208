"""A Hub on loopback for every test here, and clients of it in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from server import LoopbackHub

from models.tiny_stica import make_config, make_processor
from videossl_hf import STiCAForPreTraining

TESTS = Path(__file__).parents[1]

# Put before a client's script to make a process in which this package does not exist.
WITHOUT_PACKAGE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "videossl_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
# Puts a client's results, a dictionary called `answer`, where the test reads them.
REPORT = "\nimport json, os\nwith open(os.environ['ANSWER'], 'w') as file: json.dump(answer, file)\n"


@pytest.fixture(scope="session")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub
    assert hub.unknown_requests == [], "clients asked for routes that the loopback Hub does not have"


@pytest.fixture(scope="session")
def client(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`client(script, token=..., package=...)` runs a Python script against the Hub and returns its `answer`.

    Every client works in an empty folder, with an empty HF_HOME inside it unless `home` names one;
    `package=False` makes a process that cannot import videossl_hf.
    """

    def run(
        script: str,
        *,
        token: str | None = "hf_alice",
        package: bool = True,
        home: Path | None = None,
        **variables: str,
    ) -> Any:
        folder = tmp_path_factory.mktemp("client")
        environment = os.environ | hub.environment(home or folder / "home", token)
        environment |= {"ANSWER": str(folder / "answer.json"), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        environment |= {"PYTHONPATH": str(TESTS)}  # for the tiny models
        code = ("" if package else WITHOUT_PACKAGE) + "answer = {}\n" + textwrap.dedent(script) + REPORT
        process = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | variables,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,  # the methods together take a minute alone, and several on a busy machine
        )
        assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
        return json.loads((folder / "answer.json").read_text())

    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder as training leaves it: a tiny model, its processor and code, and things to keep private."""
    torch.manual_seed(0)
    folder = tmp_path / "run"
    STiCAForPreTraining(make_config()).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"state")
    (folder / "training_args.bin").write_bytes(b"arguments")
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder
