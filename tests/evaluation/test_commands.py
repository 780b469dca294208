from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from videossl_hf.cli import main
from videossl_hf.data.datasets import load_videos
from videossl_hf.evaluation.cache import load_features
from videossl_hf.evaluation.clip_values import read_clip_values
from videossl_hf.evaluation.features import extract_features
from videossl_hf.evaluation.loading import load_model
from videossl_hf.evaluation.results import read_results


@pytest.fixture
def evaluate(tiny, shapes, tmp_path):
    """Runs `videossl evaluate` and returns its exit code and its results."""

    def run(*arguments, model=None):
        output = tmp_path / "results.json"
        command = ["evaluate", str(model or tiny.folder), "--data", str(shapes), "--device", "cpu"]
        code = main([*command, "--output", str(output), *map(str, arguments)])
        return code, read_results(output) if output.exists() else []

    return run


def test_every_protocol_writes_figures_with_intervals(evaluate, tiny, capsys):
    code, results = evaluate(
        "--protocol", "knn", "linear", "retrieval", "cross-modal", "few_shot", "attentive", "--k", "3",
        "--validation-split", "validation", "--epochs", "1", "--draws", "1",
        "--lr", "1e-3", "--weight-decay", "0.01",
    )  # fmt: skip
    assert code == 0
    names = [entry.protocol["name"] for entry in results]
    assert names == ["knn", "linear", "retrieval", "cross-modal", "cross-modal", "few_shot", "attentive"]
    assert list(results[2].figures) == ["R@1", "R@5", "R@10", "R@20", "mAP"], "as far as 24 clips go"
    assert results[5].protocol["shots"] == [1], "two clips a class"
    assert results[6].data["validation"]["split"] == "validation"
    assert results[0].model["id"] == str(tiny.folder)
    assert results[0].data["samples"] == 12
    assert results[1].data["validation"]["split"] == "validation"
    assert results[4].protocol["direction"] == "sound to video"
    assert all(0 <= f.low <= f.high for entry in results for f in entry.figures.values())
    assert "95 % interval" in capsys.readouterr().out


def test_clips_of_one_split_find_each_other_and_none_finds_itself(evaluate, tiny, test_clips):
    code, (among,) = evaluate("--protocol", "retrieval", "--train-split", "test", "--ranks", "1", "5")
    assert code == 0
    assert among.protocol == {
        "name": "retrieval", "ks": [1, 5], "among_each_other": True, "modality": "video",
    }  # fmt: skip
    table = extract_features(load_model(str(tiny.folder)), tiny.processor, test_clips)
    cosine = torch.nn.functional.cosine_similarity(table.features[:, None], table.features[None], dim=2)
    cosine.fill_diagonal_(-2)
    found = table.labels[cosine.topk(5).indices] == table.labels[:, None]
    assert among.figures["R@1"].value == pytest.approx(100 * found[:, 0].double().mean().item())
    assert among.figures["R@5"].value == pytest.approx(100 * found.any(dim=1).double().mean().item())


def test_tokens_can_be_averaged_where_the_model_pools_in_another_way(evaluate, tiny, shapes, tmp_path):
    features = []
    for pooling in ("own", "mean"):
        code, (result,) = evaluate("--pooling", pooling, "--k", "3")
        assert code == 0
        assert result.protocol.get("pooling", "own") == pooling
        features.append(read_clip_values(tmp_path / "results.json", result).features)
        (tmp_path / "results.json").unlink()
    with torch.no_grad():
        clip = load_videos(str(shapes), "test")[0]["video"]
        inputs = tiny.processor(videos=[clip])["pixel_values_videos"]
        tokens = tiny.model.stica(pixel_values_videos=inputs).last_hidden_state[0]
    torch.testing.assert_close(features[1][0].float(), tokens.mean(dim=0), rtol=1e-2, atol=1e-3)
    assert not torch.allclose(features[0], features[1], rtol=1e-2)


