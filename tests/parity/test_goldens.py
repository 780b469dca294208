"""Every golden case, by its method and kind, whatever its sizes and options.

`parity/<method>.py` holds `CHECKS`: kind -> function that takes a `Golden` and asserts.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from parity.goldens import Golden, find_goldens, golden_roots
from videossl_hf.registry import METHODS

ROOTS = golden_roots()
CASES = {root: find_goldens(root) for root in ROOTS}


def _parameters() -> list[object]:
    parameters = []
    for root, cases in CASES.items():
        for case in cases:
            folder = case.path.relative_to(root).parent
            name = f"{case.method}-{case.kind}-{folder / case.path.name}"
            released = case.method in METHODS
            marks = [] if released else [pytest.mark.skip(reason="method not in this release")]
            parameters.append(pytest.param(case, id=name, marks=marks))
    return parameters


@pytest.mark.parametrize("golden", _parameters())
def test_ours_gives_the_recorded_numbers(golden: Golden) -> None:
    checks = importlib.import_module(f"parity.{golden.method}").CHECKS
    known = f"kinds of {golden.method} that are checked: {sorted(checks)}"
    assert golden.kind in checks, f"{golden.path.name} has kind {golden.kind!r}; {known}"
    checks[golden.kind](golden)


@pytest.mark.parametrize("root", ROOTS, ids=str)
def test_every_folder_of_goldens_holds_a_case(root: Path) -> None:
    assert root.is_dir(), f"{root} is not a folder"
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    empty = [
        str(folder) for folder in folders if not any(case.path.is_relative_to(folder) for case in CASES[root])
    ]
    assert not empty, f"no case was found in {', '.join(empty)}"


@pytest.mark.parametrize("method", METHODS)
def test_every_released_method_has_a_case_of_each_kind_that_it_checks(method: str) -> None:
    found = {case.kind for cases in CASES.values() for case in cases if case.method == method}
    carried = {case.kind for case in CASES[ROOTS[0]] if case.method == method}
    assert carried, f"tests/parity/data carries no case of {method}"
    assert found <= importlib.import_module(f"parity.{method}").CHECKS.keys()
