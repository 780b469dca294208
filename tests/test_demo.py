"""The demonstration, as small as it gets: every stage for real, in processes of their own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import videossl_hf.demo as demo
from videossl_hf.data.datasets import load_videos
from videossl_hf.demo import DemoError, DemoSettings, run_demo
from videossl_hf.errors import ConfigurationError, OutputError
from videossl_hf.evaluation.features import extract_features
from videossl_hf.evaluation.loading import load_model, load_processor
from videossl_hf.evaluation.protocols import knn_protocol
from videossl_hf.evaluation.results import read_results

TINY = (
    *("--training.batch_size", "12", "--training.logging_steps", "1", "--training.save_steps", "2"),
    *("--training.device", "cpu", "--evaluation.knn_every", "1"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The findings, the folder and what the terminal showed."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        output = tmp_path_factory.mktemp("demo") / "out"
        console = Console(file=io.StringIO(), width=100)
        findings = run_demo(DemoSettings(output, clips=48, steps=2, overrides=TINY), console)
    return findings, output, console.file.getvalue()


def test_the_terminal_shows_stages_with_their_times_and_figures_on_one_screen(finished):
    findings, _, shown = finished
    assert all(f"{number}/5" in shown for number in range(1, 6))
    summary = shown[shown.index("╭") :].splitlines()
    assert len(summary) <= 24
    assert "One seed (0)" in shown
    assert "bit for bit the same" in shown
    for panel in findings.figures.values():
        assert all(str(figure) in shown for figure in panel.values())


def test_the_report_and_its_pictures_are_written(finished):
    _, output, _ = finished
    page = (output / "report.html").read_text()
    for heading in ("What was learned", "What looks alike", "Which sound belongs", "Where the probe errs"):
        assert heading in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib", "")
    for name in ("figures", "loss", "knn_over_time", "confusion", "sound_and_vision", "neighbours"):
        assert Image.open(output / f"{name}.png").width > 200


def test_every_figure_lies_in_the_results_file(finished):
    findings, output, _ = finished
    results = read_results(output / "results.json")
    values = {figure.value for result in results for figure in result.figures.values()}
    assert {figure.value for panel in findings.figures.values() for figure in panel.values()} <= values
    kinds = {(r.protocol["name"], bool(r.model.get("random_weights"))) for r in results}
    assert {("knn", False), ("knn", True), ("linear", True), ("cross-modal", False)} <= kinds


def test_random_weights_are_the_network_before_its_training(finished):
    _, output, _ = finished
    folder = str(output / "training")
    log = [json.loads(line) for line in (output / "training" / "metrics.jsonl").read_text().splitlines()]
    start = next(entry["eval_knn_top1"] for entry in log if entry.get("step") == 0)
    model = load_model(folder, random_weights=True, seed=0, for_pretraining=True)
    train, validation = (
        extract_features(model, load_processor(folder), load_videos(str(output / "sounding-shapes"), split))
        for split in ("train", "validation")
    )
    assert knn_protocol(train, validation).figures["top1"].value == pytest.approx(100 * start)


def test_the_pack_is_whole(finished):
    _, output, _ = finished
    names = {path.name for path in (output / "model").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_stica.py", "recipe.yaml", "results.json"} <= names
    own = read_results(output / "model" / "results.json")
    assert all(result.model["class"].startswith("STiCA") for result in own)


def test_a_broken_pack_is_noticed(finished, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises((DemoError, ValueError)):
        demo._reload(tmp_path, {})


def test_without_the_recipes_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="clone the repository"):
        run_demo(DemoSettings(tmp_path / "out"))


def test_too_few_clips_are_refused_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 48"):
        DemoSettings(tmp_path, clips=24)


def test_a_failed_training_and_a_bad_folder_are_errors(finished, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        run_demo(DemoSettings(tmp_path / "file" / "out"), Console(file=io.StringIO()))
    root = Path(demo.__file__).parents[2]
    with pytest.raises(DemoError, match="exit code"):
        demo._pretrain(root, tmp_path, tmp_path / "run", DemoSettings(tmp_path, overrides=("--no.such", "1")))
