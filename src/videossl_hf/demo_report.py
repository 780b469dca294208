"""The page that `videossl demo` ends with: what was learned, how it came about, what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .data.reader import VideoReader
from .data.sounding_shapes import REVERSAL
from .errors import OutputError
from .evaluation.clips import PreparedClips, PreparedSample
from .evaluation.knn import nearest_neighbours
from .evaluation.protocols import Outcome
from .evaluation.results import Figure, installed_versions
from .evaluation.scores import confusion_matrix
from .evaluation.table import FeatureTable
from .visualize.confusion import confusion_picture
from .visualize.curves import accuracy_curve, loss_curves
from .visualize.film_strip import animation, data_uri, film_strip, motion_print, neighbour_board, png_bytes
from .visualize.intervals import interval_picture
from .visualize.report import (
    Report,
    Section,
    figure_block,
    settings_block,
    strip_rows,
    table_block,
    tiles_block,
)
from .visualize.similarity import similarity_picture
from .visualize.spectrogram_image import spectrogram_image
from .visualize.theme import Picture

__all__ = ["DemoFindings", "write_report"]

_LOSSES = {"loss": "total", "loss_cross_modal": "sound and vision", "loss_crops": "crops"}
_ERRORS = 10
_QUERIES, _NEIGHBOURS, _STRIP_FRAMES = 6, 3, 6


@dataclass(frozen=True)
class DemoFindings:
    """All that the report is drawn from.

    Attributes:
        figures: top-1 by protocol and model; the first model of each is the pre-trained one, the second the
            same network with random weights.
        outcomes: by model and protocol.
        tables: (train, test) features by model.
        shared: (video, sound) test features in the space that the modalities share.
        datasets: (train, test) samples.
        spectrograms: the test split's sound.
        log: lines of metrics.jsonl.
        recipe: the resolved recipe, as YAML.
        identical: whether the packed model gave the same numbers elsewhere.
        seconds: by stage.
        steps: of the pre-training.
        seed: of it.
    """

    figures: dict[str, dict[str, Figure]]
    outcomes: dict[str, dict[str, Outcome]]
    tables: dict[str, tuple[FeatureTable, FeatureTable]]
    shared: tuple[FeatureTable, FeatureTable]
    datasets: tuple[Any, Any]
    spectrograms: PreparedClips
    log: list[dict[str, Any]]
    recipe: str
    identical: bool
    seconds: dict[str, float]
    steps: int
    seed: int

    @property
    def samples(self) -> int:
        """Test clips."""
        return len(self.datasets[1])

    @property
    def names(self) -> list[str]:
        """Classes, in words."""
        return [name.replace("_", " ") for name in self.datasets[1].features["label"].names]


def write_report(findings: DemoFindings, path: Path) -> None:
    """Write the page, and every picture of it as a PNG file beside it.

    Raises:
        DependencyError: matplotlib is not installed.
        OutputError: the files cannot be written.
    """
    pictures = {
        "figures": interval_picture(
            findings.figures, highlight=next(iter(findings.tables)), chance=100 / len(findings.names)
        ),
        "loss": loss_curves(_losses(findings.log)),
        "knn_over_time": accuracy_curve(
            [
                (entry["step"], 100 * entry["eval_knn_top1"])
                for entry in findings.log
                if "eval_knn_top1" in entry
            ],
            {"chance": 100 / len(findings.names)},
            label="validation kNN top-1 (%)",
        ),
        "confusion": confusion_picture(_confusions(findings), findings.names),
        "sound_and_vision": _similarity(findings),
    }
    queries, board = _neighbours(findings)
    try:
        for name, picture in pictures.items():
            (path.parent / f"{name}.png").write_bytes(picture.png)
        (path.parent / "neighbours.png").write_bytes(board)
    except OSError as error:
        raise OutputError(f"cannot write pictures to {path.parent}: {error}") from error
    _page(findings, pictures, queries).write(path)


def _page(findings: DemoFindings, pictures: dict[str, Picture], queries: Sequence[dict[str, Any]]) -> Report:
    trained, random = list(findings.tables)[:2]
    knn, probe = findings.figures.values()
    count = len(findings.names)
    return Report(
        eyebrow="videossl-hf demo",
        title=f"{findings.steps} steps of watching and listening, without a single label",
        lead=(
            "A small STiCA network was pre-trained on generated clips of shapes in motion. On "
            f"{findings.samples} clips that it has never seen, a linear probe of its features names "
            f"{probe[trained].value:.1f} % of the {count} motions right, and their nearest neighbours "
            f"{knn[trained].value:.1f} %; with random weights the same network comes to "
            f"{probe[random].value:.1f} and {knn[random].value:.1f} %. "
            f"One seed ({findings.seed}): others give other figures."
        ),
        tiles=tiles_block(_tiles(findings)),
        sections=[
            Section(
                "What was learned",
                "Top-1 on held-out clips. The band is a bootstrap 95 % interval over the clips; the dotted "
                "line is chance. Frame differences, made by hand, are strong on this data: no table of it "
                "should leave them out.",
                [figure_block("", pictures["figures"], full=True), _table(findings)],
            ),
            Section(
                "How it came about",
                "The loss first rests near the logarithm of the batch size; then sound and picture find each "
                "other. The neighbours are those of validation clips among training clips.",
                [
                    figure_block("Loss", pictures["loss"]),
                    figure_block("Neighbours that share the motion", pictures["knn_over_time"]),
                ],
            ),
            Section(
                "What looks alike to the network",
                "The first test clip of six motions, and the three training clips nearest to it: for the "
                "pre-trained network and for the same one with random weights. The large picture is the clip "
                "itself; strips are read from left to right. Colour, shape and place are drawn at random, so "
                "only the motion can be right.",
                [strip_rows(queries)],
            ),
            Section(
                "Which sound belongs to which picture",
                "One test clip of each motion against the sounds of all of them, in the space that both "
                "share. A clip is shown as its trail from blue to orange, a sound as its spectrogram. The "
                "ring marks the best match of a row: green where it is the clip's own sound.",
                [figure_block("", pictures["sound_and_vision"], full=True), _sound_table(findings)],
            ),
            Section(
                "Where the probe errs",
                "Rows are the true motions; a cell is its share of the row in percent. Five pairs of motions "
                "are time reversals of each other: only the order of the frames tells them apart.",
                [figure_block("", pictures["confusion"]), _confusion_table(findings)],
            ),
            Section("How to get it again", "", [_settings(findings)]),
        ],
        footer="Written by videossl demo. Figures and everything needed to find them again: results.json.",
    )


def _tiles(findings: DemoFindings) -> list[tuple[str, str, str]]:
    trained, random = list(findings.tables)[:2]
    tiles = []
    for protocol, panel in findings.figures.items():
        note = f"{panel[random].value:.1f} % with random weights"
        tiles.append((f"{panel[trained].value:.1f} %", protocol, note))
    heard = findings.outcomes[trained]["video to sound"].figures["R@10"]
    chance = 100 * min(10, heard.samples) / heard.samples
    tiles.append((f"{heard.value:.1f} %", "own sound among the 10 best", f"{chance:.1f} % by chance"))
    minutes = sum(findings.seconds.values()) / 60
    tiles.append((f"{minutes:.1f} min", "from nothing to this page", "on this machine"))
    return tiles


def _table(findings: DemoFindings) -> str:
    """Every figure of every model with its interval."""
    header = ["top-1 in percent", *findings.figures, "retrieval R@5"]
    rows = [
        [
            name,
            *(str(panel[name]) for panel in findings.figures.values()),
            str(found["retrieval"].figures["R@5"]),
        ]
        for name, found in findings.outcomes.items()
    ]
    return table_block(header, rows, strong=(0,), full=True)


def _sound_table(findings: DemoFindings) -> str:
    found = findings.outcomes[next(iter(findings.outcomes))]
    rows = [
        [direction, *(str(found[direction].figures[name]) for name in ("R@1", "R@10", "MedR"))]
        for direction in ("video to sound", "sound to video")
    ]
    title = f"Among all {findings.samples} test clips"
    return table_block(["direction", "R@1 %", "R@10 %", "median rank"], rows, title=title, full=True)


def _settings(findings: DemoFindings) -> str:
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in findings.seconds.items())
    equal = "gave the same numbers, bit for bit" if findings.identical else "gave OTHER NUMBERS"
    settings = {
        "data": f"Sounding Shapes: {len(findings.datasets[0])} training, {findings.samples} test clips",
        "training": f"{findings.steps} steps, seed {findings.seed}, no labels",
        "features": "pooled vector of the video tower; kNN by cosine with 10 votes; the probe's penalty was "
        "chosen on validation clips",
        "packed model": f"loaded where videossl_hf is not installed, it {equal}",
        "time": stages,
        "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
    }
    return settings_block("", settings, findings.recipe)


def _losses(log: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [(entry["step"], entry[key]) for entry in log if key in entry] for key, name in _LOSSES.items()
    }


def _confusions(findings: DemoFindings) -> torch.Tensor:
    """(true, predicted) counts of the probe on the pre-trained features."""
    found = findings.outcomes[next(iter(findings.outcomes))]["linear"]
    assert found.scores is not None
    labels = next(iter(findings.tables.values()))[1].labels
    return confusion_matrix(found.scores.argmax(dim=1).cpu(), labels, len(findings.names))


def _confusion_table(findings: DemoFindings) -> str:
    """The most frequent errors, and whether they are errors about the order of time."""
    counts = _confusions(findings)
    share = 100 * counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    share.fill_diagonal_(0)
    rows = []
    for cell in share.flatten().argsort(descending=True, stable=True)[:_ERRORS].tolist():
        true, predicted = divmod(cell, len(share))
        if share[true, predicted] > 0:
            names = findings.datasets[1].features["label"].names
            reversed_time = "yes" if REVERSAL[names[true]] == names[predicted] else ""
            row = [f"{findings.names[true]} as {findings.names[predicted]}"]
            rows.append([*row, f"{share[true, predicted]:.0f}", reversed_time])
    right = 100 * counts.diagonal().sum().item() / max(counts.sum().item(), 1)
    title = f"{right:.1f} % are right; the most frequent errors"
    return table_block(["taken", "% of the class", "its time reversal"], rows, title=title)


def _first_of_each_class(table: FeatureTable) -> list[int]:
    """The first row of every class that occurs: chosen by place, not by how well it came out."""
    labels = table.labels.tolist()
    return [labels.index(label) for label in sorted(set(labels))]


def _frames(dataset: Any, row: int) -> np.ndarray:
    with VideoReader(dataset[row]["video"]) as reader:
        return reader.frames(range(len(reader)))


def _similarity(findings: DemoFindings) -> Picture:
    video, sound = findings.shared
    rows = _first_of_each_class(video)
    similarity = F.normalize(video.features[rows], dim=1) @ F.normalize(sound.features[rows], dim=1).T
    return similarity_picture(
        similarity,
        [findings.names[int(video.labels[row])] for row in rows],
        row_images=[np.asarray(motion_print(_frames(findings.datasets[1], row), size=96)) for row in rows],
        column_images=[_heard(findings.spectrograms[row]) for row in rows],
    )


def _heard(sample: Any) -> np.ndarray:
    assert isinstance(sample, PreparedSample)
    return spectrogram_image(sample.inputs[0, 0])


def _neighbours(findings: DemoFindings) -> tuple[list[dict[str, Any]], bytes]:
    """Blocks of the page, and the same as one picture."""
    train_data, test_data = findings.datasets
    models = list(findings.tables)[:2]
    test = findings.tables[models[0]][1]
    rows = _first_of_each_class(test)
    rows = rows[:: max(1, len(rows) // _QUERIES)][:_QUERIES]
    found = {}
    for name in models:
        train, queries = findings.tables[name]
        count = min(_NEIGHBOURS, len(train))
        found[name] = nearest_neighbours(train.features, queries.features[rows], count)[1].tolist()
    blocks, board = [], []
    for place, row in enumerate(rows):
        frames = _frames(test_data, row)
        name = findings.names[int(test.labels[row])]
        columns, pictured = [], []
        for model in models:
            labels = findings.tables[model][0].labels
            clips = []
            for neighbour in found[model][place]:
                right = bool(labels[neighbour] == test.labels[row])
                strip = film_strip(_frames(train_data, neighbour), height=52, count=_STRIP_FRAMES)
                clips.append((strip, findings.names[int(labels[neighbour])], right))
            columns.append((model, [(data_uri(png_bytes(strip)), *rest) for strip, *rest in clips]))
            pictured.append((model, clips))
        picture = data_uri(animation(frames, height=132), "image/webp")
        blocks.append({"image": picture, "name": name, "note": "test clip", "found": columns})
        board.append((film_strip(frames, height=64, count=_STRIP_FRAMES), name, pictured))
    return blocks, png_bytes(neighbour_board(board))
