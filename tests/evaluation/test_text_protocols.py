"""Clips against texts: retrieval, classes by name, scripts in order; for any model with both towers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models import tiny_tvts
from videossl_hf import TVTSForPreTraining, TVTSModel, TVTSProcessor
from videossl_hf.cli import main
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.sounding_shapes import (
    ClipSettings,
    SoundingShapes,
    word_tokenizer,
    write_sounding_shapes,
)
from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.clips import PreparedClips
from videossl_hf.evaluation.loading import quiet_libraries
from videossl_hf.evaluation.protocols import sorting_protocol
from videossl_hf.evaluation.results import read_results
from videossl_hf.evaluation.script_sorting import shuffled_places, sort_scripts
from videossl_hf.evaluation.texts import equal_parts, read_texts

CLIPS, SCRIPTS = 8, 3


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of three motions, one sentence each, and labelled clips of one."""
    folder = tmp_path_factory.mktemp("told")
    for name, motions in (("sequences", SCRIPTS), ("single", 1)):
        settings = ClipSettings(size=32, seconds=1.0, fps=4.0, motions=motions, sample_rate=8000)
        shapes = SoundingShapes(2, test=CLIPS, clips=settings)
        write_sounding_shapes(folder / name, shapes, processes=1, show_progress=False)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    torch.manual_seed(0)
    text = tiny_tvts.DISTILBERT | {"vocab_size": 128, "max_position_embeddings": 20}
    config = tiny_tvts.make_config(max_text_length=20, text_settings=text, initializer_range=0.2)
    folder = tmp_path_factory.mktemp("model")
    model, processor = TVTSForPreTraining(config).eval(), TVTSProcessor.from_config(config, word_tokenizer())
    with quiet_libraries():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return SimpleNamespace(folder=folder, model=model, processor=processor)


def evaluate(model: Any, data: Path, tmp_path: Path, *arguments: str) -> tuple[int, list[Any]]:
    output = tmp_path / "results.json"
    command = ["evaluate", str(model), "--data", str(data), "--device", "cpu", "--output", str(output)]
    return main([*command, *arguments]), read_results(output) if output.exists() else []


@torch.no_grad()
def similarities(model: SimpleNamespace, data: Path, texts: list[Any]) -> torch.Tensor:
    """Cosines (clips, texts), one clip and one text at a time."""
    towers: TVTSModel = model.model.tvts
    cells = [row["video"] for row in load_videos(str(data), "test")]
    videos = [towers.get_video_features(**model.processor(videos=[cell])) for cell in cells]
    embedded = [towers.get_text_features(**model.processor(text=[text])) for text in texts]
    return torch.stack([torch.stack([F.cosine_similarity(v, t)[0] for t in embedded]) for v in videos])


def test_retrieval_ranks_clips_by_their_captions_and_the_reverse(
    model: SimpleNamespace, told: Path, tmp_path: Path
) -> None:
    code, results = evaluate(
        model.folder, told / "single", tmp_path, "--protocol", "text_retrieval", "--ranks", "1", "3"
    )
    assert code == 0
    dataset = load_videos(str(told / "single"), "test")
    scores = similarities(model, told / "single", dataset["caption"][:])
    for result, table in zip(results, (scores.T, scores), strict=True):
        better = (table > table.diagonal()[:, None] + 1e-6).sum(1)
        ties = ((table - table.diagonal()[:, None]).abs() <= 1e-6).sum(1) - 1
        ranks = better + ties / 2
        assert result.figures["R@1"].value == pytest.approx(100 * (ranks < 1).double().mean().item())
        assert result.figures["R@3"].value == pytest.approx(100 * (ranks < 3).double().mean().item())
        assert result.figures["MedR"].value == pytest.approx(ranks.double().quantile(0.5).item() + 1)
    assert [result.protocol["direction"] for result in results] == ["text to video", "video to text"]
    assert results[0].protocol["text"] == "caption"


