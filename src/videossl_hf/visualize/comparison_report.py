"""The page of `videossl compare`: who is better, whether that is luck, what it costs, how it looks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.datasets import load_videos
from ..data.reader import VideoReader
from ..errors import DecodeError, OutputError, VideoSSLError
from ..evaluation.clip_values import ClipValues
from ..evaluation.clips import sample_name
from ..evaluation.comparison import Column, Comparison, RunEntry
from ..evaluation.loading import quiet_libraries
from ..evaluation.results import Figure
from ..evaluation.scores import confusion_matrix, mean_class_accuracy
from .comparison_charts import cost_picture, label_curves
from .comparison_table import comparison_rows, p_value, signed
from .confusion import confusion_picture
from .feature_map import map_picture, plane_of, spread_rows
from .film_strip import animation, data_uri, motion_print
from .intervals import interval_picture
from .report import Report, Section, figure_block, settings_block, table_block, tiles_block
from .theme import Picture

__all__ = ["write_comparison_report"]

_MAPS, _DISAGREEMENTS, _CONFUSED, _LARGEST_CONFUSION = 2, 8, 8, 25


def write_comparison_report(comparisons: Sequence[Comparison], reference: str, folder: Path) -> Path:
    """Write report.html and its charts as PNG into a folder, and return the page's path.

    The page tells of the first comparison in full, and of further sets of clips the tables.

    Args:
        comparisons: of `compare_results`.
        reference: the row that others are tested against.
        folder: exists.

    Raises:
        DependencyError: matplotlib or scikit-learn is not installed.
        OutputError: the folder cannot be written.
    """
    page = _Page(comparisons[0], reference)
    report = page.report(comparisons[1:])
    try:
        for name, picture in page.pictures.items():
            (folder / f"{name}.png").write_bytes(picture.png)
    except OSError as error:
        raise OutputError(f"cannot write pictures to {folder}: {error}") from error
    return report.write(folder / "report.html")


class _Page:
    """Sections of one comparison; a section without anything to tell is left out."""

    def __init__(self, comparison: Comparison, reference: str) -> None:
        self.comparison = comparison
        self.reference = reference if reference in comparison.rows else comparison.rows[0]
        self.pictures: dict[str, Picture] = {}
        self.main = comparison.main_columns
        self.headline = next((c for c in self.main if self._rows(c) == max(map(self._rows, self.main))), None)
        self.leader = self._best(self.headline) if self.headline else comparison.rows[0]
        self._videos: Mapping[str, Any] | None = None

    def report(self, further: Sequence[Comparison]) -> Report:
        """The page."""
        sections = [
            self._side_by_side(),
            self._is_it_luck(),
            self._cost(),
            self._labels(),
            self._map(),
            self._errors(),
            self._disagreements(),
            *(_further(comparison) for comparison in further),
            self._again(),
        ]
        title, lead = self._finding()
        return Report(
            eyebrow=f"videossl compare: {self.comparison.data}",
            title=title,
            lead=lead,
            tiles=tiles_block(self._tiles()),
            sections=[section for section in sections if section is not None],
            footer="Written by videossl compare. Every figure stands in a results file with its model, data, "
            "protocol and seed.",
        )

    def _rows(self, column: Column) -> int:
        return sum(own == column for _, own in self.comparison.cells)

    def _figures(self, column: Column) -> dict[str, Figure]:
        cells = self.comparison.cells
        return {row: cells[row, column].figure for row in self.comparison.rows if (row, column) in cells}

    def _best(self, column: Column) -> str:
        figures = self._figures(column)
        return (min if column.figure == "MedR" else max)(figures, key=lambda row: figures[row].value)

    def _finding(self) -> tuple[str, str]:
        rows = self.comparison.rows
        if self.headline is None:
            return f"{len(rows)} models, few labels", "Only few-shot figures were given."
        column, figures = self.headline, self._figures(self.headline)
        ordered = sorted(figures, key=lambda row: figures[row].value, reverse=column.figure != "MedR")
        unit = "" if column.figure == "MedR" else " %"
        if len(ordered) == 1:
            return f"{ordered[0]}: {figures[ordered[0]].value:.1f}{unit} by {column.title}", (
                "One model alone: a second one, such as the same network with random weights, would say what "
                "this is worth."
            )
        first, second = ordered[:2]
        title = f"{first} comes first with {figures[first].value:.1f}{unit} by {column.title}"
        test = self.comparison.paired(column, second).get(first)
        lead = f"{second} follows with {figures[second].value:.1f}{unit}. "
        if test is not None:
            sure = (
                "Clip by clip that is more than luck"
                if test.p < 0.05
                else "Clip by clip that may well be luck"
            )
            lead += (
                f"{sure}: {first} is better on {test.only_first} clips and worse on {test.only_second} "
                f"(p {p_value(test)}). "
            )
        return title, lead + f"{len(rows)} rows on the same {figures[first].samples} test clips."

    def _tiles(self) -> list[tuple[str, str, str]]:
        tiles = []
        for column in self.main[:5]:
            figures = self._figures(column)
            best = self._best(column)
            unit = "" if column.figure == "MedR" else " %"
            tiles.append((f"{figures[best].value:.1f}{unit}", column.title, best))
        return tiles

    def _chance(self) -> float | None:
        names = [entry.clips.label_names for entry in self.comparison.entries if entry.clips is not None]
        return 100 / len(names[0]) if names and names[0] else None

    def _draw(self, name: str, picture: Picture) -> Picture:
        self.pictures[name] = picture
        return picture

    def _side_by_side(self) -> Section:
        shown = [column for column in self.main if column.figure != "MedR"][:4]
        blocks = []
        if shown:
            panels = {column.title: self._figures(column) for column in shown}
            chance = self._chance() if all(column.figure == "top1" for column in shown) else None
            picture = interval_picture(panels, highlight=self.leader, chance=chance)
            blocks.append(figure_block("", self._draw("figures", picture), full=True))
        strong = [self.comparison.rows.index(self.leader)]
        if self.main:
            header, rows = comparison_rows(self.comparison, self.main)
            blocks.append(table_block(header, rows, strong=strong, full=True))
        text = (
            "Bands and brackets are bootstrap 95 % intervals over the test clips, and over seeds where a row "
            "has several; * is the best of a column. The dotted line is chance."
        )
        return Section("Side by side", text, blocks)

    def _is_it_luck(self) -> Section | None:
        rows = []
        for column in self.main:
            for row, test in self.comparison.paired(column, self.reference).items():
                verdict = (
                    "no" if test.p >= 0.05 else ("better" if _is_better(column, test.difference) else "worse")
                )
                counts = f"{test.only_first} : {test.only_second}"
                rows.append([row, column.title, signed(test), counts, p_value(test), verdict])
        if not rows:
            return None
        header = ["", "figure", "difference", "larger : smaller", "p", "told apart?"]
        text = (
            f"Every row against {self.reference}, clip by clip. Overlapping intervals do not answer this: "
            "both models see the same easy and hard clips. p is McNemar's exact test for hits, and a "
            "sign-exchange test otherwise; the brackets are a bootstrap of the difference. Seeds of a "
            "training are not covered."
        )
        return Section("Is the difference luck?", text, [table_block(header, rows, full=True)])

    def _cost(self) -> Section | None:
        if self.headline is None:
            return None
        blocks = []
        figures = self._figures(self.headline)
        for key, axis, scale in (
            ("gflop_per_clip", "GFLOP a clip", 1.0),
            ("parameters", "parameters (millions)", 1e-6),
        ):
            points = {}
            for row in figures:
                entry = self.comparison.entry(row, self.headline.protocol)
                price = entry.result.model.get(key) if entry else None
                if price:
                    points[row] = (scale * price, figures[row])
            if len({price for price, _ in points.values()}) > 1:
                picture = cost_picture(
                    points, highlight=self.leader, cost=axis, label=f"{self.headline.title} (%)"
                )
                blocks.append(figure_block(axis, self._draw(f"cost_{key}", picture)))
        text = (
            "Left and above is better. Counted are matrix products, convolutions and attention of one view."
        )
        return Section("What it costs", text, blocks) if blocks else None

    def _labels(self) -> Section | None:
        blocks = []
        for name, title in (("linear", "Linear probe"), ("knn", "Nearest neighbours")):
            curves: dict[str, list[tuple[int, Figure]]] = {}
            for (row, column), cell in self.comparison.cells.items():
                if column.protocol == "few_shot" and column.figure.startswith(f"{name}@"):
                    curves.setdefault(row, []).append((int(column.figure.split("@")[1]), cell.figure))
            if curves:
                curves = {row: sorted(points, key=lambda point: point[0]) for row, points in curves.items()}
                shown = self.leader if self.leader in curves else next(iter(curves))
                picture = label_curves(curves, highlight=shown, label="top-1 (%)")
                blocks.append(figure_block(title, self._draw(f"labels_{name}", picture)))
        text = (
            "Of every class a few clips are drawn, several times; bands cover the draws and the test clips."
        )
        return Section("How many labels it takes", text, blocks) if blocks else None

    def _map(self) -> Section | None:
        found: dict[str, ClipValues] = {}
        for row in dict.fromkeys([self.leader, self.reference, *self.comparison.rows]):
            entry = self.comparison.entry(row, "knn")
            clips = entry.clips if entry else None
            if (
                clips is not None
                and clips.features is not None
                and clips.label_names
                and len(clips.keys) >= 4
            ):
                found[row] = clips
        if not found:
            return None
        first = next(iter(found.values()))
        shown = {row: clips for row, clips in found.items() if clips.keys == first.keys}
        maps = {}
        for row, clips in list(shown.items())[:_MAPS]:
            assert clips.features is not None
            maps[row] = plane_of(clips.features)
        labels = first.labels.tolist()
        thumbnails = {}
        for place in spread_rows(next(iter(maps.values())), labels):
            frames = self._frames(first.keys[place])
            if frames is not None:
                thumbnails[place] = np.asarray(motion_print(frames, size=72))
        names = [name.replace("_", " ") for name in first.label_names or ()]
        picture = map_picture(maps, labels, names, thumbnails)
        text = (
            "Every dot is a test clip, in the colour of its class; clips that are alike to the model lie "
            "close together (t-SNE of cosine distances). The pictures are one clip of each class, the same "
            "in every map, as trails from blue (early) to orange (late). Distances between far groups mean "
            "nothing."
        )
        return Section(
            "What lies close together", text, [figure_block("", self._draw("map", picture), full=True)]
        )

    def _predicting(self, row: str) -> RunEntry | None:
        """The result of a row whose answers are looked at: of the headline's protocol, else of any other."""
        protocols = [column.protocol for column in ([self.headline] if self.headline else []) + self.main]
        for protocol in protocols:
            entry = self.comparison.entry(row, protocol)
            if entry and entry.clips and entry.clips.predictions is not None and entry.clips.label_names:
                return entry
        return None

    def _errors(self) -> Section | None:
        entry = self._predicting(self.leader)
        if entry is None or entry.clips is None or entry.clips.predictions is None:
            return None
        clips, names = entry.clips, [name.replace("_", " ") for name in entry.clips.label_names or ()]
        predictions, labels = entry.clips.predictions, clips.labels
        counts = confusion_matrix(predictions, labels, len(names))
        blocks = []
        if len(names) <= _LARGEST_CONFUSION:
            blocks.append(figure_block("", self._draw("confusion", confusion_picture(counts, names))))
        share = 100 * counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
        share.fill_diagonal_(0)
        rows = []
        for cell in share.flatten().argsort(descending=True, stable=True)[:_CONFUSED].tolist():
            true, predicted = divmod(cell, len(names))
            if share[true, predicted] > 0:
                rows.append([f"{names[true]} as {names[predicted]}", f"{share[true, predicted]:.0f}"])
        mean = 100 * mean_class_accuracy(predictions, labels)
        title = f"{mean:.1f} % as the mean over classes; the most frequent errors"
        blocks.append(table_block(["taken", "% of the class"], rows, title=title))
        protocol = entry.result.protocol["name"]
        text = f"{self.leader}, {protocol}: rows are the true classes, a cell its share of the row."
        return Section("Where the first errs", text, blocks)

    def _disagreements(self) -> Section | None:
        entries = {row: self._predicting(row) for row in self.comparison.rows}
        known: dict[str, ClipValues] = {
            row: entry.clips
            for row, entry in entries.items()
            if entry is not None and entry.clips is not None
        }
        first = known.get(self.leader)
        known = {row: clips for row, clips in known.items() if first is not None and clips.keys == first.keys}
        if first is None or len(known) < 2:
            return None
        answers = torch.stack(
            [clips.predictions for clips in known.values() if clips.predictions is not None]
        )
        right = answers == first.labels
        names = [name.replace("_", " ") for name in first.label_names or ()]
        share = right.double().mean(dim=0)
        blocks: list[str] = []
        for row in (share - 0.5).abs().argsort(stable=True).tolist():
            if len(blocks) == _DISAGREEMENTS or not 0 < share[row] < 1:
                break
            frames = self._frames(first.keys[row])
            if frames is None:
                return None
            verdicts = [
                (model, names[int(answers[place, row])], bool(right[place, row]))
                for place, model in enumerate(known)
            ]
            blocks.append(_verdict_block(frames, names[int(first.labels[row])], verdicts))
        if not blocks:
            return None
        text = "Test clips on which about half of the rows are right, and what each of them says."
        return Section("What they disagree on", text, [f'<div class="verdicts full">{"".join(blocks)}</div>'])

    def _frames(self, key: str) -> np.ndarray | None:
        """All frames of a test clip, where its video is still at hand."""
        if self._videos is None:
            self._videos = _videos_by_key(self.comparison)
        cell = self._videos.get(key)
        if cell is None:
            return None
        try:
            with VideoReader(cell) as reader:
                count = len(reader)
                return reader.frames(np.linspace(0, count - 1, min(count, 16)).round().astype(int))
        except DecodeError:  # a sound file, or a video that has gone: the page does without
            return None

    def _again(self) -> Section:
        data = self.comparison.entries[0].result.data
        versions = self.comparison.entries[0].result.versions
        settings: dict[str, object] = {
            "test clips": f"{data['id']}, split {data['split']}, {data.get('samples', '?')} clips",
            "fingerprint": data["fingerprint"],
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        }
        for row in self.comparison.rows:
            own = [entry.result for entry in self.comparison.entries if entry.name == row]
            revision = f" at {own[0].model['revision']}" if own[0].model.get("revision") else ""
            weights = ", ".join(dict.fromkeys(str(result.model["weights"]) for result in own))
            settings[row] = f"{own[0].model['id']}{revision}, weights {weights}"
        header, rows = comparison_rows(self.comparison)
        return Section(
            "Everything",
            "",
            [table_block(header, rows, full=True), settings_block("How to get it again", settings)],
        )


