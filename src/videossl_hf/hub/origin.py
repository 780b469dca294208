"""Where weights come from and under which licence, written beside them as `origin.json`.

Converted weights carry their authors' licence, never this package's. A licence that nobody has stated is
"other" on the Hub, and weights in that state are not published (`hub/push.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import DataError, OutputError

__all__ = ["ORIGIN_FILE", "Origin", "hub_license", "read_origin", "write_origin"]

ORIGIN_FILE = "origin.json"

# Identifiers that the Hub knows and that weights of this field carry; anything else is "other" with a name.
HUB_LICENSES = frozenset(
    {
        "agpl-3.0",
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "gpl-3.0",
        "lgpl-3.0",
        "mit",
        "mpl-2.0",
        "openrail",
        "other",
        "unlicense",
    }
)


@dataclass(frozen=True)
class Origin:
    """Origin of converted weights.

    Attributes:
        method: name of the method.
        checkpoint: name of the file that was converted, without its folder.
        sha256: of that file.
        license: what the caller or the authors state, None when nobody has.
        source: where the file was published, None when not stated.
        converted_with: package and version.
        further_files: name -> SHA-256 of other files that the same weights came from.
    """

    method: str
    checkpoint: str
    sha256: str
    license: str | None
    source: str | None
    converted_with: str
    further_files: dict[str, str] = field(default_factory=dict)


def hub_license(stated: str | None) -> dict[str, str]:
    """`license` and, where the Hub has no identifier for it, `license_name` of a model card."""
    identifier = (stated or "other").strip().lower()
    if identifier in HUB_LICENSES:
        return {"license": identifier}
    return {"license": "other", "license_name": "-".join(identifier.split())}


def write_origin(origin: Origin, folder: str | Path) -> None:
    """Write `origin.json` into a folder.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(folder) / ORIGIN_FILE
    try:
        path.write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def read_origin(folder: str | Path) -> Origin | None:
    """The origin noted in a folder; None if there is no note (weights that were trained here).

    Raises:
        DataError: the note is not one of ours.
    """
    path = Path(folder) / ORIGIN_FILE
    if not path.exists():
        return None
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} does not state an origin as `videossl convert` writes it: {error}"
        ) from error
