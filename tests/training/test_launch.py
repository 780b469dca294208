"""The commands that a user types, through the real launcher, and what is published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from videossl_hf import cli

ROOT = Path(__file__).parents[2]

TINY_STICA = [
    "--model.num_frames", "4", "--model.fps", "4", "--model.image_size", "12", "--model.audio_seconds", "1",
    "--model.num_mel_bins", "16", "--model.video_widths", "[8, 16]", "--model.video_depths", "[1, 1]",
    "--model.video_stem_width", "4", "--model.audio_widths", "[8]", "--model.audio_depths", "[1]",
    "--model.pooling_ffn", "16", "--model.projection_hidden", "16", "--model.projection_dim", "8",
    "--augmentation.decode_short_side", "16", "--training.max_steps", "2", "--training.batch_size", "4",
    "--training.save_steps", "1", "--evaluation.knn_every", "2", "--evaluation.train_samples", "12",
    "--evaluation.validation_samples", "12", "--training.logging_steps", "1",
]  # fmt: skip

TINY_VIDEOMOCO = [
    "--model.num_frames", "4", "--model.image_size", "16", "--model.widths", "[8, 8]",
    "--model.depths", "[1, 1]", "--model.dim", "8", "--model.queue_size", "24",
    "--model.adversarial_start_step", "1",
    "--model.key_batch_splits", "1", "--augmentation.decode_short_side", "20", "--training.max_steps", "2",
    "--training.batch_size", "4", "--training.save_steps", "2", "--training.logging_steps", "1",
    "--training.device", "cpu", "--evaluation.knn_every", "null",
]  # fmt: skip


def launch(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


def smoke_run(clips: Path, output: Path) -> list[str]:
    recipe = str(ROOT / "training/recipes/stica/smoke.yaml")
    return [recipe, *TINY_STICA, "--data.train", str(clips), "--training.output_dir", str(output)]


def losses(output: Path) -> dict[int, float]:
    log = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def test_two_processes_go_on_from_one_and_other_sizes_are_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VideoMoCo, whose queue is part of a checkpoint: it stays the same on all processes, and goes on."""
    recipe, output = str(ROOT / "training/recipes/videomoco/smoke.yaml"), tmp_path / "run"
    command = [recipe, *TINY_VIDEOMOCO, "--data.train", str(clips), "--training.output_dir", str(output)]
    assert cli.main(["pretrain", *command]) == 0
    before = read_queue(output / "checkpoint-2")
    assert before["pointer"].tolist() == [8]  # two steps of four clips

    assert cli.main(["pretrain", *command, "--model.queue_size", "32"]) == 1
    assert "differs in model.queue_size" in capsys.readouterr().err
    forced = ["--model.queue_size", "32", "--resume", str(output / "checkpoint-2")]
    assert cli.main(["pretrain", *command, *forced]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error:")
    assert "checkpoint-2 does not fit this run" in message
    assert "queue" in message

    result = launch(
        "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "training/accelerate/cpu_2.yaml"),
        str(ROOT / "training/pretrain.py"), *command, "--training.max_steps", "4",
        "--training.processes", "2", "--resume", str(output / "checkpoint-2"),
        cwd=tmp_path, ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "checkpoint-2 was written by 1 process(es), 2 go on" in result.stdout
    assert "2 process(es)" in result.stdout
    assert "8 clips a step" in result.stdout
    seal = json.loads((output / "checkpoint-4/checkpoint.json").read_text())
    assert seal["world_size"] == 2
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= seal["files"].keys()
    assert losses(output).keys() == {1, 2, 3, 4}
    after = read_queue(output / "checkpoint-4")
    assert after["pointer"].tolist() == [0]  # two more steps of eight, round the queue of 24
    assert torch.equal(after["keys"][:, :8], before["keys"][:, :8])  # those of one process are still there
    assert not torch.equal(after["keys"][:, 8:], before["keys"][:, 8:])
    assert after["ages"].unique().numel() == 4


def read_queue(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Keys, ages and pointer that a checkpoint of VideoMoCo holds."""
    state = load_file(checkpoint / "model.safetensors")
    return {name.removeprefix("queue."): value for name, value in state.items() if name.startswith("queue.")}


def test_the_script_trains_in_one_process(clips: Path, tmp_path: Path) -> None:
    result = launch(
        str(ROOT / "training/pretrain.py"),
        *smoke_run(clips, tmp_path / "one"),
        "--resume",
        "never",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert losses(tmp_path / "one").keys() == {1, 2}
    assert (tmp_path / "one/modeling_stica.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "error: there is no recipe absent.yaml"),
        (["RECIPE", "--training.max_step", "2"], "error: unknown recipe key training.max_step: did you mean"),
        (["RECIPE", "--resume"], "error: --resume needs auto, never or a checkpoint folder"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "training/recipes/stica/smoke.yaml")
    given = [recipe if argument == "RECIPE" else argument for argument in arguments]
    assert cli.main(["pretrain", *given]) == 1
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1].startswith(message)
    assert "Traceback" not in shown


def test_help_lists_the_recipe_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--schedule.warmup_start_factor [0.0]" in shown
    assert "--training.output_dir [required]" in shown