def test_speech_is_compared_in_the_parts_that_the_model_takes(
    model: SimpleNamespace, told: Path, tmp_path: Path
) -> None:
    arguments = ("--protocol", "text_retrieval", "--text-column", "transcript", "--ranks", "1")
    _, results = evaluate(model.folder, told / "sequences", tmp_path, *arguments)
    assert (results[0].protocol["text"], results[0].protocol["parts"]) == ("transcript", SCRIPTS)
    rows = [json.loads(line) for line in (told / "sequences/test/metadata.jsonl").read_text().splitlines()]
    said = [[sentence["text"] for sentence in row["sentences"]] for row in rows]
    dataset = load_videos(str(told / "sequences"), "test")
    assert read_texts(dataset, "transcript", SCRIPTS) == ("transcript", said)
    scores = similarities(model, told / "sequences", said)
    hits = (scores.T.argmax(1) == torch.arange(CLIPS)).double().mean().item()
    assert results[0].figures["R@1"].value == pytest.approx(100 * hits)


def test_classes_are_named_by_their_prompts(model: SimpleNamespace, told: Path, tmp_path: Path) -> None:
    arguments = ("--protocol", "zero_shot", "--prompt", "it moves {}")
    _, (result,) = evaluate(model.folder, told / "single", tmp_path, *arguments)
    dataset = load_videos(str(told / "single"), "test")
    names = [f"it moves {name.replace('_', ' ')}" for name in dataset.features["label"].names]
    scores = similarities(model, told / "single", names)
    hits = scores.argmax(1) == torch.tensor(dataset["label"][:])
    assert result.figures["top1"].value == pytest.approx(100 * hits.double().mean().item())
    assert result.protocol["prompts"] == ["it moves {}"]


def test_scripts_are_sorted_whatever_order_they_come_in(
    model: SimpleNamespace, told: Path, tmp_path: Path
) -> None:
    _, (result,) = evaluate(model.folder, told / "sequences", tmp_path, "--protocol", "script_sorting")
    dataset = load_videos(str(told / "sequences"), "test")
    clips = PreparedClips(model.processor, dataset)
    _, said = read_texts(dataset, "transcript", SCRIPTS)
    placed = []
    for seed in (0, 1):
        found, places = sort_scripts(model.model, model.processor, clips, said, batch_size=3, seed=seed)
        placed.append(found.gather(1, places.argsort(1)))  # of each script the place that it is given
    assert torch.equal(placed[0], placed[1]), "slots have no position"
    truth = torch.arange(SCRIPTS).expand(CLIPS, -1)
    assert result.figures["slot"].value == pytest.approx(100 * (placed[0] == truth).double().mean().item())
    everything = (placed[0] == truth).all(1).double().mean().item()
    assert result.figures["all"].value == pytest.approx(100 * everything)


def test_orders_differ_between_clips_and_repeat() -> None:
    places = shuffled_places(50, 4, seed=3)
    assert torch.equal(places, shuffled_places(50, 4, seed=3))
    assert places.sort(1).values.eq(torch.arange(4)).all()
    assert len(places.unique(dim=0)) > 12


def test_sorting_counts_slots_and_whole_clips() -> None:
    places = torch.tensor([[0, 1, 2], [2, 1, 0]])
    outcome = sorting_protocol(torch.tensor([[0, 1, 2], [2, 0, 0]]), places)
    assert outcome.figures["slot"].value == pytest.approx(100 * 5 / 6)
    assert outcome.figures["all"].value == 50


def test_what_cannot_be_compared_is_said(
    model: SimpleNamespace, told: Path, tiny: SimpleNamespace, tmp_path: Path, capsys: Any
) -> None:
    for folder, protocol, message in (
        (tiny.folder, "text_retrieval", "has no get_text_features: it has no text tower"),
        (tiny.folder, "script_sorting", "STiCAForPreTraining sorts no scripts"),
        (model.folder, "zero_shot", "no classes whose names"),
    ):
        code, _ = evaluate(folder, told / "sequences", tmp_path, "--protocol", protocol)
        assert code == 1
        assert message in capsys.readouterr().err
    dataset = load_videos(str(told / "sequences"), "test")
    with pytest.raises(DataError, match="no column caption or transcript; it has"):
        read_texts(dataset.remove_columns(["caption", "transcript"]))
    with pytest.raises(DataError, match="row 0 has no text"):
        read_texts(dataset.map(lambda row: {"caption": " "}), "caption")
    with pytest.raises(DataError, match="has no transcript"):
        equal_parts({"video": {"path": "a.mp4"}, "transcript": None}, 2)
    with pytest.raises(InputError, match="give views 1x1"):
        sort_scripts(
            model.model, model.processor, PreparedClips(model.processor, dataset, views="2x1"), [["a"]]
        )
