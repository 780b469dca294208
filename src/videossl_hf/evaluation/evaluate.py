"""`videossl evaluate MODEL --data D --protocol knn linear retrieval ...`: figures with intervals, into
results.json."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..errors import DataError, InputError
from .features import ANSWERS, feature_identity
from .fingerprint import model_identity, short_hash
from .inputs import FeatureSource, add_input_arguments
from .linear import DEFAULT_L2_GRID
from .protocols import (
    Outcome,
    classify_protocol,
    cross_modal_protocol,
    knn_protocol,
    linear_protocol,
    retrieval_protocol,
    sorting_protocol,
    zero_shot_protocol,
)
from .results import Result, write_results
from .script_sorting import sort_scripts
from .splits import ExtractedSplit, make_result
from .table import FeatureTable
from .text_features import class_features, text_features
from .texts import TEXT_COLUMNS, read_texts

__all__ = ["add_arguments", "print_results", "run"]

PROTOCOLS = (
    *("knn", "linear", "retrieval", "cross-modal", "classify"),
    *("text_retrieval", "zero_shot", "script_sorting"),
)

RANKS, TEXT_RANKS = (1, 5, 20), (1, 5, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl evaluate`."""
    add_input_arguments(parser)
    parser.add_argument(
        "--protocol", nargs="+", choices=PROTOCOLS, default=["knn"],
        help="knn and linear: train against test; retrieval: test queries train, right is the same class; "
        "cross-modal: clips of test find their own sound and the reverse; classify: a classifier's own "
        "answers on test, where one that reads names of classes is asked for those of the data; "
        "text_retrieval: clips of test find their own text and the reverse; zero_shot: the class whose name "
        "is nearest; script_sorting: a pre-training model orders the scripts of transcripts (knn)",
    )  # fmt: skip
    parser.add_argument("--train-split", default="train", help="neighbours, probe and gallery (train)")
    parser.add_argument(
        "--validation-split", help="where the probe's penalty is chosen (default: on a fifth of train)"
    )
    parser.add_argument("--test-split", default="test", help="what is scored (test)")
    parser.add_argument("--k", type=int, default=10, help="knn: neighbours that vote (10)")
    parser.add_argument("--temperature", type=float, help="knn: votes weigh exp(similarity / temperature)")
    parser.add_argument(
        "--l2", type=float, nargs="+", default=list(DEFAULT_L2_GRID), help="linear: penalties to try"
    )
    parser.add_argument(
        "--ranks", type=int, nargs="+", help="retrieval: k of R@k (1 5 20; text_retrieval: 1 5 10)"
    )
    parser.add_argument(
        "--average", choices=ANSWERS, default="probabilities",
        help="classify: what is averaged over the views of a video (probabilities)",
    )  # fmt: skip
    parser.add_argument(
        "--text-column", choices=TEXT_COLUMNS,
        help="text_retrieval: of one text a clip, or of speech in as many equal parts as the model has "
        "scripts (the first that there is)",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", nargs="+", default=["{}"], metavar="TEXT",
        help='zero_shot: what names of classes are put into, such as "a person {}"; several are averaged',
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, help="folder for features, to come back to them")
    parser.add_argument(
        "--output", type=Path, default=Path("results.json"), help="results file (results.json)"
    )


def run(args: argparse.Namespace) -> None:
    """Extract what the protocols need, score it, add it to the results file and print it."""
    evaluation = _Evaluation(args)
    results = [result for protocol in args.protocol for result in evaluation.results(protocol)]
    write_results(args.output, results)
    print_results(results, args.model)
    Console().print(f"written to {args.output}", highlight=False)


