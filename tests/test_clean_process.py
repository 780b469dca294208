"""Saved folders in processes that know nothing: loaded, run, saved, loaded again, bit by bit the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common import without_package
from common.media import make_clip
from common.tiny import tiny
from videossl_hf.registry import METHODS, find_class, has_class
from videossl_hf.remote_code import AUTO_CLASSES

MODELS = {name: suffix for name, (kind, suffix) in AUTO_CLASSES.items() if kind == "modeling"}


def run(work: Path, source: str, target: str, mode: str) -> dict[str, Any]:
    (work / target).mkdir(exist_ok=True)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / f"home-{mode}"),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, without_package.__file__, work, work / source, work / target, mode]
    done = subprocess.run([*map(str, command)], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(work / target / "results.pt", weights_only=True)


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    return found == expected


@pytest.fixture(scope="module", params=METHODS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Folders of every kind of model of a method, with what to run on them."""
    method, work = request.param, tmp_path_factory.mktemp("work")
    clip = make_clip(work / "clip.mp4")
    inputs = {}
    for name, suffix in MODELS.items():
        if has_class(method, suffix):
            torch.manual_seed(0)
            find_class(method, suffix)(tiny(method).make_config()).save_pretrained(work / "first" / name)
            tiny(method).make_processor().save_pretrained(work / "first" / name)
            inputs[name] = tiny(method).make_inputs(suffix)
    torch.save(inputs, work / "inputs.pt")
    (work / "processor.json").write_text(json.dumps(tiny(method).processor_arguments(str(clip))))
    return method, work


@pytest.fixture(scope="module")
def registered(saved: tuple[str, Path]) -> dict[str, Any]:
    """What the installed package computes."""
    return run(saved[1], "first", "registered", "imported")


@pytest.fixture(scope="module")
def blocked(saved: tuple[str, Path]) -> dict[str, Any]:
    return run(saved[1], "first", "second", "blocked")


def without_modules(results: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in results.items() if name != "imported" and not name.endswith(" module")
    }


def test_a_folder_loads_where_the_package_cannot_be_imported_with_equal_results(
    registered: dict[str, Any], blocked: dict[str, Any]
) -> None:
    assert not blocked["imported"]
    assert all(
        value.startswith("transformers_modules.")
        for name, value in blocked.items()
        if name.endswith("module")
    )
    assert same(without_modules(blocked), without_modules(registered))
    assert len(blocked["pipeline"]) == 3


def test_what_was_loaded_so_is_saved_byte_by_byte_and_loads_again(
    saved: tuple[str, Path], blocked: dict[str, Any]
) -> None:
    _, work = saved
    for folder in (work / "first").iterdir():
        names = {path.name for path in folder.iterdir()}
        assert names == {path.name for path in (work / "second" / folder.name).iterdir()}
        for name in names:
            assert (folder / name).read_bytes() == (work / "second" / folder.name / name).read_bytes(), name
    again = run(work, "second", "third", "blocked")
    assert same(without_modules(again), without_modules(blocked))


def test_an_imported_package_loads_its_own_classes_without_trust_and_with_it(
    saved: tuple[str, Path], registered: dict[str, Any]
) -> None:
    both = run(saved[1], "first", "both", "both")
    for results in (registered, both):
        assert all(
            value.startswith("videossl_hf.") for name, value in results.items() if name.endswith("module")
        )
    assert same(without_modules(both), without_modules(registered))


def test_without_trust_and_without_the_package_nothing_is_run(saved: tuple[str, Path]) -> None:
    _, work = saved
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from without_package import Blocked;"
        "sys.meta_path.insert(0, Blocked()); from transformers import AutoModel;"
        "AutoModel.from_pretrained(sys.argv[1], trust_remote_code=False)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(work / "first" / "AutoModel"),
        str(Path(without_package.__file__).parent),
    ]
    done = subprocess.run(
        command, cwd=work, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr
