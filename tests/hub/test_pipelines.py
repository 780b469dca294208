"""Our pipelines: what they say is what the model says, by windows, in batches, with sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

from common.tiny import tiny
from media import sweep, write_media
from models import tiny_stica
from videossl_hf import (
    STiCAForVideoClassification,
    STiCAModel,
    VideoMoCoModel,
    VIMPACModel,
)
from videossl_hf.errors import DecodeError, InputError, NoAudioError

TASK = "video-feature-extraction"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        str(
            write_media(folder / f"{count}.mp4", num_frames=count, seed=count, sound=sweep(count / 10, 24000))
        )
        for count in (25, 9, 42)
    ]


@pytest.fixture(scope="module")
def extract() -> Any:
    torch.manual_seed(0)
    return pipeline(
        TASK, model=STiCAModel(tiny_stica.make_config()).eval(), processor=tiny_stica.make_processor()
    )


@torch.no_grad()
def test_features_are_the_models_own(extract: Any, clips: list[str]) -> None:
    output = extract.model(**extract.processor(videos=clips[0], audio=True))
    said = extract(clips[0], audio=True)
    assert said.keys() == {"features", "audio_features"}
    assert said["features"] == pytest.approx(output.pooler_output[0].tolist(), abs=1e-5)
    assert said["audio_features"] == pytest.approx(output.audio_pooler_output[0].tolist(), abs=1e-5)
    tensors = extract(clips[0], return_tensors=True)
    assert tensors["features"].tolist() == pytest.approx(said["features"], abs=1e-6)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 0), (64, 1)])
def test_windows_come_with_their_times_whatever_the_batch(
    extract: Any, clips: list[str], batch_size: int, num_workers: int
) -> None:
    settings = {"window_seconds": 1.0, "stride_seconds": 0.5, "audio": True}
    said = extract(clips, **settings, batch_size=batch_size, num_workers=num_workers)
    assert [len(windows) for windows in said] == [4, 1, 8]
    assert [window["start"] for window in said[0]] == [0.0, 0.5, 1.0, 1.5]
    assert said[0][-1]["end"] == 2.5
    assert said[1][0] | {"start": 0.0, "end": 0.9} == said[1][0]
    for video, clip in zip(said, clips, strict=True):
        alone = extract(clip, **settings)
        for window, other in zip(video, alone, strict=True):
            assert window["features"] == pytest.approx(other["features"], abs=1e-5)
            assert window["audio_features"] == pytest.approx(other["audio_features"], abs=1e-5)


def test_a_generator_of_videos_is_read_as_its_answers_are_wanted(extract: Any, clips: list[str]) -> None:
    read = []

    def videos() -> Iterator[str]:
        for clip in clips:
            read.append(clip)
            yield clip

    answers = extract(videos())
    next(iter(answers))
    assert read == clips[:1]


@pytest.mark.parametrize("model_class", [VideoMoCoModel, VIMPACModel])
def test_a_method_without_sound_or_text_works_in_batches_and_says_that_it_does_not_hear(
    model_class: Any, clips: list[str]
) -> None:
    parts = tiny(model_class.config_class.model_type)
    extract = pipeline(TASK, model=model_class(parts.make_config()).eval(), processor=parts.make_processor())
    together = extract(clips, batch_size=2)
    assert together[2]["features"] == pytest.approx(extract(clips[2])["features"], abs=1e-5)
    with pytest.raises(InputError, match="does not hear"):
        extract(clips[0], audio=True)


def test_a_classifier_says_the_classes_of_every_window(clips: list[str]) -> None:
    torch.manual_seed(0)
    model = STiCAForVideoClassification(tiny_stica.make_config()).eval()
    parts = {"model": model, "processor": tiny_stica.make_processor()}
    classify = pipeline("windowed-video-classification", **parts)
    usual = pipeline("video-classification", model=model, video_processor=parts["processor"].video_processor)
    assert [row["label"] for row in classify(clips[0])] == [row["label"] for row in usual(clips[0])]
    windows = classify(clips[0], window_seconds=1.0, top_k=2)
    assert [window["start"] for window in windows] == [0.0, 1.0, 1.5]
    assert all(len(window["classes"]) == 2 for window in windows)


def test_what_does_not_fit_is_one_clear_error(extract: Any, clips: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give window_seconds, too"):
        extract(clips[0], stride_seconds=1.0)
    with pytest.raises(InputError, match="no setting frames"):
        extract(clips[0], frames=3)
    with pytest.raises(InputError, match="positive number of seconds"):
        extract(clips[0], window_seconds=-1)
    with pytest.raises(DecodeError):
        extract(b"no video")
    silent = str(write_media(tmp_path / "silent.mp4"))
    with pytest.raises(NoAudioError):
        extract(silent, audio=True, window_seconds=1.0)
