"""What `make compare` runs, and the table it writes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from videossl_hf.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PLAN = yaml.safe_load((ROOT / "benchmarks/comparison.yaml").read_text())


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_benchmark", ROOT / "benchmarks/compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def args(tmp_path: Path) -> Any:
    return SimpleNamespace(work=tmp_path, all_rows=PLAN["rows"], clips=60, levels=["low", "mid"])


@pytest.mark.parametrize("row", [row for row, settings in PLAN["rows"].items() if "recipe" in settings])
def test_every_row_is_a_recipe_that_its_overrides_fit(compare: ModuleType, args: Any, row: str) -> None:
    settings = PLAN["rows"][row]
    assert settings["saw"] in ("none", "sound", "text", "labels")
    command = compare.training_command(args, row, "low", args.work / "run", 100, seed=2)
    recipe = load_recipe(command[2], command[3:])
    assert (recipe.training.max_steps, recipe.training.seed) == (100, 2)
    assert recipe.data.train == str(args.work / "low/data")
    assert recipe.evaluation_steps is None
    assert ("finetune.py" in command[1]) == (settings["saw"] == "labels")
    assert not any("{" in word and "}" in word for word in command)
    counted = compare.filled(args, settings.get("measure", ""), row, "low", 8)
    load_recipe(command[2], [*command[3:], *counted])


def test_shares_of_the_steps_levels_and_folders_are_filled_in(compare: ModuleType, args: Any) -> None:
    words = compare.filled(args, "--a {steps:0.4} --b {data} --c {work}/x --d {level}", "R3D, x", "mid", 200)
    assert words[1::2] == ["80", f"{args.work}/mid/data", f"{args.work}/mid/before/r3d-x/x", "mid"]


def test_a_cell_of_other_settings_does_not_count(compare: ModuleType, args: Any) -> None:
    cell = compare.Cell("VideoMAE", "low", 0, "steps", 5)
    folder = args.work / cell.name
    folder.mkdir(parents=True)
    state = compare.state_of(args, cell)
    (folder / "cell.json").write_text(compare.json.dumps({"state": state}))
    assert compare.read_cell(args, cell) == {"state": state}
    same = compare.Cell("VideoMAE", "low", 0, "operations", 5)
    assert compare.read_cell(args, same) == {"state": state}, "equally many steps are one training"
    args.clips = 61
    assert compare.read_cell(args, cell) is None


def test_the_tables_say_supervision_cost_and_gain(compare: ModuleType) -> None:
    figure = {"mean": 50.0, "std": 1.5, "random": 40.0}
    row = {"row": "STiCA", "saw": "sound", "parameters": 2_000_000, "cpu_seconds": 99.6, "flop": 3e12,
           "figures": {"low knn": figure, "low linear": figure}}  # fmt: skip
    report = {
        "clips": 60, "levels": ["low"], "budget_flop": 13.21e12, "most_steps": 25,
        "before_cpu_seconds": {"STiCA": 12.0},
        "hand_made": {"frame difference": {"low": {"knn": 30.0, "linear": 20.0}}},
        "rows": [row | {"table": "steps", "steps": 10}, row | {"table": "operations", "steps": 25}],
    }  # fmt: skip
    text = compare.markdown(report)
    assert text.count("| STiCA | sound | 2.00 M | 10 | 3.00 | 100 + 12 | 50.0 ± 1.5 (+10.0) |") == 1
    assert text.count("| STiCA | sound | 2.00 M | 25 |") == 1
    assert text.count("| frame difference | none | 0 | | | | 30.0 | 20.0 |") == 2
    assert "By equal steps:" in text
    assert "By equal operations (13.2 TFLOP; no row takes more than 25 steps):" in text
