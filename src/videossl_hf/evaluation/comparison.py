"""Results of several models, set side by side: one table for every set of test clips.

Figures stand in one column only if they answer the same question: equal clips, protocol and settings that a
user chooses (k, folds, views, ...; not those that a protocol chooses for itself). Several runs under one name
are seeds of one model: their mean, with an interval over clips and seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, InputError
from .bootstrap import crossed_interval
from .clip_values import ClipValues, read_clip_values
from .paired import PairedTest, compare_pairs
from .results import Figure, Result, read_results

__all__ = ["Cell", "Column", "Comparison", "RunEntry", "compare_results", "read_runs"]

_CHOSEN_BY_USERS = (
    "name",
    "k",
    "temperature",
    "direction",
    "folds",
    "modality",
    "average",
    "optimizer",
    "prompts",
    "text",
    "pooling",
    "among_each_other",
    "draws",
)
_TITLES = {
    "knn": "kNN",
    "linear": "linear probe",
    "attentive": "attentive probe",
    "finetune": "fine-tuning",
    "classify": "classifier",
    "zero_shot": "zero-shot",
    "zero-shot": "zero-shot",
    "few_shot": "few-shot",
    "retrieval": "retrieval",
    "cross-modal": "sound and video",
    "text_retrieval": "text and video",
    "script_sorting": "sorting of scripts",
}


@dataclass(frozen=True)
class RunEntry:
    """A result under the name of its row, with what every clip came to where that was kept."""

    name: str
    result: Result
    clips: ClipValues | None


@dataclass(frozen=True)
class Column:
    """A question that models answer by a figure.

    Attributes:
        settings: of the protocol, as JSON.
        views: "CLIPSxCROPS".
        figure: its name.
    """

    settings: str
    views: str
    figure: str

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return json.loads(self.settings)["name"]

    @property
    def title(self) -> str:
        """For people."""
        settings = json.loads(self.settings)
        notes = [settings["direction"]] if settings.get("direction") else []
        notes += ["sound"] if settings.get("modality") == "audio" else []
        notes += [f"{settings['folds']} folds"] if settings.get("folds") else []
        notes += (
            [f"by {settings['optimizer']}"] if settings.get("optimizer") and self.protocol == "linear" else []
        )
        notes += ["mean of tokens"] if settings.get("pooling") == "mean" else []
        notes += ["among each other"] if settings.get("among_each_other") else []
        notes += [f"{self.views} views"] if self.views != "1x1" else []
        name = _TITLES.get(self.protocol, self.protocol)
        figure = self.figure.replace("top", "top-")
        return f"{name} ({', '.join(notes)}) {figure}" if notes else f"{name} {figure}"


@dataclass(frozen=True)
class Cell:
    """A figure of one model.

    Attributes:
        figure: the mean over its runs.
        runs: seeds.
        keys, values: of the test clips, values being means over the runs; None where they were not kept.
    """

    figure: Figure
    runs: int
    keys: list[str] | None = None
    values: Tensor | None = None


@dataclass
class Comparison:
    """A table: one set of test clips.

    Attributes:
        data: what they are.
        rows: names of models, in the order they were given.
        columns: questions, the first figure of every protocol first.
        cells: by row and column.
        entries: all results, for what else is to be told of them.
    """

    data: str
    rows: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], Cell]
    entries: list[RunEntry] = field(default_factory=list)

    @property
    def main_columns(self) -> list[Column]:
        """The first figure of every protocol but few-shot, which is a curve."""
        found: dict[tuple[str, str], Column] = {}
        for column in self.columns:
            if column.protocol != "few_shot":
                found.setdefault((column.settings, column.views), column)
        return list(found.values())

    def paired(self, column: Column, reference: str) -> dict[str, PairedTest]:
        """Every other row against the reference, where both have values of the same clips."""
        base = self.cells.get((reference, column))
        tests = {}
        for row in self.rows:
            cell = self.cells.get((row, column))
            if row == reference or cell is None or base is None or cell.values is None:
                continue
            if base.values is not None and cell.keys == base.keys:
                tests[row] = compare_pairs(cell.values, base.values)
        return tests

    def entry(self, row: str, protocol: str) -> RunEntry | None:
        """The first result of a row under a protocol, one with clip values before one without."""
        found = [entry for entry in self.entries if entry.name == row]
        found = [entry for entry in found if entry.result.protocol["name"] == protocol]
        return min(found, key=lambda entry: entry.clips is None, default=None)


def read_runs(runs: Sequence[str]) -> list[RunEntry]:
    """All results of some runs.

    Args:
        runs: "PATH" or "NAME=PATH", a results file or a folder with results.json. Without a name a row is
        called
            like the model.

    Raises:
        DataError: a file that cannot be read, or holds no result.
    """
    found: list[tuple[str | None, Result, ClipValues | None]] = []
    for run in runs:
        given, _, place = run.rpartition("=") if not Path(run).exists() else ("", "", run)
        path = Path(place) / "results.json" if Path(place).is_dir() else Path(place)
        results = read_results(path)
        if not results:
            raise DataError(f"{path} holds no result")
        found += [(given or None, result, read_clip_values(path, result)) for result in results]
    ids = {result.model["id"] for given_name, result, _ in found if given_name is None}
    short = {model_id: Path(model_id).name for model_id in ids}
    twice = {last for last in short.values() if list(short.values()).count(last) > 1}
    entries = []
    for name, result, clips in found:
        model_id = result.model["id"]
        label = name or (model_id if short[model_id] in twice else short[model_id])
        label += ", random weights" if result.model.get("random_weights") else ""
        entries.append(RunEntry(label, result, clips))
    return entries


def compare_results(entries: Sequence[RunEntry]) -> list[Comparison]:
    """One comparison for every set of test clips, the one with the most results first.

    Raises:
        InputError: no results.
    """
    if not entries:
        raise InputError("there is nothing to compare")
    by_data: dict[tuple[str, str], list[RunEntry]] = {}
    for entry in entries:
        data = entry.result.data
        by_data.setdefault((data["fingerprint"], data["split"]), []).append(entry)
    groups = sorted(by_data.values(), key=len, reverse=True)
    names = _short_names([Path(str(group[0].result.data["id"])) for group in groups])
    return [_compare(group, name) for group, name in zip(groups, names, strict=True)]


def _short_names(sources: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as it takes to tell different ones apart."""
    longest = max(len(source.parts) for source in sources)
    for length in range(1, longest + 1):
        names = ["/".join(source.parts[-length:]) for source in sources]
        if len(set(names)) == len(set(sources)):
            break
    return names


