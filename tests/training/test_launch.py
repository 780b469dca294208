"""The commands that a user types, through the real launcher, and what is published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_launcher_starts_two_processes_that_train_one_model(clips: Path, tmp_path: Path) -> None:
    result = launch(
        "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "training/accelerate/cpu_2.yaml"),
        str(ROOT / "training/pretrain.py"), *smoke_run(clips, tmp_path / "two"), "--training.processes", "2",
        cwd=tmp_path, ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "2 process(es)" in result.stdout
    assert "8 clips a step" in result.stdout
    seal = json.loads((tmp_path / "two/checkpoint-2/checkpoint.json").read_text())
    assert seal["world_size"] == 2
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= seal["files"].keys()
    assert losses(tmp_path / "two").keys() == {1, 2}


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
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    recipe = str(ROOT / "training/recipes/stica/smoke.yaml")
    given = [recipe if argument == "RECIPE" else argument for argument in arguments]
    result = launch("-m", "videossl_hf.cli", "pretrain", *given, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in result.stderr


def test_help_lists_the_recipe_keys(tmp_path: Path) -> None:
    result = launch("-m", "videossl_hf.cli", "pretrain", "--help", cwd=tmp_path)
    assert "--schedule.warmup_start_factor [0.0]" in result.stdout
    assert "--training.output_dir [required]" in result.stdout
