"""From a recipe to a folder that others load, with everything that can be wrong on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from videossl_hf.data.datasets import load_videos
from videossl_hf.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DecodeError,
    NonFiniteLossError,
    OutputError,
    RecipeError,
)
from videossl_hf.registry import METHODS, find_class
from videossl_hf.training.pretrain import pretrain
from videossl_hf.training.recipe import Recipe, load_recipe, make_recipe
from videossl_hf.training.runs import TrainingRun


def recipe(clips: Path, output: Path, **changes: Any) -> Recipe:
    tree: dict[str, Any] = {
        "method": "toy",
        "data": {"train": str(clips)},
        "training": {
            "output_dir": str(output), "max_steps": 4, "batch_size": 6, "save_steps": 2, "logging_steps": 1,
        },
        "evaluation": {"knn_every": 2, "knn_k": 3},
    }  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition("__")
        tree.setdefault(section, {})[name] = value
    return make_recipe(tree)


def train(made: Recipe, resume: str = "auto") -> TrainingRun:
    return pretrain(made, resume=resume, console=Console(quiet=True))


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(clips: Path, toy_package: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went well; tests that change it work on a copy."""
    METHODS["toy"] = "Toy"
    output = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(clips, output))
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_the_run_folder_holds_model_code_processor_recipe_and_log(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "model.safetensors", "modeling_toy.py", "recipe.yaml", "metrics.jsonl"} <= names
    assert {"processor_config.json", "checkpoint-2", "checkpoint-4"} <= names
    assert not list(finished.rglob("training_args.bin"))
    model = find_class("toy", "ForPreTraining").from_pretrained(finished)
    assert model.updates == 4


