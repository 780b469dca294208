"""`videossl convert`: official files become folders that load; nothing else in a file ever runs."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from models.tiny_stica import make_config
from videossl_hf import STiCAForPreTraining, cli
from videossl_hf.hub.facts import method_facts, official_source
from videossl_hf.hub.origin import read_origin
from videossl_hf.models.stica.conversion_stica import official_state_dict
from videossl_hf.registry import COMPANIONS, METHODS


@pytest.fixture
def model() -> STiCAForPreTraining:
    torch.manual_seed(0)
    return STiCAForPreTraining(make_config(pooling_heads=4)).eval()


@pytest.fixture
def checkpoint(model: STiCAForPreTraining, tmp_path: Path) -> Path:
    """A file as the official training script saves it."""
    path = tmp_path / "epoch_10.pth"
    state = {f"module.{key}": value for key, value in official_state_dict(model).items()}
    torch.save({"epoch": 10, "state_dict": state, "args": argparse.Namespace(lr=0.1)}, path)
    return path


class Command:
    """Unpickles to the call of a command that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


def test_the_converted_folder_loads_with_the_same_weights(
    model: STiCAForPreTraining, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "converted"
    assert (
        cli.main(["convert", "stica", str(checkpoint), str(output), "--license", "mit", "--source", "here"])
        == 0
    )
    loaded = AutoModelForPreTraining.from_pretrained(output)
    expected = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, expected[name]), name
    assert isinstance(AutoModel.from_pretrained(output), AutoModel._model_mapping[type(loaded.config)])
    assert AutoProcessor.from_pretrained(output).video_processor.num_frames == loaded.config.num_frames
    origin = read_origin(output)
    assert (origin.method, origin.checkpoint, origin.license, origin.source) == (
        "stica",
        "epoch_10.pth",
        "mit",
        "here",
    )
    assert origin.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert str(tmp_path) not in "".join(path.read_text() for path in output.glob("*.json"))


def test_a_licence_that_nobody_stated_is_not_invented(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", "stica", str(checkpoint), str(tmp_path / "converted")]) == 0
    shown = capsys.readouterr()
    assert "not known, shown as other" in shown.out
    assert "--license" in shown.err
    assert json.loads((tmp_path / "converted" / "origin.json").read_text())["license"] is None


def test_files_of_the_official_release_carry_its_licence(checkpoint: Path, tmp_path: Path) -> None:
    official = checkpoint.rename(tmp_path / "gdt_K400.pth")
    assert cli.main(["convert", "stica", str(official), str(tmp_path / "converted")]) == 0
    origin = read_origin(tmp_path / "converted")
    assert origin.license == "cc-by-nc-4.0"
    assert origin.source == "https://github.com/facebookresearch/GDT"


@pytest.mark.parametrize("method", [*METHODS, *COMPANIONS])
def test_official_files_have_a_source_and_the_licence_that_their_authors_state(method: str) -> None:
    official = method_facts(method).official
    for name in official.get("checkpoints", ()):
        source = official_source(method, name)
        assert source == {"source": official["repository"], "license": official.get("license")}
    assert official_source(method, "of somebody else.pth") == {}
    assert official["repository"].startswith("https://github.com/")


@pytest.mark.parametrize("save", ["torch", "old torch", "pickle"])
@pytest.mark.parametrize("method", [*METHODS, *COMPANIONS])
def test_a_malicious_file_is_an_error_and_does_not_run(
    method: str, save: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    content = {
        "state_dict": {"module.video_network.base.stem.0.weight": torch.zeros(1)},
        "args": Command(trace),
    }
    if save == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    assert cli.main(["convert", method, str(path), str(tmp_path / "converted")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not trace.exists()
    assert not (tmp_path / "converted").exists()


def test_the_malicious_file_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Command(trace)))
    assert trace.exists()


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "cut", "text", "absent", "output"])
def test_what_cannot_be_converted_is_one_clear_error_and_writes_nothing(
    change: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=False)
    state, output = content["state_dict"], tmp_path / "converted"
    key = "module.mlp_a.block_forward.8.bias"
    if change == "missing":
        del state[key]
    elif change == "unknown":
        state["module.mlp_x.weight"] = torch.zeros(1)
    elif change == "shape":
        state[key] = torch.zeros(3)
    torch.save(content, checkpoint)
    if change == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    elif change == "text":
        checkpoint.write_text("no weights at all")
    elif change == "absent":
        checkpoint.unlink()
    elif change == "output":
        output.mkdir()
        (output / "mine.txt").write_text("keep")
    assert cli.main(["convert", "stica", str(checkpoint), str(output)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    named = {
        "missing": "mlp_a",
        "unknown": "mlp_x",
        "shape": "(3,)",
        "absent": "no checkpoint",
        "output": "new folder",
    }
    assert named.get(change, "cannot read") in error
    assert change == "output" or not output.exists()