def _further(comparison: Comparison) -> Section:
    header, rows = comparison_rows(comparison)
    return Section(comparison.data, "Other test clips: no figure here compares with one above.",
                   [table_block(header, rows, full=True)])  # fmt: skip


def _is_better(column: Column, difference: float) -> bool:
    return difference < 0 if column.figure == "MedR" else difference > 0


def _videos_by_key(comparison: Comparison) -> Mapping[str, Any]:
    """Cells of the test videos by the names of the clips; empty where the data is not at hand."""
    data = comparison.entries[0].result.data
    if not Path(str(data["id"])).exists():
        return {}
    try:
        with quiet_libraries():
            dataset: Any = load_videos(str(data["id"]), data["split"])
    except VideoSSLError:  # moved or changed since: the page does without pictures of clips
        return {}
    return {sample_name(sample, row): sample["video"] for row, sample in enumerate(dataset)}


def _verdict_block(frames: np.ndarray, name: str, verdicts: Sequence[tuple[str, str, bool]]) -> str:
    picture = data_uri(animation(frames, height=120), "image/webp")
    lines = "".join(
        f'<li><span>{html.escape(model)}</span><b class="{"yes" if right else "no"}">'
        f"{'✓' if right else '✗'} {html.escape(said)}</b></li>"
        for model, said, right in verdicts
    )
    return (
        f'<div class="card verdict"><img src="{picture}" alt=""><div><h3>{html.escape(name)}</h3>'
        f"<ul>{lines}</ul></div></div>"
    )
