"""Checkpoints: whole or not there, and nothing is overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from videossl_hf.errors import CheckpointError, ConfigurationError, OutputError
from videossl_hf.training.checkpoints import (
    SEAL,
    choose_checkpoint,
    list_checkpoints,
    prepare_output_dir,
    prune_checkpoints,
    remove_checkpoint,
    seal_checkpoint,
    verify_checkpoint,
)


def make_checkpoint(output_dir: Path, step: int, *, seal: bool = True) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    (folder / "part").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights" * 100)
    (folder / "part/state.bin").write_bytes(b"state")
    if seal:
        seal_checkpoint(folder, step, world_size=2)
    return folder


def test_the_newest_complete_checkpoint_is_chosen_by_step(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        make_checkpoint(tmp_path, step)
    make_checkpoint(tmp_path, 200, seal=False)
    (tmp_path / "checkpoint-notes").mkdir()
    assert choose_checkpoint(tmp_path, "auto") == tmp_path / "checkpoint-100"


def test_without_a_checkpoint_a_run_starts_afresh(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 5, seal=False)
    assert choose_checkpoint(tmp_path, "auto") is None
    assert choose_checkpoint(tmp_path, "never") is None


def test_a_fresh_start_does_not_overwrite_a_run(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 5)
    with pytest.raises(OutputError, match=r"already holds a run \(checkpoint-5\)"):
        choose_checkpoint(tmp_path, "never")


def test_going_on_from_an_older_checkpoint_does_not_overwrite_newer_ones(tmp_path: Path) -> None:
    older = make_checkpoint(tmp_path, 5)
    make_checkpoint(tmp_path, 6)
    with pytest.raises(OutputError, match="newer checkpoints"):
        choose_checkpoint(tmp_path, str(older))
    assert choose_checkpoint(tmp_path / "elsewhere", str(older)) == older


@pytest.mark.parametrize("name", ["weights.bin", "part/state.bin"])
def test_a_file_that_changed_is_noticed(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path, 5)
    content = bytearray((folder / name).read_bytes())
    content[2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=f"is damaged: {name} has changed"):
        choose_checkpoint(tmp_path, "auto")


def test_a_file_that_was_cut_or_lost_is_noticed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 5)
    (folder / "weights.bin").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match="has 7 bytes instead of 700"):
        verify_checkpoint(folder)
    (folder / "weights.bin").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.bin is missing"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("seal", ["", "[]", '{"files": 3}', "{"])
def test_a_damaged_seal_is_a_checkpoint_error(tmp_path: Path, seal: str) -> None:
    folder = make_checkpoint(tmp_path, 5)
    (folder / SEAL).write_text(seal)
    with pytest.raises(CheckpointError, match="is damaged"):
        verify_checkpoint(folder)


def test_an_incomplete_checkpoint_named_by_hand_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 5, seal=False)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        choose_checkpoint(tmp_path, str(folder))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        choose_checkpoint(tmp_path, str(tmp_path / "checkpoint-7"))


def test_a_checkpoint_of_another_name_gets_that_of_its_step(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 5).rename(tmp_path / "last-checkpoint")
    assert choose_checkpoint(tmp_path, str(folder)) == tmp_path / "checkpoint-5"
    again = shutil.copytree(tmp_path / "checkpoint-5", folder)
    with pytest.raises(ConfigurationError, match="move away what has that name"):
        choose_checkpoint(tmp_path, str(again))


def test_a_seal_names_the_number_of_processes(tmp_path: Path) -> None:
    assert verify_checkpoint(make_checkpoint(tmp_path, 5)) == 2


def test_pruning_keeps_the_newest_complete_ones_and_removes_half_written_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)
    make_checkpoint(tmp_path, 4, seal=False)
    prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path, sealed=False)] == [
        "checkpoint-2",
        "checkpoint-3",
    ]


def test_a_removal_that_is_interrupted_leaves_no_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path, 5)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # the process dies here
    remove_checkpoint(folder)
    assert (folder / "weights.bin").exists()
    assert list_checkpoints(tmp_path) == []


def test_an_output_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"choose another one with --training\.output_dir"):
        prepare_output_dir(tmp_path / "file/run")
    assert list(prepare_output_dir(tmp_path / "new/run").iterdir()) == []
