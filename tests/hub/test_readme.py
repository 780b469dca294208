"""The README's commands and its snippet, run in the order in which a reader would."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from media import sweep, write_media

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What is cut so that a command takes seconds: the end of the command line overrides what stands before it.
TINY_TRAINING = (
    "--model.video_widths [8,16] --model.video_depths [1,1] "
    "--model.audio_widths [8,8] --model.audio_depths [1,1] "
    "--model.pooling_heads 2 --model.pooling_ffn 16 --model.num_frames 4 --model.image_size 28 "
    "--training.max_steps 2 --training.batch_size 4 --training.num_workers 0 --training.save_steps 2"
)
CUTS = {
    "single_gpu.yaml": f"{TINY_TRAINING} --training.bf16 false --schedule.warmup_epochs 1",
    "smoke.yaml": f"{TINY_TRAINING} --evaluation.knn_every 2 --evaluation.knn_k 2",
    "--sounding-shapes": "--sounding-shapes 24 --validation 12 --test 12 --processes 1",
    "videossl evaluate": "--k 3",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "".join(blocks("bash")).splitlines()
    return [line for line in lines if line and not line.startswith(("make ", "pip install "))]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A reader's folder: the repository's training/ and a few videos with sound."""
    (tmp_path / "training").symlink_to(ROOT / "training")
    for label in ("jump", "wave"):
        for number in range(4):
            path = tmp_path / "my_videos" / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_media(path, sound=sweep(3.0, 24000))
    return tmp_path


def test_every_command_of_the_readme_runs_in_its_order(workplace: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = [
        f"{command} {' '.join(extra for mark, extra in CUTS.items() if mark in command)}"
        for command in commands()
    ]
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_commands.py")), json.dumps(lines)],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    codes = json.loads(process.stdout.splitlines()[-1])
    assert codes == [0] * len(lines), f"{process.stdout}\n{process.stderr}"


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"`?make ([a-z-]+)", README))

    for target in targets:
        process = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr


def test_the_figures_of_the_documents_are_those_of_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks/docs_numbers.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert (capsys.readouterr().out, end.value.code) == ("", 0)
    assert "<!-- numbers: smoke -->" in README


def test_the_readme_installs_extras_that_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for line in "".join(blocks("bash")).splitlines():
        if line.startswith("pip install"):
            extras = re.search(r"\[(.*)\]", shlex.split(line)[-1])
            assert extras is not None
            assert all(f"\n{extra} = [" in text for extra in extras[1].split(","))


def test_the_readme_s_snippet_computes_features(client: Callable[..., Any], clip_with_sound: Path) -> None:
    snippet = "".join(blocks("python"))
    publish = """
from models.tiny_stica import make_config, make_processor
from videossl_hf import STiCAForPreTraining
STiCAForPreTraining(make_config()).push_to_hub("videossl/stica-k400")
make_processor().push_to_hub("videossl/stica-k400")
"""
    client(publish)

    answer = client(
        f"import os, shutil\nshutil.copy({str(clip_with_sound)!r}, 'clip.mp4')\n{snippet}\n"
        "answer['shape'] = list(features.shape)\n"
        "answer['windows'] = [[{name: window.pop(name) for name in ('start', 'end')}, sorted(window)] "
        "for window in windows]"
    )

    assert len(answer["shape"]) == 2
    assert answer["shape"][0] == 1
    assert answer["windows"][1][0] == {"start": 1.0, "end": 3.0}
    assert answer["windows"][1][1] == ["audio_features", "features"]
