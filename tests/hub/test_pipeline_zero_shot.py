"""Classes by name: what the pipeline says of clips equals what the towers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import pipeline

from media import write_media
from models import tiny_tvts
from videossl_hf import TVTSModel, TVTSProcessor, VideoMoCoModel
from videossl_hf.data.sounding_shapes import word_tokenizer
from videossl_hf.errors import InputError
from videossl_hf.evaluation.text_features import class_features, fill_prompts, text_features

LABELS = ["up_right", "down", "left"]
TASK = "zero-shot-video-classification"


@pytest.fixture(scope="module")
def towers() -> tuple[TVTSModel, TVTSProcessor]:
    torch.manual_seed(0)
    settings = tiny_tvts.DISTILBERT | {"vocab_size": 128, "max_position_embeddings": 20}
    config = tiny_tvts.make_config(max_text_length=20, text_settings=settings)
    return TVTSModel(config).eval(), TVTSProcessor.from_config(config, word_tokenizer())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    return [str(write_media(folder / f"{count}.mp4", num_frames=count)) for count in (10, 14)]


@torch.no_grad()
def expected(towers: tuple[Any, Any], clip: str, prompts: tuple[str, ...]) -> dict[str, float]:
    model, processor = towers
    video = model.get_video_features(processor(videos=[clip])["pixel_values_videos"])
    classes = torch.stack(
        [
            sum(
                F.normalize(
                    model.get_text_features(**processor(text=prompt.format(label.replace("_", " ")))), dim=-1
                )[0]
                for prompt in prompts
            )
            for label in LABELS
        ]
    )
    scores = (F.cosine_similarity(video, classes) / model.config.temperature).softmax(0)
    return dict(zip(LABELS, scores.tolist(), strict=True))


def test_the_scores_are_those_of_the_towers_best_first_whatever_the_batch(
    towers: tuple[Any, Any], clips: list[str]
) -> None:
    classify = pipeline(TASK, model=towers[0], processor=towers[1])
    prompts = ("the shape goes {}", "it moves {}")
    for batch_size in (1, 2):
        answers = classify(clips, candidate_labels=LABELS, hypothesis_template=prompts, batch_size=batch_size)
        for clip, answer in zip(clips, answers, strict=True):
            scores = {entry["label"]: entry["score"] for entry in answer}
            assert scores == pytest.approx(expected(towers, clip, prompts), abs=1e-5)
            assert [entry["score"] for entry in answer] == sorted(scores.values(), reverse=True)
    other = classify(clips[0], candidate_labels=LABELS[:2])
    assert {entry["label"] for entry in other} == set(LABELS[:2]), "labels of an earlier call are gone"


def test_a_saved_folder_is_enough(towers: tuple[Any, Any], clips: list[str], tmp_path: Path) -> None:
    for part in towers:
        part.save_pretrained(tmp_path)
    answer = pipeline(TASK, model=str(tmp_path))(clips[0], candidate_labels=LABELS)
    assert {entry["label"]: entry["score"] for entry in answer} == pytest.approx(
        expected(towers, clips[0], ("{}",)), abs=1e-5
    )


def test_what_cannot_be_classified_is_said(towers: tuple[Any, Any], clips: list[str]) -> None:
    classify = pipeline(TASK, model=towers[0], processor=towers[1])
    with pytest.raises(InputError, match="give candidate_labels"):
        classify(clips[0])
    with pytest.raises(InputError, match=r"must hold \{\} once"):
        classify(clips[0], candidate_labels=LABELS, hypothesis_template="a person")
    with pytest.raises(InputError, match="no texts"):
        text_features(*towers, [])
    with pytest.raises(InputError, match="need class names"):
        fill_prompts([], ["{}"])
    with pytest.raises(InputError, match="VideoMoCoModel has no get_text_features"):
        text_features(VideoMoCoModel.__new__(VideoMoCoModel), towers[1], ["x"])


def test_several_prompts_make_one_direction_a_class(towers: tuple[Any, Any]) -> None:
    directions = class_features(*towers, LABELS, ["it moves {}", "the shape moves {}"])
    assert directions.shape == (3, 8)
    assert torch.allclose(directions.norm(dim=1), torch.ones(3), atol=1e-6)
