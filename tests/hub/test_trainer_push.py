"""The Trainer publishes while it trains, and a run goes on from what it published: every method, all tiny."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import LoopbackHub

from videossl_hf.registry import METHODS

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
STRATEGIES = ("end", "every_save", "checkpoint")
TINY_STICA = {
    "model.video_widths": [8, 8],
    "model.video_depths": [1, 1],
    "model.audio_widths": [8],
    "model.audio_depths": [1],
}
# Repository -> recipe and what differs from it. The tokeniser comes first: VIMPAC's run takes it.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "dvae": ("vimpac/tokenizer.yaml", {}),
    "stica": ("stica/smoke.yaml", TINY_STICA),
    "videomoco": ("videomoco/smoke.yaml", {"model.adversarial_start_step": 2}),
    "vimpac": ("vimpac/smoke.yaml", {"processor.tokenizer_model": "dvae"}),
    "tvts": (
        "tvts/smoke.yaml",
        {
            "processor.tokenizer": "shapes/tokenizer",
            "data.alternate.sequences.train": "shapes",
            "data.alternate.sequences.augmentation": "{resize_ratio: 1.5, flip_probability: 0.5}",
        },
    ),
    "ila": ("ila/smoke.yaml", {"training.init_from": None}),
}
STEPS = 3
SCRIPT = f"""
import json, os, re
from pathlib import Path
import torch
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModel, AutoProcessor, Trainer
from safetensors.torch import load_file
from videossl_hf import cli
torch.set_num_threads(1)
runs = json.loads(os.environ["RUNS"])

def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0, arguments

def train(name, output, recipe, changes, *further, **hub):
    settings = {{
        "data.train": "shapes", "training.max_steps": {STEPS}, "training.save_steps": 1,
        "training.batch_size": 4, "training.num_workers": 0, "training.processes": 1,
        "training.output_dir": output, "training.device": "cpu", **changes,
        **{{f"training.{{key}}": value for key, value in hub.items()}},
    }}
    settings["evaluation.accuracy_every" if name == "ila" else "evaluation.knn_every"] = None
    pairs = [f"--{{key}}={{'null' if value is None else value}}" for key, value in settings.items()]
    command = "finetune" if name == "ila" else "pretrain"
    run(command, os.path.join(os.environ["RECIPES"], recipe), *pairs, *further)

forwards = []  # of the training since the list was emptied
compute = Trainer.training_step
Trainer.training_step = lambda self, *inputs, **rest: (forwards.append(1), compute(self, *inputs, **rest))[1]

def weights(repository, **options):
    return load_file(HfApi().hf_hub_download(repository, "model.safetensors", **options))

def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

run("prepare", "--sounding-shapes", 24, "--validation", 12, "--test", 12, "--size", 32, "--output", "shapes")
for strategy in {STRATEGIES!r}:
    hub = {{"push_to_hub": True, "hub_model_id": f"alice/{{strategy}}", "hub_strategy": strategy}}
    train("stica", strategy, *runs["stica"], **hub)
    answer[strategy] = same(weights(f"alice/{{strategy}}"), load_file(f"{{strategy}}/model.safetensors"))
for name, (recipe, changes) in runs.items():
    repository = f"alice/run-{{name}}"
    hub = {{"push_to_hub": True, "hub_model_id": repository, "hub_strategy": "checkpoint"}}
    train(name, name, recipe, changes, **hub)
    found = answer[name] = {{}}
    found["class"] = type(AutoModel.from_pretrained(repository)).__name__
    found["processor"] = type(AutoProcessor.from_pretrained(repository)).__name__
    (commit,) = [c.commit_id for c in HfApi().list_repo_commits(repository) if "step 2" in c.title]
    away = Path(f"again-{{name}}")
    snapshot_download(repository, revision=commit, allow_patterns="last-checkpoint/*", local_dir=away)
    forwards.clear()
    train(name, away, recipe, changes, "--resume", away / "last-checkpoint")
    found["resumed"] = same(weights(repository), load_file(away / "model.safetensors"))
    found["trained"] = len(forwards)
    found["steps"] = sorted(path.name for path in away.glob("checkpoint-*"))
    run("push", name, f"alice/pushed-{{name}}", "--license", "mit")
"""


@pytest.fixture(scope="module")
def answer(client: Callable[..., Any]) -> dict:
    return client(SCRIPT, RECIPES=str(RECIPES), RUNS=json.dumps(RUNS))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_publishes_its_model(strategy: str, answer: dict, hub: LoopbackHub) -> None:
    files = hub.repository(f"alice/{strategy}").files()
    parts = {"config.json", "model.safetensors", "processor_config.json", "modeling_stica.py", "recipe.yaml"}
    assert parts <= set(files)
    assert answer[strategy]


@pytest.mark.parametrize(("strategy", "commits"), [("end", 0), ("every_save", STEPS), ("checkpoint", STEPS)])
def test_each_strategy_publishes_when_it_says(
    strategy: str, commits: int, answer: dict, hub: LoopbackHub
) -> None:
    titles = [commit.title for commit in hub.repository(f"alice/{strategy}").history("main")]
    assert sum("in progress" in title for title in titles) == commits
    assert "End of training" in titles[0]


@pytest.mark.parametrize("name", RUNS)
def test_every_method_s_run_loads_by_id(name: str, answer: dict, hub: LoopbackHub) -> None:
    assert answer[name]["class"].endswith("Model")
    assert answer[name]["processor"].endswith("Processor")
    files = hub.repository(f"alice/run-{name}").files()
    assert {
        f"modeling_{name}.py",
        "last-checkpoint/optimizer.pt",
        "last-checkpoint/trainer_state.json",
    } <= set(files)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_the_last_checkpoint_on_the_hub_to_the_same_bits(name: str, answer: dict) -> None:
    assert answer[name]["resumed"]
    assert answer[name]["trained"] == 1, "a run from the start would end with the same bits"
    assert answer[name]["steps"] == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]


@pytest.mark.parametrize(
    "name", [*STRATEGIES, *(f"{kind}-{run}" for kind in ("run", "pushed") for run in RUNS)]
)
def test_no_pickled_arguments_and_no_folders_are_published(name: str, answer: dict, hub: LoopbackHub) -> None:
    files = [
        file for file in hub.repository(f"alice/{name}").files() if not file.startswith("last-checkpoint/")
    ]
    assert [file for file in files if file.endswith((".pkl", ".bin", ".pt", ".pth"))] == []
    for file in files:
        if not file.endswith((".safetensors", ".mp4")):
            assert b"/home/" not in hub.repository(f"alice/{name}").read(file), file


@pytest.mark.parametrize("name", RUNS)
def test_the_run_folder_can_be_pushed_as_a_whole(name: str, answer: dict, hub: LoopbackHub) -> None:
    repository = hub.repository(f"alice/pushed-{name}")
    files = repository.files()
    assert {"README.md", "recipe.yaml", "example.mp4"} <= set(files)
    assert not any("checkpoint" in file or file.endswith(".jsonl") for file in files)
    card = repository.read("README.md").decode()
    assert "training data" in card
    assert "The last run of the training took" in card


def test_every_method_is_among_the_runs() -> None:
    assert set(METHODS) < set(RUNS)
