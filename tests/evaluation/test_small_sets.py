"""Cross-validation over small labelled sets: real gestures and sounds where `VIDEOSSL_MEDIA` names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from media import sweep, write_media
from videossl_hf.cli import main
from videossl_hf.evaluation.clip_values import read_clip_values
from videossl_hf.evaluation.results import read_results

CLASSES, CLIPS = 4, 6


def labelled(name: str, folder: Path, suffix: str, make) -> Path:
    """Some clips of some classes of a real set, or made ones."""
    media = os.environ.get("VIDEOSSL_MEDIA")
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    if media:
        for number, source in enumerate(sorted((Path(media) / "labelled" / name).iterdir())[:CLASSES]):
            for path in sorted(source.glob(f"*{suffix}"))[:CLIPS]:
                (folder / f"class{number}" / path.name).symlink_to(path)
        return folder
    for number in range(CLASSES):
        for clip in range(CLIPS):
            make(folder / f"class{number}" / f"{clip}{suffix}", number * CLIPS + clip)
    return folder


@pytest.fixture(scope="module")
def gestures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gestures")
    return labelled("egogestar", folder / "set", ".mp4", lambda path, seed: write_media(path, seed=seed))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    return labelled(
        "esc10", folder / "set", ".ogg" if os.environ.get("VIDEOSSL_MEDIA") else ".wav", write_wav
    )


def write_wav(path: Path, seed: int) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(sweep(1.0 + 0.1 * seed, 16_000).tobytes())


def cross_validate(tiny, data: Path, output: Path, *arguments: str):
    command = [
        "evaluate",
        str(tiny.folder),
        "--data",
        str(data),
        "--device",
        "cpu",
        "--folds",
        "3",
        "--k",
        "3",
    ]
    assert main([*command, "--output", str(output), *arguments]) == 0
    return read_results(output)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_every_protocol_that_learns_is_cross_validated_with_intervals(
    tiny, gestures, sounds, tmp_path, modality
):
    data, output = (gestures if modality == "video" else sounds), tmp_path / "results.json"
    protocols = ["knn", "linear", "attentive", "few_shot", "retrieval"]
    results = cross_validate(
        tiny, data, output, "--protocol", *protocols, "--modality", modality, "--epochs", "1", "--draws", "1",
        "--shots", "1", "2", "--lr", "1e-3", "--weight-decay", "0.01", "--l2", "0.01",
    )  # fmt: skip
    assert [result.protocol["name"] for result in results] == protocols
    for result in results:
        assert (result.protocol["folds"], result.data["samples"]) == (3, CLASSES * CLIPS)
        for figure in result.figures.values():
            assert figure.low <= figure.value <= figure.high
            assert figure.samples == CLASSES * CLIPS
        clips = read_clip_values(output, result)
        assert len(set(clips.keys)) == CLASSES * CLIPS, "every clip is tested once"


def test_a_probe_by_sgd_is_cross_validated_too(tiny, gestures, tmp_path):
    results = cross_validate(
        tiny, gestures, tmp_path / "r.json", "--protocol", "linear", "--optimizer", "sgd", "--epochs", "2",
        "--lr", "0.1", "0.3",
    )  # fmt: skip
    chosen = results[0].protocol["lr"]
    assert set(chosen if isinstance(chosen, list) else [chosen]) <= {0.1, 0.3}


def test_several_spans_of_a_sound_file_are_averaged(tiny, sounds, tmp_path):
    results = cross_validate(tiny, sounds, tmp_path / "r.json", "--modality", "audio", "--views", "3x1")
    assert results[0].views == "3x1"


def test_a_class_with_one_clip_is_named(tiny, gestures, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    for folder in sorted(gestures.iterdir()):
        (tmp_path / "set" / folder.name).mkdir()
        for path in sorted(folder.iterdir())[: 1 if folder.name == "class2" else 3]:
            (tmp_path / "set" / folder.name / path.name).symlink_to(path)
    command = [
        "evaluate",
        str(tiny.folder),
        "--data",
        str(tmp_path / "set"),
        "--device",
        "cpu",
        "--folds",
        "3",
    ]
    assert main([*command, "--k", "2", "--output", str(tmp_path / "r.json")]) == 1
    assert "class 2 has a single clip" in capsys.readouterr().err
