"""Nothing in a training step may wait for the device: a scan of the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import videossl_hf

ROOT = Path(videossl_hf.__file__).parent
STEP_CODE = sorted(
    [
        *(path for path in (ROOT / "nn").glob("*.py") if path.stem not in ("base", "base_config")),
        *(ROOT / "models").glob("*/modeling_*.py"),
        *(ROOT / "models").glob("*/objective_*.py"),
        *(ROOT / "models").glob("*/pooling_*.py"),
    ]
)
WAITING = {"item", "cpu", "tolist", "numpy", "nonzero", "masked_select", "unique", "is_nonzero"}


def waits(source: str) -> list[str]:
    """Lines that copy a value to the host."""
    return [
        f"line {node.lineno}: .{node.func.attr}()"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITING
    ]


@pytest.mark.parametrize("path", STEP_CODE, ids=lambda path: path.name)
def test_step_code_never_copies_a_value_to_the_host(path: Path) -> None:
    assert waits(path.read_text()) == []


def test_the_scan_sees_what_it_looks_for() -> None:
    assert len(STEP_CODE) >= 8
    assert waits("def f(x):\n    return x.mean().item() + x.cpu().tolist()[0]") == [
        "line 2: .item()",
        "line 2: .tolist()",
        "line 2: .cpu()",
    ]