def _compare(entries: list[RunEntry], data_name: str) -> Comparison:
    grouped: dict[tuple[str, Column], list[RunEntry]] = {}
    for entry in entries:
        for figure in entry.result.figures:
            grouped.setdefault((entry.name, _column(entry.result, figure)), []).append(entry)
    return Comparison(
        f"{data_name}, {entries[0].result.data['split']}",
        list(dict.fromkeys(entry.name for entry in entries)),
        list(dict.fromkeys(column for _, column in grouped)),
        {place: _cell(own, place[1].figure) for place, own in grouped.items()},
        entries,
    )


def _column(result: Result, figure: str) -> Column:
    settings: dict[str, Any] = {
        key: result.protocol[key] for key in _CHOSEN_BY_USERS if result.protocol.get(key) is not None
    }
    return Column(json.dumps(settings), result.views, figure)


def _cell(entries: list[RunEntry], name: str) -> Cell:
    figures = [entry.result.figures[name] for entry in entries]
    kept = [entry.clips for entry in entries if entry.clips is not None and name in entry.clips.values]
    same = len(kept) == len(entries) and all(clips.keys == kept[0].keys for clips in kept)
    if not same:
        return Cell(_mean(figures), len(entries))
    table = torch.stack([clips.values[name].double() for clips in kept])
    if len(entries) == 1 or figures[0].unit == "rank":
        return Cell(_mean(figures), len(entries), kept[0].keys, table.mean(dim=0))
    mean = sum(figure.value for figure in figures) / len(figures)
    figure = Figure(mean, *crossed_interval(table), figures[0].samples, figures[0].unit)
    return Cell(figure, len(entries), kept[0].keys, table.mean(dim=0))


def _mean(figures: list[Figure]) -> Figure:
    value, low, high = (
        sum(getattr(figure, part) for figure in figures) / len(figures) for part in ("value", "low", "high")
    )
    return Figure(value, low, high, figures[0].samples, figures[0].unit)
