"""Checkpoints that are whole or not there: a seal is written last, and nothing without a valid seal is
resumed from.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

from ..errors import CheckpointError, ConfigurationError, OutputError

__all__ = [
    "SEAL",
    "choose_checkpoint",
    "list_checkpoints",
    "prepare_output_dir",
    "prune_checkpoints",
    "remove_checkpoint",
    "seal_checkpoint",
    "verify_checkpoint",
]

SEAL = "checkpoint.json"
_PREFIX = "checkpoint-"


def prepare_output_dir(folder: str | Path) -> Path:
    """Make the folder of a run and make sure that it can be written to.

    Raises:
        OutputError: it cannot.
    """
    folder = Path(folder)
    probe = folder / f".write_test_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to the output folder {folder}: {error.strerror or error}; "
            "choose another one with --training.output_dir"
        ) from error
    return folder


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def seal_checkpoint(folder: Path, step: int, world_size: int) -> None:
    """Write the seal of a complete checkpoint: every file of it with size and CRC-32."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    content = {
        "step": step,
        "world_size": world_size,
        "files": {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "crc32": _checksum(path)}
            for path in files
        },
    }
    unfinished = folder / f".{SEAL}"
    unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
    unfinished.replace(folder / SEAL)


def verify_checkpoint(folder: Path) -> int:
    """Check a checkpoint against its seal; returns the number of processes that wrote it.

    Raises:
        CheckpointError: no seal (the run was stopped while writing), a file that is missing, or one that has
            changed.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint {folder}")
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files, world_size = content["files"], int(content["world_size"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint: without {SEAL} the run was stopped while writing it; "
            "resume from an earlier one (--resume auto finds it)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / SEAL} is damaged ({error}): resume from another checkpoint"
        ) from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            problem = "is missing"
        elif path.stat().st_size != expected["size"]:
            problem = f"has {path.stat().st_size} bytes instead of {expected['size']}"
        elif _checksum(path) != expected["crc32"]:
            problem = "has changed since it was written"
        else:
            continue
        raise CheckpointError(
            f"{folder} is damaged: {name} {problem}; delete it or resume from another checkpoint"
        )
    return world_size


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix(_PREFIX)
    return int(number) if folder.is_dir() and folder.name.startswith(_PREFIX) and number.isdigit() else -1


def list_checkpoints(output_dir: Path, *, sealed: bool = True) -> list[Path]:
    """The checkpoints of a run by step, oldest first; `sealed=False` includes half-written ones."""
    found = [path for path in output_dir.glob(f"{_PREFIX}*") if _step_of(path) >= 0]
    return sorted((path for path in found if not sealed or (path / SEAL).is_file()), key=_step_of)


def choose_checkpoint(output_dir: Path, resume: str) -> Path | None:
    """The checkpoint to go on from, or None for a fresh start.

    Args:
        output_dir: the run's folder.
        resume: "auto" (the newest complete one there is, else a fresh start), "never" (a fresh start in a
            folder without checkpoints), or the folder of a checkpoint. One of another name, such as a
            `last-checkpoint` that was downloaded from the Hub, is renamed `checkpoint-STEP`.

    Raises:
        CheckpointError: the chosen one is damaged or incomplete.
        OutputError: a fresh start, or one from an older checkpoint, would overwrite what the folder holds.
    """
    existing = list_checkpoints(output_dir)
    if resume == "never":
        if existing:
            raise OutputError(
                f"{output_dir} already holds a run ({existing[-1].name}): choose another "
                "--training.output_dir, or go on with it (--resume auto)"
            )
        return None
    if resume == "auto":
        if not existing:
            return None
        verify_checkpoint(existing[-1])
        return existing[-1]
    folder = Path(resume)
    verify_checkpoint(folder)
    if _step_of(folder) < 0:
        folder = _named_by_step(folder)
    newer = [path.name for path in existing if _step_of(path) > _step_of(folder)]
    if newer:
        raise OutputError(
            f"{output_dir} holds newer checkpoints ({', '.join(newer)}), which going on from {folder.name} "
            "would overwrite: move them away, or choose another --training.output_dir"
        )
    return folder


def _named_by_step(folder: Path) -> Path:
    """A checkpoint under the name that tells its step, which is where the training goes on."""
    step = json.loads((folder / SEAL).read_text(encoding="utf-8")).get("step")
    named = folder.with_name(f"{_PREFIX}{step}")
    if named.exists() or type(step) is not int:
        raise ConfigurationError(f"{folder} cannot be called {named.name}: move away what has that name")
    try:
        return folder.rename(named)
    except OSError as error:
        raise OutputError(f"cannot rename {folder} to {named.name}: {error}") from error


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its seal first: what an interruption leaves is never taken for a whole one."""
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def prune_checkpoints(output_dir: Path, keep: int) -> None:
    """Keep the newest `keep` complete checkpoints, and delete the others and all half-written ones."""
    kept = list_checkpoints(output_dir)[-keep:]
    for folder in list_checkpoints(output_dir, sealed=False):
        if folder not in kept:
            remove_checkpoint(folder)
