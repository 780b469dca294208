"""What the Space shows of a clip, and the files it is made of; the page itself is tested in a browser."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.tiny import tiny
from media import sweep, write_media
from videossl_hf.errors import DataError, DependencyError, InputError
from videossl_hf.hub.space_files import plan_space
from videossl_hf.registry import METHODS, find_class, has_class
from videossl_hf.space import Demonstration, build_app


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    rows = []
    for number in range(5):
        write_media(folder / f"{number}.mp4", num_frames=20, seed=number)
        rows.append({"file_name": f"{number}.mp4", "label": "left" if number % 2 else "right"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_media(folder / "clip.mp4", num_frames=30, seed=9, sound=sweep(3.0, 24000))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a training of each method leaves, and a classifier."""
    folders = {}
    for name in (*METHODS, "classifier"):
        method = "videomoco" if name == "classifier" else name
        suffix = "ForPreTraining" if has_class(method, "ForPreTraining") else "ForVideoClassification"
        suffix = "ForVideoClassification" if name == "classifier" else suffix
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        find_class(method, suffix)(tiny(method).make_config()).save_pretrained(folder)
        tiny(method).make_processor().save_pretrained(folder)
        folders[name] = str(folder)
    return folders


@pytest.fixture(scope="module")
def demonstration(models: dict[str, str], gallery: Path) -> Demonstration:
    return Demonstration(list(models.values()), gallery)


@pytest.mark.parametrize("name", [*METHODS, "classifier"])
def test_a_clip_gets_classes_neighbours_a_picture_and_times(
    name: str, demonstration: Demonstration, models: dict[str, str], clip: Path, gallery: Path
) -> None:
    answer = demonstration.answer(clip, models[name])
    assert sum(answer.classes.values()) == pytest.approx(1, abs=1e-5)
    classifies = name in ("ila", "classifier")
    assert set(answer.classes) <= (set(answer.classes) if classifies else {"left", "right"})
    assert ("classifier" in answer.classes_from) == classifies
    assert len(answer.nearest) == 4
    assert all(Path(path).parent == gallery for path, _ in answer.nearest)
    assert answer.picture.width > 100
    assert answer.timing.count(" s") == 3
    # Without a transcript TVTS has nothing to sort, and a classifier has no generator any more.
    assert bool(answer.note) == (name in ("tvts", "classifier")), answer.note
    assert answer.caption.endswith(".")
    assert demonstration.reads(models[name]) == (name in ("tvts", "ila"))


def test_the_nearest_clip_of_a_clip_of_the_gallery_is_itself(
    demonstration: Demonstration, models: dict[str, str], gallery: Path
) -> None:
    answer = demonstration.answer(gallery / "3.mp4", models["stica"])
    assert answer.nearest[0] == (str(gallery / "3.mp4"), "left, 1.00")


def test_a_model_that_reads_takes_names_and_a_transcript(
    demonstration: Demonstration, models: dict[str, str], clip: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told.vtt"
    told.write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.000\nit moves left\n\n00:01.000 --> 00:02.900\nnow it grows\n"
    )
    answer = demonstration.answer(clip, models["tvts"], "moves left, grows , ", told)
    assert set(answer.classes) == {"moves left", "grows"}
    assert answer.note == ""
    named = demonstration.answer(clip, models["ila"], "swim, fly")
    assert set(named.classes) == {"swim", "fly"}, "names that are asked for, not those of the classifier"
    wrong = demonstration.answer(clip, models["tvts"], transcript=tmp_path / "told.exe")
    assert ".vtt" in wrong.note


def test_what_cannot_be_shown_is_an_error(
    demonstration: Demonstration, models: dict[str, str], gallery: Path, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is none of"):
        demonstration.answer(clip, "somebody/else")
    with pytest.raises((DataError, InputError)):
        Demonstration([], gallery)


def test_the_space_is_complete_and_runs_no_code_but_its_own(tmp_path: Path) -> None:
    files = plan_space("alice/shapes", "cc-by-4.0")

    def read(name: str) -> bytes:
        source: Any = files[name]
        return source if isinstance(source, bytes) else source.read_bytes()

    assert b'CHECKPOINTS = ["alice/shapes"]' in read("app.py")
    for line in (b"sdk: gradio", b"sdk_version: 6.31.0", b"app_file: app.py", b"license: cc-by-4.0"):
        assert line in read("README.md")
    needed = read("requirements.txt").decode().splitlines()
    assert any(line.startswith("torch") for line in needed)
    assert any(line.startswith("matplotlib") for line in needed)
    assert not any(line.startswith("pytest") for line in needed)
    rows = [json.loads(line) for line in read("gallery/metadata.jsonl").splitlines()]
    assert {f"gallery/{row['file_name']}" for row in rows} <= files.keys()
    assert len({row["label"] for row in rows}) == 12
    assert {"videossl_hf/__init__.py", "videossl_hf/space.py", "videossl_hf/hub/card.py"} <= files.keys()
    assert not any("__pycache__" in name or name.startswith("/") or ".." in name for name in files)
    assert sum(len(read(name)) for name in files) < 4_000_000


def test_the_page_without_gradio_says_how_to_get_it(
    models: dict[str, str], gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(DependencyError, match=r"videossl-hf\[space\]"):
        build_app(list(models.values()), gallery)