def test_every_part_of_the_loss_and_the_monitor_are_logged_from_step_0_on(finished: Path) -> None:
    log = lines(finished)
    assert [entry["step"] for entry in log if "eval_knn_top1" in entry] == [0, 2, 4]
    steps = [entry for entry in log if "learning_rate" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    for entry in steps:
        assert entry["loss"] == pytest.approx(entry["loss_even"] + entry["loss_odd"], rel=1e-5)
        assert entry["clips_per_second"] > 0
        assert 0 <= entry["data_wait_share"] <= 1
        assert entry["peak_memory_gib"] > 0


def test_the_saved_recipe_makes_the_same_run(finished: Path, clips: Path) -> None:
    assert load_recipe(finished / "recipe.yaml").to_dict() == recipe(clips, finished).to_dict()


def test_the_monitor_changes_nothing_in_the_run(finished: Path, clips: Path, tmp_path: Path) -> None:
    train(recipe(clips, tmp_path / "blind", evaluation__knn_every=None))
    with_monitor = [e["loss"] for e in lines(finished) if "learning_rate" in e]
    assert with_monitor == [e["loss"] for e in lines(tmp_path / "blind") if "learning_rate" in e]


def test_a_finished_run_goes_on_only_with_its_own_recipe(copied: Path, clips: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"differs in training\.max_steps"):
        train(recipe(clips, copied, training__max_steps=6))
    run = train(recipe(clips, copied, training__max_steps=6), resume=str(copied / "checkpoint-4"))
    assert (run.resumed_from, run.steps) == (4, 6)
    steps = [entry["step"] for entry in lines(copied) if "learning_rate" in entry]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_that_is_started_again_stays_as_it_is(clips: Path, tmp_path: Path) -> None:
    made = recipe(clips, tmp_path / "run", training__max_steps=6)  # ends within an epoch
    train(made)
    before = (tmp_path / "run/model.safetensors").read_bytes(), lines(tmp_path / "run")
    run = train(made)
    assert (run.resumed_from, run.steps) == (6, 6)
    assert ((tmp_path / "run/model.safetensors").read_bytes(), lines(tmp_path / "run")) == before


def test_going_on_without_the_last_checkpoint_repeats_its_steps_exactly(copied: Path, clips: Path) -> None:
    before = lines(copied)
    shutil.rmtree(copied / "checkpoint-4")
    train(recipe(clips, copied))
    wall_clock = {"clips_per_second", "data_wait_share", "peak_memory_gib"}
    compared = [
        [
            {k: v for k, v in entry.items() if k not in wall_clock}
            for entry in log
            if "train_loss" not in entry
        ]
        for log in (before, lines(copied))
    ]
    assert compared[0] == compared[1]


def test_a_damaged_checkpoint_is_an_error_before_training(copied: Path, clips: Path) -> None:
    path = copied / "checkpoint-4/model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"is damaged: model\.safetensors has"):
        train(recipe(clips, copied))


def test_a_checkpoint_of_another_model_is_an_error(copied: Path, clips: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit this run"):
        train(recipe(clips, copied, model__hidden_size=6), resume=str(copied / "checkpoint-4"))


def test_a_fresh_start_over_a_run_is_refused(copied: Path, clips: Path) -> None:
    with pytest.raises(OutputError, match="already holds a run"):
        train(recipe(clips, copied), resume="never")


def test_a_run_may_start_from_given_weights(finished: Path, clips: Path, tmp_path: Path) -> None:
    changes = {"training__init_from": str(finished), "optimizer__lr": 0.0, "evaluation__knn_every": None}
    train(recipe(clips, tmp_path / "run", **changes))
    old, new = (find_class("toy", "ForPreTraining").from_pretrained(f) for f in (finished, tmp_path / "run"))
    assert torch.equal(old.head.weight, new.head.weight)


def test_a_stream_in_bf16_with_accumulation_and_channels_last_trains(clips: Path, tmp_path: Path) -> None:
    options = {"bf16": True, "channels_last_3d": True, "gradient_accumulation_steps": 2, "max_steps": 3}
    changes = {f"training__{name}": value for name, value in options.items()}
    run = train(recipe(clips, tmp_path / "run", data__streaming=True, **changes))
    assert run.steps == 3
    assert lines(tmp_path / "run")[-2]["eval_knn_top1"] >= 0


def test_a_loss_that_is_not_a_number_stops_the_run_before_a_checkpoint(clips: Path, tmp_path: Path) -> None:
    made = recipe(clips, tmp_path / "run", model__diverge_at=3, training__logging_steps=100)
    with pytest.raises(NonFiniteLossError, match="since step 3"):
        train(made)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_epochs_make_the_length_of_the_run(clips: Path, tmp_path: Path) -> None:
    run = train(recipe(clips, tmp_path / "run", training__max_steps=None, training__epochs=1.5))
    assert run.steps == 6  # 24 clips by 6 are 4 steps an epoch
    model = find_class("toy", "ForPreTraining").from_pretrained(tmp_path / "run")
    assert model.last_epoch == 1


def test_a_set_too_small_for_a_batch_is_an_error(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 24 samples, but one step takes 25"):
        train(recipe(clips, tmp_path / "run", training__batch_size=25, evaluation__knn_every=None))


def test_a_missing_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        train(recipe(tmp_path / "absent", tmp_path / "run"))


def test_the_output_folder_is_checked_before_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to the output folder"):
        train(recipe(tmp_path / "absent", tmp_path / "file/run"))


def test_another_number_of_processes_than_asked_for_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="asks for 2, but 1 run"):
        train(recipe(clips, tmp_path / "run", training__processes=2))


def test_a_supervised_method_is_sent_to_fine_tuning(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videossl_hf.training.pretrain.has_class", lambda method, suffix: False)
    with pytest.raises(RecipeError, match=r"training/finetune\.py"):
        train(recipe(clips, tmp_path / "run"))


def test_several_gpus_in_one_process_are_refused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 2)
    with pytest.raises(ConfigurationError, match="DataParallel"):
        train(recipe(clips, tmp_path / "run"))


@pytest.fixture
def clips_with_a_broken_one(clips: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(clips, tmp_path / "broken")
    video = load_videos(str(folder), "train")[5]["video"]["path"]
    Path(video).write_bytes(b"no video at all")
    return folder


def test_a_broken_clip_stops_a_strict_run(clips_with_a_broken_one: Path, tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        train(recipe(clips_with_a_broken_one, tmp_path / "run", evaluation__knn_every=None))


def test_a_broken_clip_is_replaced_and_written_down(clips_with_a_broken_one: Path, tmp_path: Path) -> None:
    run = train(recipe(clips_with_a_broken_one, tmp_path / "run", data__on_bad_sample="skip"))
    assert run.steps == 4
    entries = [json.loads(line) for line in (tmp_path / "run/bad_samples.jsonl").read_text().splitlines()]
    assert {entry["index"] for entry in entries} == {5}
    assert all(entry["reason"].startswith("DecodeError") for entry in entries)


def test_what_is_saved_reads_as_yaml_without_surprises(finished: Path) -> None:
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert list(content) == [
        *("method", "task", "model", "processor", "data", "augmentation"),
        *("optimizer", "schedule", "training", "evaluation"),
    ]