def test_every_clip_of_a_result_can_be_looked_up(evaluate, tmp_path, test_clips):
    _, results = evaluate("--k", "3")
    clips = read_clip_values(tmp_path / "results.json", results[0])
    assert clips.labels.tolist() == test_clips["label"][:]
    assert clips.values["top1"].mean().item() == pytest.approx(results[0].figures["top1"].value)
    assert torch.equal(clips.values["top1"], 100 * (clips.predictions == clips.labels).double())


def test_random_weights_are_marked_and_depend_on_the_seed(evaluate, tiny):
    _, results = evaluate("--k", "3")
    for seed in (5, 5, 6):
        _, results = evaluate("--k", "3", "--random-weights", "--seed", seed)
    assert len(results) == 3  # the second run of seed 5 replaced the first
    assert [bool(entry.model.get("random_weights")) for entry in results] == [False, True, True]
    assert len({entry.model["weights"] for entry in results}) == 3


def test_sound_and_baselines_go_through_the_same_command(evaluate, tiny):
    code, results = evaluate("--k", "3", "--modality", "audio", "--views", "2x1")
    assert (code, results[0].protocol["modality"], results[0].views) == (0, "audio", "2x1")
    code, results = evaluate("--k", "3", "--processor", tiny.folder, model="frame-difference")
    assert (code, results[1].model["class"]) == (0, "FrameDifference")


def test_a_cache_is_filled_once_and_named_by_what_it_holds(evaluate, tmp_path, monkeypatch):
    _, first = evaluate("--k", "3", "--cache", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    _, again = evaluate("--k", "3", "--cache", tmp_path / "cache")
    assert again[0].figures == first[0].figures
    evaluate("--k", "3", "--cache", tmp_path / "cache", "--views", "2x1")
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_extracted_features_equal_those_of_the_library(tiny, shapes, test_clips, tmp_path, capsys):
    output = tmp_path / "features"
    arguments = ["--data", str(shapes), "--split", "test", "--output", str(output), "--device", "cpu"]
    assert main(["extract", str(tiny.folder), *arguments]) == 0
    expected = extract_features(load_model(str(tiny.folder)), tiny.processor, test_clips)
    assert torch.equal(load_features(output).features, expected.features)
    assert "12 features of width 16" in capsys.readouterr().out
    assert main(["extract", str(tiny.folder), *arguments, "--random-weights", "--seed", "9"]) == 1
    assert "made with weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "25"], "number of training samples (24)"),
        (["--views", "3"], "CLIPSxCROPS"),
        (["--test-split", "nothing"], "nothing"),
        (["--protocol", "cross-modal", "--ranks", "13"], "12 items"),
        (["--protocol", "few_shot", "--shots", "3"], "has 2 training clip(s), 3"),
        (
            ["--train-split", "test"],
            "the train split 'test' and the test split 'test' hold the same clips: knn",
        ),
        (
            ["--protocol", "linear", "--validation-split", "test"],
            "the validation split 'test' and the test split 'test' hold the same clips: linear",
        ),
        (["--protocol", "retrieval", "--train-split", "test", "--ranks", "12"], "the 11 items"),
        (
            ["--protocol", "attentive", "--pooling", "mean"],
            "--pooling is of knn, linear, few_shot, retrieval",
        ),
        (["--folds", "some"], 'a number or "official"'),
        (["--folds", "official"], "no official folds"),
        (["--folds", "25"], "between 2 and 24 folds"),
    ],
)
def test_a_call_that_cannot_work_is_one_clear_line(evaluate, capsys, arguments, message):
    code, results = evaluate(*arguments)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (code, results) == (1, [])
    assert error.startswith("error: ")
    assert message in error


def test_what_is_no_model_is_named(evaluate, tmp_path, capsys):
    for model, message in (
        (tmp_path, "holds no processor"),
        (Path(__file__), "is a file; name the folder"),
        ("frame-difference", "needs --processor"),
    ):
        assert evaluate(model=model)[0] == 1
        assert message in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "stica"}))
    assert main(["evaluate", str(tmp_path), "--data", "x"]) == 1


@pytest.mark.parametrize("script", ["evaluate", "extract"])
def test_the_scripts_are_the_commands(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(Path(__file__).parents[2] / "training" / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0
    assert f"videossl {script}" in capsys.readouterr().out
