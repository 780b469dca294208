"""results.json: every figure with what it takes to find it again.

The file is a list of results under a schema number. Adding a result replaces the one with the same model
weights, data, protocol, views and seed, if there is one, and leaves all others as they are.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import DataError, InputError, OutputError

__all__ = ["Figure", "Result", "installed_versions", "read_results", "write_results"]

SCHEMA = 1
_UNITS = ("percent", "rank")


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        value: in `unit`.
        low, high: bounds of its bootstrap 95 % interval.
        samples: how many test samples it is the figure of.
        unit: "percent", or "rank" (counted from 1).
    """

    value: float
    low: float
    high: float
    samples: int
    unit: str = "percent"

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Result:
    """One model under one protocol on one test split.

    Attributes:
        model: {"id", "revision", "class", "weights"} and whatever else names it ("random_weights", "recipe").
        data: {"id", "split", "fingerprint", "samples"} and the splits it was fitted and chosen on.
        protocol: {"name"} and its settings ("k", "l2", ...).
        views: "CLIPSxCROPS".
        seed: of everything that was drawn.
        figures: by name, e.g. {"top1": Figure(...)}.
        wall_time: seconds, extraction included.
        versions: of this package and those it computes with.
        created: UTC, ISO 8601.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    protocol: dict[str, Any]
    views: str
    seed: int
    figures: dict[str, Figure]
    wall_time: float
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        needed = {"model": ("id", "weights"), "data": ("id", "split", "fingerprint"), "protocol": ("name",)}
        for name, keys in needed.items():
            absent = [key for key in keys if key not in getattr(self, name)]
            if absent:
                raise InputError(f"a result's {name} must state {', '.join(absent)}")
        if not self.figures:
            raise InputError("a result without a figure says nothing")
        for name, figure in self.figures.items():
            if figure.unit not in _UNITS or not figure.low <= figure.high or figure.samples < 1:
                raise InputError(
                    f"the figure {name} is not sound: {figure}, {figure.samples} samples, {figure.unit}"
                )

    @property
    def identity(self) -> str:
        """Equal for two results of which the newer replaces the older."""
        data = {key: value for key, value in self.data.items() if key not in ("id", "revision")}
        parts = [self.model["weights"], data, self.protocol, self.views, self.seed]
        return json.dumps(parts, sort_keys=True)


def installed_versions() -> dict[str, str]:
    """Versions of what the figures were computed with; packages that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in ("videossl-hf", "torch", "transformers", "datasets", "av", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def read_results(path: str | Path) -> list[Result]:
    """The results of a file.

    Raises:
        DataError: not a results file, or a result that does not fit the schema.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read results from {path}: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(f'{path} is not a results file (it lacks "schema": {SCHEMA})')
    try:
        return [_result(entry) for entry in content["results"]]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise DataError(f"{path} holds a result that does not fit the schema: {error}") from error


def write_results(path: str | Path, results: list[Result]) -> list[Result]:
    """Add results to a file (made if absent) and return all that it then holds.

    Raises:
        DataError: the file is there and is not a results file; it is left as it is.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    merged = {result.identity: result for result in (read_results(path) if path.exists() else [])}
    merged |= {result.identity: result for result in results}
    content = {"schema": SCHEMA, "results": [asdict(result) for result in merged.values()]}
    part = path.with_suffix(f".part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    return list(merged.values())


def _result(entry: dict[str, Any]) -> Result:
    figures = {name: Figure(**figure) for name, figure in entry["figures"].items()}
    return Result(**(entry | {"figures": figures}))