def print_results(results: Sequence[Result], title: str) -> None:
    """A table of figures with their intervals."""
    table = Table(title=title, title_justify="left")
    for heading in ("protocol", "figure", "value", "95 % interval", "samples"):
        table.add_column(heading, justify="left" if heading in ("protocol", "figure") else "right")
    for result in results:
        settings = ", ".join(f"{key} {value}" for key, value in result.protocol.items() if key in ("k", "l2"))
        name = " ".join([result.protocol["name"], result.protocol.get("direction", "")]).strip()
        for figure_name, figure in result.figures.items():
            unit = " %" if figure.unit == "percent" else ""
            interval = f"{figure.low:.1f} to {figure.high:.1f}"
            shown = f"{name} ({settings})" if settings else name
            table.add_row(shown, figure_name, f"{figure.value:.1f}{unit}", interval, str(figure.samples))
    Console().print(table)


class _Evaluation:
    """The protocols of one call, over features that each are extracted once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.source = FeatureSource(args)
        self._extracted: dict[tuple[str, str, str], ExtractedSplit] = {}

    def results(self, protocol: str) -> list[Result]:
        """One result, or one a direction."""
        of_one_split = {
            "cross-modal": self._cross_modal,
            "classify": self._classify,
            "text_retrieval": self._text_retrieval,
            "zero_shot": self._zero_shot,
            "script_sorting": self._script_sorting,
        }
        if protocol in of_one_split:
            return of_one_split[protocol]()
        train, test = self._features(self.args.train_split), self._features(self.args.test_split)
        fitted = {"train": train}
        started = time.perf_counter()
        if protocol == "knn":
            outcome = knn_protocol(
                train.table, test.table, k=self.args.k, temperature=self.args.temperature, seed=self.args.seed
            )
        elif protocol == "linear":
            if self.args.validation_split:
                fitted["validation"] = self._features(self.args.validation_split)
                started = time.perf_counter()
            validation = fitted["validation"].table if "validation" in fitted else None
            outcome = linear_protocol(
                train.table, test.table, validation, l2_grid=self.args.l2, seed=self.args.seed
            )
        else:
            ks = self.args.ranks or RANKS
            outcome = retrieval_protocol(train.table, test.table, ks=ks, seed=self.args.seed)
        return [self._result(outcome, test, fitted, time.perf_counter() - started)]

    def _cross_modal(self) -> list[Result]:
        video, sound = (
            self._features(self.args.test_split, modality, "shared") for modality in ("video", "audio")
        )
        if video.table.keys != sound.table.keys:
            raise DataError(
                "cross-modal retrieval needs the sound of every clip, and some clips were left out on one "
                "side: see which with --on-error raise"
            )
        results = []
        for direction, queries, gallery in (
            ("video to sound", video, sound),
            ("sound to video", sound, video),
        ):
            started = time.perf_counter()
            ks = self.args.ranks or RANKS
            outcome = cross_modal_protocol(
                queries.table.features, gallery.table.features, ks=ks, seed=self.args.seed
            )
            outcome.protocol["direction"] = direction
            results.append(
                self._result(outcome, queries, {"gallery": gallery}, time.perf_counter() - started)
            )
        return results

    def _text_retrieval(self) -> list[Result]:
        clips = self._features(self.args.test_split, "video", "text")
        column, texts, parts = self._texts(clips)
        started = time.perf_counter()
        model = self.source.network("text")
        embedded = text_features(model, self.source.processor, texts, self.args.batch_size)
        videos, ks = clips.table.features, self.args.ranks or TEXT_RANKS
        results = []
        for direction, queries, gallery in (
            ("text to video", embedded, videos),
            ("video to text", videos, embedded),
        ):
            outcome = cross_modal_protocol(
                queries, gallery, ks=ks, seed=self.args.seed, name="text_retrieval"
            )
            outcome.protocol.update(direction=direction, text=column, parts=parts)
            results.append(self._result(outcome, clips, {}, time.perf_counter() - started))
        return results

    def _zero_shot(self) -> list[Result]:
        clips = self._features(self.args.test_split, "video", "text")
        if clips.table.label_names is None:
            raise DataError("the test videos have no classes whose names could be asked for")
        started = time.perf_counter()
        model, prompts = self.source.network("text"), self.args.prompt
        classes = class_features(model, self.source.processor, clips.table.label_names, prompts)
        outcome = zero_shot_protocol(clips.table, classes, prompts, seed=self.args.seed)
        return [self._result(outcome, clips, {}, time.perf_counter() - started)]

    def _script_sorting(self) -> list[Result]:
        model: Any = self.source.network("shared")
        parts = getattr(getattr(model, "config", None), "num_scripts", 1)
        if parts < 2:
            raise InputError(f"{type(model).__name__} sorts no scripts")
        clips = self.source.clips(self.args.test_split, "video")
        started = time.perf_counter()
        _, scripts = read_texts(clips.dataset, "transcript", parts)
        found, places = sort_scripts(
            model,
            self.source.processor,
            clips,
            scripts,
            batch_size=self.args.batch_size,
            seed=self.args.seed,
        )
        outcome = sorting_protocol(found, places, seed=self.args.seed)
        rows = [str(row) for row in range(len(clips))]
        table = FeatureTable(found.float(), torch.full((len(clips),), -1), rows)
        test = ExtractedSplit(self.args.test_split, clips, table, time.perf_counter() - started)
        return [self._result(outcome, test, {}, 0.0)]

    def _texts(self, clips: ExtractedSplit) -> tuple[str, list[Any], int]:
        """The column, the texts of all clips, and in how many parts each comes."""
        dataset = clips.clips.dataset
        if len(clips.table) != len(dataset):
            raise DataError(
                "text retrieval needs every clip of the split, and some were left out: see which with "
                "--on-error raise"
            )
        parts = getattr(getattr(self.source.network("text"), "config", None), "num_scripts", 1)
        column, texts = read_texts(dataset, self.args.text_column, parts)
        return column, texts, parts if column == "transcript" else 1

    def _classify(self) -> list[Result]:
        """The classifier's own answers; one that compares clips with words takes those of the data."""
        model: Any = self.source.network(self.args.average)
        clips = self.source.clips(self.args.test_split)
        own, asked = list(model.config.id2label.values()), clips.label_names or []
        identity = model_identity(model)
        is_new = getattr(model.config, "reads_labels", False) and own != asked
        if is_new:
            model.set_labels(asked, self.source.processor.tokenizer)
        test = self._features(self.args.test_split, space=self.args.average)
        started = time.perf_counter()
        names = list(model.config.id2label.values())
        outcome = classify_protocol(test.table, names, seed=self.args.seed)
        outcome.protocol["average"] = self.args.average
        if is_new and not set(asked) <= set(own):
            outcome.protocol["name"] = "zero-shot"
        return [self._result(outcome, test, {}, time.perf_counter() - started, **identity)]

    def _features(self, split: str, modality: str | None = None, space: str = "features") -> ExtractedSplit:
        modality = modality or self.args.modality
        if (split, modality, space) not in self._extracted:
            clips = self.source.clips(split, modality)
            folder = None
            if self.args.cache is not None:
                identity = feature_identity(self.source.network(space), clips, space)
                folder = self.args.cache / f"{split}-{modality}-{space}-{short_hash(identity)}"
            self._extracted[split, modality, space] = self.source.extract(
                split, clips, space, cache_dir=folder, progress=f"{split} {modality} features"
            )
        return self._extracted[split, modality, space]

    def _result(
        self,
        outcome: Outcome,
        test: ExtractedSplit,
        others: dict[str, ExtractedSplit],
        seconds: float,
        **notes: Any,
    ) -> Result:
        notes |= {"random_weights": True} if self.args.random_weights else {}
        return make_result(
            outcome,
            self.source.network(self.args.average if notes.get("class") else "features"),
            self.args.data,
            test,
            others,
            seed=self.args.seed,
            seconds=seconds,
            data_revision=self.args.data_revision,
            **(notes | {"id": self.args.model}),
        )
