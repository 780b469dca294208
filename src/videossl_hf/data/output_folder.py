"""Output folders that a broken-off run can continue, and that no other run can mix with its own files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import OutputError

__all__ = ["claim_folder", "settle_settings", "write_atomically"]


def claim_folder(folder: Path, manifest: str) -> None:
    """Make a folder if need be, and see that it can be written and is empty or holds its manifest.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Hidden files may be another process's, which begins the same run in this moment.
        if any(path.name[0] != "." for path in folder.iterdir()) and not (folder / manifest).exists():
            raise OutputError(f"{folder} holds other files: give a new or an empty folder")
        write_atomically(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error


def settle_settings(path: Path, settings: dict[str, Any]) -> None:
    """Keep what the output depends on in a manifest; if there is one, it has to say the same.

    Raises:
        OutputError: other settings, or a damaged file.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(settings, indent=2) + "\n")
        return
    try:
        found = dict(json.loads(path.read_text()))
    except ValueError as error:
        raise OutputError(f"{path} is damaged: delete its folder and run again") from error
    differences = "; ".join(
        f"{key} is {found.get(key)} there, {settings.get(key)} asked for"
        for key in {**settings, **found}
        if found.get(key) != settings.get(key)
    )
    if differences:
        raise OutputError(
            f"{path} says that its folder was begun with other settings ({differences}): "
            "give another folder, or delete this one"
        )


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is either there in full or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
