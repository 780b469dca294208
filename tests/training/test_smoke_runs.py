"""The settings of the smoke runs: what is read, run once, and found in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from videossl_hf.errors import ConfigurationError, RecipeError
from videossl_hf.training.smoke_runs import SmokeRun, read_smoke_run

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "training/recipes/smoke_runs.yaml"


@pytest.mark.parametrize("method", yaml.safe_load(RUNS.read_text()))
def test_every_entry_is_sound(method: str) -> None:
    run = read_smoke_run(RUNS, method)
    assert run.shapes().train == run.clips
    assert (ROOT / "training" / run.script).is_file()
    assert (ROOT / "training/recipes" / method / "smoke.yaml").is_file()


def test_wrong_entries_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean stica"):
        read_smoke_run(RUNS, "sticka")
    (tmp_path / "runs.yaml").write_text("a: {clip: 8}\nb: {data: {nuisanse: low}}\nc: {data: {nuisance: lo}}")
    with pytest.raises(RecipeError, match=r"a\.clip.*did you mean a\.clips"):
        read_smoke_run(tmp_path / "runs.yaml", "a")
    with pytest.raises(RecipeError, match=r"data\.nuisanse.*data\.nuisance"):
        read_smoke_run(tmp_path / "runs.yaml", "b").shapes()
    with pytest.raises(ConfigurationError, match="nuisance must be one of"):
        read_smoke_run(tmp_path / "runs.yaml", "c").shapes()


def test_what_comes_before_runs_once(tmp_path: Path) -> None:
    """A second call does nothing; other commands run again."""
    (tmp_path / "count.py").write_text("import sys; open(sys.argv[2], 'a').write(sys.argv[1] + '\\n')")
    data, work = tmp_path / "data", tmp_path / "work"
    run = SmokeRun(data={"size": 16, "seconds": 1.0}, before=["count.py {data} {work}/before.txt"])
    for _ in range(2):
        run.prepare(tmp_path, data, work, clips=4, show_progress=False)
    assert (work / "before.txt").read_text() == f"{data}\n"
    other = SmokeRun(data=run.data, before=[*run.before, *run.before])
    other.prepare(tmp_path, data, work, clips=4, show_progress=False)
    assert len((work / "before.txt").read_text().splitlines()) == 3
    assert len(list((data / "train").glob("*.mp4"))) == 4
    overrides = SmokeRun(overrides="--processor.tokenizer {data}/tokenizer").recipe_overrides(data, work)
    assert overrides == ["--data.train", str(data), "--processor.tokenizer", f"{data}/tokenizer"]


def test_the_last_value_of_a_metric_counts(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_knn_top1": 9.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert SmokeRun(metrics=["loss"]).last_metrics(tmp_path) == {"loss": 2.0}
    with pytest.raises(RecipeError, match="'accuracy'"):
        SmokeRun(metrics=["accuracy"]).last_metrics(tmp_path)
