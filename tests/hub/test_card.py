"""Model cards: what stands in them, and that no figure does without its results file."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel

from videossl_hf import cli
from videossl_hf.errors import ConfigurationError, DataError, InputError
from videossl_hf.evaluation.fingerprint import model_identity
from videossl_hf.evaluation.results import Figure, Result, write_results
from videossl_hf.hub.card import check_figures, render_card, render_planned_card
from videossl_hf.hub.facts import MethodFacts, method_facts
from videossl_hf.hub.origin import Origin, hub_license, write_origin
from videossl_hf.registry import COMPANIONS, METHODS

CARDS = Path(__file__).parents[2] / "model_cards"
PLANNED = [name for method in (*METHODS, *COMPANIONS) for name in method_facts(method).planned]


def make_result(model: dict, value: float = 71.43) -> Result:
    return Result(
        model=model,
        data={"id": "/data/me/shapes", "split": "test", "fingerprint": "f" * 16, "samples": 600},
        protocol={"name": "knn", "k": 10, "temperature": None},
        views="1x1",
        seed=0,
        figures={"top1": Figure(value, value - 3.6, value + 3.4, 600)},
        wall_time=1.0,
    )


@pytest.fixture
def evaluated(run_folder: Path) -> Path:
    """A run folder with a result of its weights and one of random weights."""
    own = model_identity(AutoModel.from_pretrained(run_folder))
    random = own | {"weights": "0" * 16, "random_weights": True}
    write_results(run_folder / "results.json", [make_result(own), make_result(random, 31.17)])
    return run_folder


@cache
def planned_card(name: str) -> str:
    return render_planned_card(name)


@pytest.mark.parametrize("name", PLANNED)
def test_the_card_in_the_repository_is_the_rendered_one(name: str) -> None:
    path = CARDS / f"{name}.md"
    assert path.read_text(encoding="utf-8") == planned_card(name), (
        f"run `videossl card --planned {name}` from the repository's root"
    )


@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_card_says_that_there_are_no_weights_and_how_to_make_them(name: str) -> None:
    card = ModelCard(planned_card(name))
    assert "Not published yet" in card.text
    assert re.search(r"accelerate launch training/(pretrain|finetune)\.py|videossl convert", card.text)
    for recipe in re.findall(r"`(training/recipes/[\w/.]+)`", card.text):
        assert (CARDS.parent / recipe).is_file()
    assert card.data.eval_results is None
    check_figures(str(card), [])


def test_there_is_a_card_for_planned_checkpoints_only() -> None:
    assert {path.stem for path in CARDS.glob("*.md")} == set(PLANNED)


def test_figures_come_from_the_results_of_these_weights(evaluated: Path) -> None:
    card = ModelCard(render_card(evaluated, "me/shapes"))
    row = next(line for line in card.text.splitlines() if "top1" in line)
    assert row == "| shapes (test) | knn (k 10) | 1x1 | top1 | 71.4 [67.8, 74.8] | 31.2 [27.6, 34.6] |"
    (indexed,) = card.data.eval_results
    assert (indexed.metric_value, indexed.metric_type, indexed.dataset_name) == (
        71.43,
        "accuracy",
        "shapes (test)",
    )


def test_results_of_other_weights_are_refused(evaluated: Path) -> None:
    path = evaluated / "results.json"
    own = model_identity(AutoModel.from_pretrained(evaluated))["weights"]
    path.write_text(path.read_text().replace(own, "1" * 16))
    with pytest.raises(ConfigurationError, match="no result of the weights"):
        render_card(evaluated, "me/shapes")


def test_a_card_without_results_gives_no_figure(run_folder: Path) -> None:
    card = ModelCard(render_card(run_folder, "me/shapes"))
    assert "None has been measured" in card.text
    assert card.data.eval_results is None


@pytest.mark.parametrize(
    "claim",
    ["It reaches 93.1 % here.", "93.1% of all", "top-1 accuracy: 93.1", "| R@5 | 93.1 |", "Accuracy (93.1)"],
)
def test_a_figure_without_its_result_is_refused(claim: str) -> None:
    with pytest.raises(ConfigurationError, match=r"93\.1"):
        check_figures(claim, [])
    check_figures(claim, [make_result({"id": "x", "weights": "w"}, 93.1)])


def test_an_indexed_figure_without_its_result_is_refused(evaluated: Path) -> None:
    text = render_card(evaluated, "me/shapes").replace("value: 71.43", "value: 99.0")
    with pytest.raises(ConfigurationError, match=r"99\.0"):
        check_figures(text, [make_result({"id": "x", "weights": "w"})])


def test_the_training_table_comes_from_the_resolved_recipe(run_folder: Path) -> None:
    recipe = "data: {train: /data/me/clips}\noptimizer: {name: sgd, lr: 0.64}\ntraining: {max_steps: 270}\n"
    (run_folder / "recipe.yaml").write_text(recipe)
    card = render_card(run_folder, "me/shapes")
    assert "| training data | clips |" in card
    assert "| learning rate | 0.64 |" in card
    assert "/data/me" not in card
    (run_folder / "recipe.yaml").write_text("just text")
    with pytest.raises(DataError, match="not a resolved recipe"):
        render_card(run_folder, "me/shapes")


def test_converted_weights_show_origin_and_licence(run_folder: Path) -> None:
    origin = Origin(
        "stica", "gdt_K400.pth", "ab" * 32, "cc-by-nc-4.0", "https://a.b/gdt", "videossl-hf 0.1.0"
    )
    write_origin(origin, run_folder)
    card = ModelCard(render_card(run_folder, "me/gdt"))
    assert card.data.license == "cc-by-nc-4.0"
    assert all(
        text in card.text
        for text in ("gdt_K400.pth", "ab" * 32, "https://a.b/gdt", "licence of the weights: cc")
    )


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("MIT", {"license": "mit"}),
        (None, {"license": "other"}),
        ("Our own terms", {"license": "other", "license_name": "our-own-terms"}),
    ],
)
def test_licences_that_the_hub_does_not_know_are_other(stated: str | None, shown: dict) -> None:
    assert hub_license(stated) == shown


def test_unstated_licences_never_become_ours(run_folder: Path) -> None:
    assert ModelCard(render_card(run_folder, "me/shapes")).data.license == "other"


def test_the_metadata_says_what_the_hub_asks_for(run_folder: Path) -> None:
    (run_folder / "recipe.yaml").write_text(
        "data: {train: someone/videos}\ntraining: {init_from: me/first-stage}\noptimizer: {name: sgd}\n"
    )
    card = ModelCard(render_card(run_folder, "me/shapes", "cc-by-4.0"))
    data = card.data.to_dict()
    assert (data["library_name"], data["license"]) == ("transformers", "cc-by-4.0")
    assert (data["datasets"], data["base_model"]) == (["someone/videos"], ["me/first-stage"])
    assert data["base_model_relation"] == "finetune"
    assert data["widget"][0]["src"] == "https://huggingface.co/me/shapes/resolve/main/example.mp4"
    assert data["inference"] == {"parameters": {"window_seconds": 2}}
    assert {"video", "audio", "stica", "video-feature-extraction"} <= set(data["tags"])


def test_folders_of_this_machine_are_no_datasets_and_no_base_models(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my" / "clips").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    recipe = "data: {train: my/clips}\ntraining: {init_from: outputs/first}\noptimizer: {name: sgd}\n"
    (run_folder / "recipe.yaml").write_text(recipe)
    data = ModelCard(render_card(run_folder, "me/shapes")).data.to_dict()
    assert "datasets" not in data
    assert "base_model" not in data


def test_the_time_of_the_training_comes_from_its_log(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "train_runtime": 5400.0}\n')
    assert "took 1.50 hours" in render_card(run_folder, "me/shapes")
    (run_folder / "metrics.jsonl").write_text("{")
    with pytest.raises(DataError, match="not the log of a training"):
        render_card(run_folder, "me/shapes")


def test_a_classifier_gets_the_task_of_its_pipeline(run_folder: Path) -> None:
    assert ModelCard(render_card(run_folder, "a/b")).data.pipeline_tag == "feature-extraction"
    path = run_folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"architectures": ["STiCAForVideoClassification"]})
    )
    card = ModelCard(render_card(run_folder, "a/b"))
    assert card.data.pipeline_tag == "video-classification"
    assert "5 classes" in card.text


def test_the_command_writes_where_it_is_told(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["card", str(run_folder), "--model-id", "me/shapes"]) == 0
    assert (run_folder / "README.md").read_text() == render_card(run_folder, "me/shapes")
    (run_folder / "README.md").write_text("edited by hand")
    assert cli.main(["card", str(run_folder)]) == 1
    assert "--force" in capsys.readouterr().err
    assert (run_folder / "README.md").read_text() == "edited by hand"
    assert cli.main(["card", str(run_folder), "--force"]) == 0
    assert (run_folder / "README.md").read_text() != "edited by hand"
    planned = tmp_path / "cards" / "planned.md"
    assert cli.main(["card", "--planned", PLANNED[0], "--output", str(planned)]) == 0
    assert planned.read_text() == planned_card(PLANNED[0])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name a run folder"),
        (["--planned", "stica"], "no checkpoint 'stica' is planned; planned are"),
        (["absent"], "config.json"),
    ],
)
def test_what_cannot_be_rendered_is_one_clear_error(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["card", *arguments]) == 1
    assert problem in capsys.readouterr().err


def test_other_models_are_refused(run_folder: Path) -> None:
    (run_folder / "config.json").write_text('{"model_type": "videomae"}')
    with pytest.raises(InputError, match="videomae"):
        render_card(run_folder, "a/b")


def test_a_method_without_facts_has_a_card_without_a_paper(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = MethodFacts(name="STiCA")
    monkeypatch.setattr("videossl_hf.hub.card.method_facts", lambda method: bare)
    card = render_card(run_folder, "me/shapes")
    assert "## Citation" not in card
    assert "arxiv" not in card.lower()
