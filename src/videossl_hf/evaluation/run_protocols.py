"""Protocols by name: which features each needs, of which splits or folds, and what becomes a result."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, InputError
from .clip_values import MOST_FEATURES, ClipValues
from .clips import PreparedClips
from .cost import clip_cost
from .features import OF_BACKBONE, feature_identity, feature_model
from .few_shot import few_shot_protocol
from .fingerprint import model_identity, short_hash
from .folds import over_folds, stratified_folds
from .inputs import FeatureSource
from .protocols import (
    Outcome,
    attentive_protocol,
    classify_protocol,
    cross_modal_protocol,
    knn_protocol,
    linear_protocol,
    retrieval_protocol,
    sorting_protocol,
    zero_shot_protocol,
)
from .results import Result
from .script_sorting import sort_scripts
from .splits import ExtractedSplit, make_result
from .table import FeatureTable
from .text_features import class_features, text_features
from .texts import read_texts
from .trained_probe import LINEAR_SETTINGS, ProbeTraining

__all__ = ["LEARNING", "PROTOCOLS", "RANKS", "Evaluation"]

LEARNING = ("knn", "linear", "attentive", "few_shot", "retrieval")
"""Protocols that learn from labelled clips, or look among them; the others score a split as it is."""
POOLED = ("knn", "linear", "few_shot", "retrieval")
"""Of them those that take one vector a clip."""
PROTOCOLS = (*LEARNING, "cross-modal", "classify", "text_retrieval", "zero_shot", "script_sorting")
RANKS = (1, 5, 10, 20, 50)
"""k of R@k, as far as the gallery goes."""


class Evaluation:
    """The protocols of one call of `videossl evaluate`, over features that each are extracted once.

    Args:
        args: of its parser.

    Attributes:
        clip_values: what every test clip came to, by the identity of the result.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.source = FeatureSource(args)
        self.clip_values: dict[str, ClipValues] = {}
        self._costs: dict[tuple[str, str], dict[str, Any]] = {}
        self._extracted: dict[tuple[str, str, str], ExtractedSplit] = {}

    def results(self, protocol: str) -> list[Result]:
        """One result, or one a direction."""
        if self.args.pooling != "own" and protocol not in POOLED:
            raise InputError(f"--pooling is of {', '.join(POOLED)}; {protocol} has its own way with tokens")
        of_one_split = {
            "cross-modal": self._cross_modal,
            "classify": self._classify,
            "text_retrieval": self._text_retrieval,
            "zero_shot": self._zero_shot,
            "script_sorting": self._script_sorting,
        }
        if protocol in of_one_split:
            return of_one_split[protocol]()
        pooled = "mean" if self.args.pooling == "mean" else "features"
        space = "tokens" if protocol == "attentive" else pooled
        score = functools.partial(self._score, protocol)
        if self.args.folds:
            return [self._over_folds(score, space)]
        train, test = (self._features(name, None, space) for name in (self._train_split, self._test_split))
        fitted = {"train": train}
        if self.args.validation_split and protocol in ("linear", "attentive"):
            fitted["validation"] = self._features(self.args.validation_split, None, space)
        for role, split in fitted.items():
            if split.clips.fingerprint != test.clips.fingerprint:
                continue
            if protocol == "retrieval":
                train = test  # clips of one split search among each other
                continue
            raise DataError(
                f"the {role} split {split.name!r} and the test split {test.name!r} hold the same clips:"
                f" {protocol} would be asked for what it was told; name other splits, or cross-validate with"
                " --folds N"
            )
        started = time.perf_counter()
        validation = fitted["validation"].table if "validation" in fitted else None
        outcome = score(train.table, test.table, validation)
        return [self._result(outcome, test, fitted, time.perf_counter() - started)]

    @property
    def _train_split(self) -> str:
        return self.args.train_split or "train"

    @property
    def _test_split(self) -> str:
        """What is scored; in cross-validation the one split that there is."""
        if self.args.folds == "official":
            return "folds"
        if self.args.folds:
            return self.args.test_split or self._train_split
        return self.args.test_split or "test"

    def _score(
        self, protocol: str, train: FeatureTable, test: FeatureTable, validation: FeatureTable | None = None
    ) -> Outcome:
        """A protocol that learns from labelled clips."""
        args = self.args
        if protocol == "knn":
            return knn_protocol(train, test, k=args.k, temperature=args.temperature, seed=args.seed)
        if protocol == "linear":
            training = self._training(LINEAR_SETTINGS[args.optimizer]) if args.optimizer != "lbfgs" else None
            return linear_protocol(
                train, test, validation, l2_grid=args.l2, training=training, seed=args.seed
            )
        if protocol == "attentive":
            training = self._training(ProbeTraining())
            return attentive_protocol(train, test, validation, training=training, seed=args.seed)
        if protocol == "few_shot":
            return few_shot_protocol(train, test, shots=args.shots, draws=args.draws, seed=args.seed)
        among = train is test
        ks = args.ranks or [k for k in RANKS if k <= len(train) - among]
        return retrieval_protocol(train, test, ks=ks, among_each_other=among, seed=args.seed)

    def _training(self, defaults: ProbeTraining) -> ProbeTraining:
        args = self.args
        return ProbeTraining(
            defaults.optimizer,
            tuple(args.lr or defaults.learning_rates),
            tuple(args.weight_decay or defaults.weight_decays),
            args.epochs or defaults.epochs,
            defaults.batch_size,
        )

    def _over_folds(self, score: Callable[[FeatureTable, FeatureTable], Outcome], space: str) -> Result:
        clips = self._features(self._test_split, None, space)
        table = clips.table
        if len(table) != len(clips.clips):
            raise DataError(
                "folds are drawn from all clips, and some were left out: see which with --on-error raise"
            )
        official = self.source.official_folds()
        started = time.perf_counter()
        folds = official or stratified_folds(table.labels, int(self.args.folds), self.args.seed)
        outcome, rows = over_folds(score, table, folds, seed=self.args.seed)
        outcome.protocol["folds"] = "official" if official else len(folds)
        return self._result(outcome, clips, {}, time.perf_counter() - started, rows=rows)

    def _cross_modal(self) -> list[Result]:
        video, sound = (
            self._features(self._test_split, modality, "shared") for modality in ("video", "audio")
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
            ks = self.args.ranks or [k for k in RANKS if k <= len(gallery.table)]
            outcome = cross_modal_protocol(
                queries.table.features, gallery.table.features, ks=ks, seed=self.args.seed
            )
            outcome.protocol["direction"] = direction
            results.append(
                self._result(outcome, queries, {"gallery": gallery}, time.perf_counter() - started)
            )
        return results

    def _text_retrieval(self) -> list[Result]:
        clips = self._features(self._test_split, "video", "text")
        column, texts, parts = self._texts(clips)
        started = time.perf_counter()
        model = self.source.network("text")
        embedded = text_features(model, self.source.processor, texts, self.args.batch_size)
        videos = clips.table.features
        ks = self.args.ranks or [k for k in RANKS if k <= len(texts)]
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
        clips = self._features(self._test_split, "video", "text")
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
        clips = self.source.clips(self._test_split, "video")
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
        test = ExtractedSplit(self._test_split, clips, table, time.perf_counter() - started)
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
        clips = self.source.clips(self._test_split)
        own, asked = list(model.config.id2label.values()), clips.label_names or []
        identity = model_identity(model)
        is_new = getattr(model.config, "reads_labels", False) and own != asked
        if is_new:
            model.set_labels(asked, self.source.processor.tokenizer)
        test = self._features(self._test_split, space=self.args.average)
        started = time.perf_counter()
        names = list(model.config.id2label.values())
        outcome = classify_protocol(test.table, names, seed=self.args.seed)
        outcome.protocol["average"] = self.args.average
        if is_new and not set(asked) <= set(own):
            outcome.protocol["name"] = "zero-shot"
        return [self._result(outcome, test, {}, time.perf_counter() - started, notes=identity)]

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

    def _cost(self, clips: PreparedClips, space: str) -> dict[str, Any]:
        if (clips.modality, space) not in self._costs:
            network = self.source.network(space)
            model = feature_model(network) if space in OF_BACKBONE else network
            self._costs[clips.modality, space] = clip_cost(model, clips, space)
        return self._costs[clips.modality, space]

    def _result(
        self,
        outcome: Outcome,
        test: ExtractedSplit,
        others: dict[str, ExtractedSplit],
        seconds: float,
        rows: Tensor | None = None,
        notes: dict[str, Any] | None = None,
    ) -> Result:
        """The result of an outcome, whose clips are kept; `rows` of the table were tested if not all."""
        if self.args.pooling != "own":
            outcome.protocol["pooling"] = self.args.pooling
        notes = (notes or {}) | ({"random_weights": True} if self.args.random_weights else {})
        space = self.args.average if notes.get("class") else "features"
        notes |= self._cost(test.clips, space)
        result = make_result(
            outcome,
            self.source.network(space),
            self.args.data,
            test,
            others,
            seed=self.args.seed,
            seconds=seconds,
            data_revision=self.args.data_revision,
            **(notes | {"id": self.args.model}),
        )
        tested = test.table if rows is None else test.table.select(rows)
        predictions = None if outcome.scores is None else outcome.scores.argmax(dim=1).cpu()
        mapped = outcome.protocol["name"] == "knn" and len(tested) <= MOST_FEATURES
        self.clip_values[result.identity] = ClipValues(
            tested.keys,
            outcome.values,
            tested.labels,
            predictions,
            tested.label_names,
            tested.features if mapped else None,
        )
        return result
