"""pipeline("video-classification") on real files, or on generated ones without VIDEOSSL_MEDIA."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

from common.media import make_clip
from models import tiny_stica
from videossl_hf import STiCAForVideoClassification

MEDIA = os.environ.get("VIDEOSSL_MEDIA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    names = ["walk", "run", "jump", "swim", "fly"]
    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    STiCAForVideoClassification(tiny_stica.make_config(**labels)).save_pretrained(path)
    tiny_stica.make_processor().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    if MEDIA:
        return sorted((Path(MEDIA) / "clips").iterdir())[:4]
    made = tmp_path_factory.mktemp("clips")
    return [make_clip(made / f"{count}.mp4", count=count) for count in (3, 24)]


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return pipeline("video-classification", model=str(folder), device="cpu")


def test_names_the_classes_of_a_file_with_their_probabilities(pipe: Any, clips: list[Path]) -> None:
    for clip in clips:
        answer = pipe(str(clip), top_k=5)
        assert {entry["label"] for entry in answer} == {"walk", "run", "jump", "swim", "fly"}
        assert sum(entry["score"] for entry in answer) == pytest.approx(1.0, abs=1e-5)


def test_agrees_with_processor_and_model(pipe: Any, folder: Path, clips: list[Path]) -> None:
    model = STiCAForVideoClassification.from_pretrained(folder)
    inputs = tiny_stica.make_processor()(videos=clips[0])
    with torch.no_grad():
        expected = model(**inputs).logits[0].softmax(-1)
    answer = {entry["label"]: entry["score"] for entry in pipe(str(clips[0]), top_k=5)}
    for index, name in model.config.id2label.items():
        assert answer[name] == pytest.approx(float(expected[index]), abs=1e-6)


def test_takes_lists_bytes_and_another_number_of_frames(pipe: Any, clips: list[Path]) -> None:
    names = [str(clip) for clip in clips]
    answers = pipe(names, top_k=2)
    assert [len(answer) for answer in answers] == [2] * len(clips)
    assert pipe(clips[0].read_bytes(), top_k=2) == answers[0]
    assert pipe(names[-1], num_frames=4, top_k=2) != answers[-1]
