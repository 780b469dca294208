"""The Trainer publishes while it trains, and `videossl push` what it left, all of it tiny."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import LoopbackHub

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "stica" / "smoke.yaml"
STRATEGIES = ("end", "every_save", "checkpoint")
SCRIPT = f"""
import os
import torch
from transformers import AutoModelForPreTraining, AutoProcessor
from videossl_hf import cli
torch.set_num_threads(1)

def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0, arguments

run("prepare", "--sounding-shapes", 8, "--validation", 4, "--test", 4, "--output", "shapes")
for strategy in {STRATEGIES!r}:
    settings = {{
        "data.train": "shapes",
        "model.video_widths": [8, 8],
        "model.video_depths": [1, 1],
        "model.audio_widths": [8],
        "model.audio_depths": [1],
        "evaluation.knn_every": None,
        "training.max_steps": 2,
        "training.save_steps": 1,
        "training.batch_size": 4,
        "training.num_workers": 0,
        "training.processes": 1,
        "training.output_dir": strategy,
        "training.push_to_hub": True,
        "training.hub_model_id": f"alice/{{strategy}}",
        "training.hub_strategy": strategy,
    }}
    pairs = [f"--{{key}}={{'null' if value is None else value}}" for key, value in settings.items()]
    run("pretrain", os.environ["RECIPE"], *pairs)

def same(repository, folder, **options):
    there = AutoModelForPreTraining.from_pretrained(repository, **options).state_dict()
    here = AutoModelForPreTraining.from_pretrained(folder).state_dict()
    return there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in there)

answer["same"] = {{strategy: same(f"alice/{{strategy}}", strategy) for strategy in {STRATEGIES!r}}}
answer["checkpoint"] = same("alice/checkpoint", "checkpoint", subfolder="last-checkpoint")
answer["frames"] = AutoProcessor.from_pretrained("alice/end").video_processor.num_frames
run("push", "end", "alice/pushed")
answer["pushed"] = same("alice/pushed", "end")
"""


@pytest.fixture(scope="module")
def answer(client: Callable[..., Any]) -> dict:
    return client(SCRIPT, RECIPE=str(RECIPE))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_publishes_a_model_that_loads_by_id(strategy: str, answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository(f"alice/{strategy}").files()
    assert {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "modeling_stica.py",
        "recipe.yaml",
    } <= set(files)
    assert answer["same"][strategy]
    assert answer["frames"] == 8


@pytest.mark.parametrize(("strategy", "commits"), [("end", 1), ("every_save", 2), ("checkpoint", 2)])
def test_each_strategy_publishes_when_it_says(
    strategy: str, commits: int, answer: dict, hub: LoopbackHub
) -> None:
    titles = [commit.title for commit in hub.repository(f"alice/{strategy}").history("main")]
    assert sum("in progress" in title for title in titles) == (0 if strategy == "end" else commits)
    assert "End of training" in titles[0]


def test_the_last_checkpoint_holds_what_a_resume_needs(answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository("alice/checkpoint").files()
    assert {"last-checkpoint/optimizer.pt", "last-checkpoint/trainer_state.json"} <= set(files)
    assert answer["checkpoint"]


@pytest.mark.parametrize("strategy", [*STRATEGIES, "pushed"])
def test_no_pickled_arguments_are_published(strategy: str, answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository(f"alice/{strategy}").files()
    assert [name for name in files if "training_args" in name or name.endswith(".pkl")] == []


def test_the_run_folder_can_be_pushed_as_a_whole(answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository("alice/pushed").files()
    assert answer["pushed"]
    assert {"README.md", "recipe.yaml"} <= set(files)
    assert not any("checkpoint" in name or name.endswith((".bin", ".pt", ".jsonl")) for name in files)
    assert "training data" in hub.repository("alice/pushed").read("README.md").decode()
