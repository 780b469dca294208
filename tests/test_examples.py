"""The examples, as a reader would call them: on a few clips and with models that know nothing."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from media import sweep, write_media
from models import tiny_stica
from videossl_hf import STiCAForPreTraining

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = (
    "--training.batch_size 8 --model.video_widths [8,16] --model.video_depths [1,1] "
    "--model.audio_widths [8,8] --model.audio_depths [1,1] --model.pooling_ffn 16 --evaluation.knn_every null"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    STiCAForPreTraining(tiny_stica.make_config()).save_pretrained(folder)
    tiny_stica.make_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds each, two of either class."""
    folder = tmp_path_factory.mktemp("videos")
    for number, label in enumerate(("jump", "jump", "wave", "wave")):
        path = folder / label / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_media(path, seed=number, sound=sweep(3.0, 24000))
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a script and returns the lines that it prints."""

    def run(script: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_scene_changes_has_a_line_for_every_window_but_the_first(example, model, videos):
    lines = example("scene_changes.py", model, videos / "jump/0.mp4", "--window", 1, "--stride", 0.5)
    times = [float(line.split()[0]) for line in lines]
    assert times == [0.5 * number for number in range(1, len(lines) + 1)]
    assert len(lines) >= 3
    assert all(0 <= float(line.split()[2]) <= 2 for line in lines)


def test_the_most_similar_video_is_the_query_itself(example, model, videos, tmp_path):
    query = videos / "wave/2.mp4"
    for _ in range(2):  # the second time from the cache
        lines = example("similar_videos.py", model, videos, query, "--top", 3, "--cache", tmp_path / "kept")
        score, key = lines[-3].split(maxsplit=1)  # before them a progress bar may stand
        assert float(score) == pytest.approx(1, abs=2e-3)
        assert key.endswith("2.mp4")


def test_a_sound_is_compared_with_every_video(example, model, videos):
    lines = example("video_of_a_sound.py", model, videos, videos / "wave/3.mp4", "--top", 4)
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4
    assert all(-1 <= score <= 1 for score in scores)


def test_transformers_own_trainer_trains_a_classifier(example, model, videos, tmp_path):
    example("transformers_trainer.py", model, videos, tmp_path, "--steps", 1, "--batch-size", 4)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "jump", "1": "wave"}
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path))
    same = [torch.equal(before[name], after[name]) for name in after if name in before]
    assert same
    assert not all(same)
    assert after["classifier.weight"].shape[0] == 2
    assert (tmp_path / "processor_config.json").is_file()


def test_the_table_names_every_example_and_they_explain_themselves(monkeypatch, capsys):
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))
    assert [name for name in files if f"({name})" not in listed] == []
    for name in files:
        if name.endswith(".py"):
            monkeypatch.setattr(sys, "argv", [name, "--help"])
            with pytest.raises(SystemExit):
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            assert f"python examples/{name}" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    """Its cells as they stand, but with few clips and steps, in a folder of its own."""
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    for before, after in {
        "CLIPS = 1200": "CLIPS = 24",
        "STEPS = 300": "STEPS = 1",
        "--training.max_steps": f"{SMALL} --training.max_steps",
    }.items():
        assert sum(before in cell for cell in cells) == 1
        cells = [cell.replace(before, after) for cell in cells]
    (tmp_path / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    shown: list[object] = []
    names: dict[str, object] = {"__name__": "__main__", "display": shown.append}
    for cell in cells:
        exec(compile(cell, "first_steps.ipynb", "exec"), names)
    printed = capsys.readouterr().out
    assert "random weights: " in printed
    assert "pre-trained: " in printed
    assert "(the clip itself)" in printed
    assert len(shown) == 7
    assert (tmp_path / "outputs/first-steps/stica/model.safetensors").is_file()


def test_the_slurm_script_starts_one_launcher_a_machine(tmp_path):
    """With stand-ins for Slurm's own commands and for accelerate, which write down how they are called."""
    for name, body in {
        "scontrol": "printf '%s\\n' node1 node2",
        "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": 'printf "%s|" "$@"; echo',
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "31", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    script = ROOT / "training/slurm/train.sbatch"
    arguments = ["training/pretrain.py", "recipe.yaml", "--data.train", "a folder"]

    def submit(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"]} | environment
        return subprocess.run(
            ["bash", str(script), *words], env=environment, cwd=ROOT, capture_output=True, text=True
        )

    done = submit(slurm, *arguments)
    assert done.returncode == 0, done.stderr
    calls = [line.rstrip("|").split("|") for line in done.stdout.splitlines()]
    assert len(calls) == 2
    for rank, call in enumerate(calls):
        settings = dict(zip(call[1:13:2], call[2:13:2], strict=True))
        assert settings == {
            "--config_file": "training/accelerate/multi_gpu.yaml", "--num_machines": "2",
            "--num_processes": "16", "--machine_rank": str(rank), "--main_process_ip": "node1",
            "--main_process_port": "20031",
        }  # fmt: skip
        assert call[13:] == arguments
        assert (ROOT / settings["--config_file"]).is_file()
    assert "submit this file with sbatch" in submit({}, *arguments).stderr
    assert "training/pretrain.py RECIPE" in submit(slurm).stderr
    without_gpus = {name: value for name, value in slurm.items() if name != "SLURM_GPUS_ON_NODE"}
    assert "ask for GPUs" in submit(without_gpus, *arguments).stderr
