"""Classifiers: from CLIP or a method's own folder to one that answers with the names of the classes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForVideoClassification, CLIPConfig, CLIPModel

from models import tiny_videomoco
from videossl_hf import ILAForVideoClassification, ILAProcessor, VideoMoCoForVideoClassification
from videossl_hf.cli import main
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.sounding_shapes.motions import CLASS_NAMES
from videossl_hf.data.sounding_shapes.word_tokenizer import word_tokenizer
from videossl_hf.errors import CheckpointError, DataError, RecipeError
from videossl_hf.evaluation.clip_values import read_clip_values
from videossl_hf.evaluation.results import read_results
from videossl_hf.training.cross_validation import finetune_folds
from videossl_hf.training.finetune import finetune
from videossl_hf.training.pretrain import pretrain
from videossl_hf.training.recipe import Recipe, load_recipe, make_recipe
from videossl_hf.training.runs import TrainingRun

LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_act": "gelu"}
NAMES = sorted(CLASS_NAMES)
RECIPES = Path(__file__).parents[2] / "training/recipes"


def recipe(method: str, clips: Path, output: Path, **changes: Any) -> Recipe:
    tree: dict[str, Any] = {
        "method": method,
        "task": "classification",
        "data": {"train": str(clips)},
        "training": {
            "output_dir": str(output), "max_steps": 4, "batch_size": 6, "save_steps": 2, "logging_steps": 1,
            "device": "cpu",
        },
        "evaluation": {"accuracy_every": 1},
    }  # fmt: skip
    if method == "ila":
        tree["model"] = {"num_frames": 3, "align_hidden": 8, "head_dim": 8}
        tree["augmentation"] = {"decode_short_side": None}
        tree["optimizer"] = {"lr": 1e-5}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            tree.setdefault(section, {})[name] = value
        else:
            tree[section] = value
    return make_recipe(tree)


def train(made: Recipe, resume: str = "auto") -> TrainingRun:
    return finetune(made, resume=resume, console=Console(quiet=True))


def log(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as CLIP's: other sizes than ILA's defaults, another activation, a tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = sorted({word for name in CLASS_NAMES for word in name.split("_")})
    tokenizer = word_tokenizer(words)
    config = CLIPConfig(
        vision_config=LAYERS
        | {"hidden_size": 16, "intermediate_size": 24, "image_size": 32, "patch_size": 8},
        text_config=LAYERS
        | {"hidden_size": 16, "intermediate_size": 24, "vocab_size": len(tokenizer)}
        | {"max_position_embeddings": 8, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(clip: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    train(recipe("ila", clips, output, training__init_from=str(clip)))
    return output


def test_a_classifier_starts_from_the_towers_and_the_activation_of_clip(finished: Path, clip: Path) -> None:
    model = ILAForVideoClassification.from_pretrained(finished)
    assert model.config.vision_config.hidden_act == "gelu"
    assert (model.config.vision_config.hidden_size, model.config.num_frames) == (16, 3)
    original = CLIPModel.from_pretrained(clip).vision_model.state_dict()
    frozen = model.ila.vision_model.state_dict()
    assert torch.equal(frozen["embeddings.class_embedding"], original["embeddings.class_embedding"])
    name = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(frozen[name], original[name]), "CLIP is frozen"
    assert frozen["encoder.layers.0.aligned_proj.weight"].abs().max() > 0, "what is new is trained"


def test_the_classes_are_those_of_the_videos_and_their_tokens_are_saved(finished: Path, clips: Path) -> None:
    model = AutoModelForVideoClassification.from_pretrained(finished)
    assert (
        list(model.config.id2label.values())
        == NAMES
        == load_videos(str(clips), "train").features["label"].names
    )
    assert (
        ILAProcessor.from_pretrained(finished).tokenizer("up right")["input_ids"]
        == (model.config.label_tokens["up_right"])
    )


def test_accuracy_is_logged_from_step_0_on_and_the_best_model_is_kept(finished: Path, clips: Path) -> None:
    measured = {entry["step"]: entry for entry in log(finished) if "eval_top1" in entry}
    assert list(measured) == [0, 1, 2, 3, 4]
    assert all(0 <= entry["eval_top1"] <= entry["eval_top5"] <= 1 for entry in measured.values())
    best = max(list(measured)[1:], key=lambda step: (measured[step]["eval_top1"], -step))
    output = finished.parent / "scores.json"
    for folder, step in ((finished, 4), (finished / "best", best)):
        arguments = [str(folder), "--data", str(clips), "--test-split", "validation", "--output", str(output)]
        assert main(["evaluate", *arguments, "--protocol", "classify"]) == 0
        figure = read_results(output)[-1].figures["top1"].value
        assert figure == pytest.approx(100 * measured[step]["eval_top1"])
        output.unlink()


def test_a_classifier_is_asked_for_the_words_of_the_data(finished: Path, clips: Path, tmp_path: Path) -> None:
    """Zero-shot: other names, no training."""
    renamed, output = tmp_path / "renamed", tmp_path / "scores.json"
    (renamed / "test").mkdir(parents=True)
    lines = [json.loads(line) for line in (clips / "test/metadata.jsonl").read_text().splitlines()]
    words = {"up": "left up", "down": "left down"}
    with (renamed / "test/metadata.jsonl").open("w") as file:
        for line in lines:
            if line["label"] in words:
                (renamed / "test" / line["file_name"]).symlink_to(clips / "test" / line["file_name"])
                row = {"file_name": line["file_name"], "label": words[line["label"]]}
                file.write(json.dumps(row) + "\n")
    arguments = ["evaluate", str(finished), "--data", str(renamed), "--views", "4x3", "--output", str(output)]
    assert main([*arguments, "--protocol", "classify"]) == 0
    (result,) = read_results(output)
    assert (result.protocol["name"], result.protocol["classes"], result.views) == ("zero-shot", 2, "4x3")
    assert 0 <= result.figures["top1"].value <= 100


def test_goes_on_from_a_checkpoint_to_the_same_best_and_last_model(
    finished: Path, clip: Path, clips: Path, tmp_path: Path
) -> None:
    """The run that was stopped has already seen, and saved as best, what its continuation sees again."""
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-4")
    (run / "model.safetensors").unlink()
    assert train(recipe("ila", clips, run, training__init_from=str(clip))).resumed_from == 2
    for name in ("model.safetensors", "best/model.safetensors"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_any_method_is_fine_tuned_from_its_own_pre_trained_folder(clips: Path, tmp_path: Path) -> None:
    pretrained = tiny_videomoco.make_model()
    pretrained.save_pretrained(tmp_path / "pretrained")
    source = {"training__init_from": str(tmp_path / "pretrained"), "training__max_steps": 1}
    small = {"augmentation__decode_short_side": 16, "evaluation__accuracy_every": None}
    train(recipe("videomoco", clips, tmp_path / "still", optimizer__lr=0.0, **source, **small))
    model = VideoMoCoForVideoClassification.from_pretrained(tmp_path / "still")
    expected = VideoMoCoForVideoClassification.from_pretrained(tmp_path / "pretrained").base_model
    assert list(model.config.id2label.values()) == NAMES
    for name, parameter in expected.named_parameters():
        assert torch.equal(model.base_model.get_parameter(name), parameter), name

    # From there again: the same classes keep their classifier.
    again = source | {"training__init_from": str(tmp_path / "still"), "training__seed": 1}
    train(recipe("videomoco", clips, tmp_path / "again", optimizer__lr=0.0, **again, **small))
    kept = VideoMoCoForVideoClassification.from_pretrained(tmp_path / "again")
    assert torch.equal(kept.classifier.weight, model.classifier.weight)
    model.config.id2label = dict(enumerate(reversed(NAMES)))
    model.save_pretrained(tmp_path / "reversed")
    other = again | {"training__init_from": str(tmp_path / "reversed")}
    train(recipe("videomoco", clips, tmp_path / "other", optimizer__lr=0.0, **other, **small))
    new = VideoMoCoForVideoClassification.from_pretrained(tmp_path / "other")
    assert not torch.equal(new.classifier.weight, model.classifier.weight), "names decide, not sizes"


def test_the_everyday_recipe_leaves_clip_as_it_is(clip: Path, clips: Path, tmp_path: Path) -> None:
    settings = {
        "data.train": clips, "training.output_dir": tmp_path / "run", "training.init_from": clip,
        "training.max_steps": 2, "training.num_workers": 0, "training.device": "cpu", "model.num_frames": 3,
        "model.align_hidden": 8, "model.head_dim": 8, "model.vision_config": "{patch_size: 8}",
        "augmentation.decode_short_side": "null",
    }  # fmt: skip
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    run = train(load_recipe(RECIPES / "ila/adapt.yaml", options))
    model = ILAForVideoClassification.from_pretrained(run.output_dir)
    frozen = CLIPModel.from_pretrained(clip).vision_model.encoder.layers[0].self_attn.q_proj.weight
    assert torch.equal(model.ila.vision_model.encoder.layers[0].self_attn.q_proj.weight, frozen)
    assert (model.config.head, list(model.config.id2label.values())) == ("linear", NAMES)
    assert all(entry["loss"] > 0 for entry in run.log if "loss" in entry)


@pytest.mark.slow
def test_two_processes_train_one_classifier_and_score_every_clip_once(
    clip: Path, clips: Path, tmp_path: Path
) -> None:
    """Without anything random in the batches, two processes go the way of one with the joint batch."""
    settings = {
        "data.train": clips, "training.init_from": clip, "training.max_steps": 3, "training.device": "cpu",
        "model.num_frames": 3, "model.align_hidden": 8, "model.head_dim": 8,
        "model.vision_config": "{patch_size: 8}", "model.classifier_dropout": 0,
        "model.freeze_batch_norm": "false", "augmentation.decode_short_side": "null",
        "training.num_workers": 0, "training.bf16": "false", "training.logging_steps": 1,
        "evaluation.accuracy_every": 1, "optimizer.lr": 1e-5, "schedule.warmup_epochs": 0,
    }  # fmt: skip
    logs = []
    for processes in (1, 2):
        own = {"training.output_dir": tmp_path / str(processes), "training.batch_size": 4 // processes}
        options = [part for key, value in (settings | own).items() for part in (f"--{key}", str(value))]
        launcher = [
            *("-m", "accelerate.commands.launch", "--config_file"),
            str(RECIPES.parent / "accelerate/cpu_2.yaml"),
        ]
        subprocess.run(
            [
                *(sys.executable, *(launcher if processes == 2 else [])),
                *(str(RECIPES.parent / "finetune.py"), str(RECIPES / "ila/adapt.yaml"), *options),
                *("--training.processes", str(processes)),
            ],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            cwd=tmp_path,
            timeout=600,
        )
        logs.append(log(tmp_path / str(processes)))
    for name in ("loss", "eval_loss", "eval_top1"):
        one, two = ([entry[name] for entry in entries if name in entry] for entries in logs)
        assert len(one) >= 3
        assert two == pytest.approx(one, rel=1e-4), name


def test_folds_are_trained_chosen_and_scored_apart_and_averaged(clips: Path, tmp_path: Path) -> None:
    tiny_videomoco.make_model().save_pretrained(tmp_path / "pretrained")
    run, small = tmp_path / "run", tmp_path / "three classes"
    for number, file in enumerate(sorted((clips / "train").glob("*.mp4"))):
        (small / f"class {number % 3}").mkdir(parents=True, exist_ok=True)
        (small / f"class {number % 3}" / file.name).symlink_to(file)
    made = recipe(
        "videomoco", small, run, training__init_from=str(tmp_path / "pretrained"), training__max_steps=2,
        augmentation={"decode_short_side": 16, "blend_probability": 1.0},
    )  # fmt: skip
    result = finetune_folds(made, "2", views="2x1", average="logits", console=Console(quiet=True))
    assert read_results(run / "results.json") == [result]
    assert (result.protocol["name"], result.protocol["folds"], result.views) == ("finetune", 2, "2x1")
    assert result.data["samples"] == result.figures["top1"].samples == 24
    kept = read_clip_values(run / "results.json", result)
    assert kept is not None
    assert len(set(kept.keys)) == 24, "every clip is tested once"
    for number in (1, 2):
        measured = [entry["step"] for entry in log(run / f"fold-{number}") if "eval_top1" in entry]
        assert measured == [0, 1, 2]
    again = finetune_folds(made, "2", views="2x1", average="logits", console=Console(quiet=True))
    assert again.figures == result.figures, "finished folds are gone on from, not trained anew"


def test_folds_of_what_does_not_fit_are_refused(clips: Path, tmp_path: Path, capsys: Any) -> None:
    made = recipe("videomoco", clips, tmp_path / "run")
    with pytest.raises(RecipeError, match="a number or"):
        finetune_folds(made, "many")
    with pytest.raises(DataError, match="no official folds"):
        finetune_folds(made, "official")
    pretraining = recipe("videomoco", clips, tmp_path / "run", task="pretraining", evaluation={})
    with pytest.raises(RecipeError, match="task classification"):
        finetune_folds(pretraining, "2")
    file = str(RECIPES / "videomoco/finetune_ucf101.yaml")
    assert main(["finetune", file, "--data.train", str(clips), "--views", "2x1"]) == 1
    assert "--views and --average are of --folds" in capsys.readouterr().err


def test_each_task_is_told_to_go_to_its_own_script(clips: Path, tmp_path: Path) -> None:
    made = recipe("videomoco", clips, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"training/finetune\.py"):
        pretrain(made)
    with pytest.raises(RecipeError, match=r"training/pretrain\.py"):
        finetune(recipe("videomoco", clips, tmp_path / "run", task="pretraining", evaluation={}))
    with pytest.raises(RecipeError, match="knn_every is not for"):
        recipe("videomoco", clips, tmp_path / "run", evaluation={"knn_every": 2})
    with pytest.raises(RecipeError, match="no task 'pretraining'"):
        recipe("ila", clips, tmp_path / "run", task="pretraining")
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_start_from_is_refused(clip: Path, clips: Path, tmp_path: Path) -> None:
    run, source = tmp_path / "run", {"training__init_from": str(clip)}
    with pytest.raises(CheckpointError, match="type 'clip', which videomoco does not start from"):
        train(recipe("videomoco", clips, run, **source))
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        train(recipe("ila", clips, run, training__init_from=str(tmp_path)))
    with pytest.raises(RecipeError, match=r"processor\.tokenizer"):
        train(recipe("ila", clips, run))
    with pytest.raises(RecipeError, match="num_frames"):
        train(recipe("ila", clips, run, model__num_frames=1, **source))


def test_videos_without_names_of_classes_are_refused(clip: Path, clips: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare/train"
    bare.mkdir(parents=True)
    for file in sorted((clips / "train").glob("*.mp4"))[:6]:
        (bare / file.name).symlink_to(file)
    made = recipe("ila", bare.parent, tmp_path / "run", training__init_from=str(clip))
    with pytest.raises(DataError, match="no labels"):
        train(made)
