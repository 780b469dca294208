"""The list of samples that could not be used: JSON lines that several processes append to one file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import OutputError

__all__ = ["Ledger", "read_ledger"]


class Ledger:
    """Appends entries to a file, each call in one write, so that lines of several processes never mix.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.append([])

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Add one line an entry."""
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"cannot write the ledger {self.path}: {error.strerror}") from error


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """All entries of a ledger; none if there is no such file."""
    path = Path(path)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
