"""`videossl evaluate MODEL --data D --protocol knn linear retrieval ...`: figures with intervals, into
results.json, and what every clip came to beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import InputError
from .clip_values import write_clip_values
from .features import ANSWERS
from .inputs import add_input_arguments
from .linear import DEFAULT_L2_GRID
from .results import Result, write_results
from .run_protocols import PROTOCOLS, Evaluation
from .texts import TEXT_COLUMNS

__all__ = ["add_arguments", "print_results", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl evaluate`."""
    add_input_arguments(parser)
    parser.add_argument(
        "--protocol", nargs="+", choices=PROTOCOLS, default=["knn"],
        help="knn, linear, attentive (a probe that attends to the tokens) and few_shot: train against test; "
        "retrieval: test queries train, or itself where both are one split, and right is the same class; "
        "cross-modal: clips of test find their own sound and the reverse; classify: a classifier's own "
        "answers on test, where one that reads names of classes is asked for those of the data; "
        "text_retrieval: clips of test find their own text and the "
        "reverse; zero_shot: the class whose name is nearest; script_sorting: a model orders the "
        "scripts of transcripts (default: knn). Fine-tuning trains, and is scored here by classify: see "
        "`videossl finetune --folds`",
    )  # fmt: skip
    parser.add_argument(
        "--pooling", choices=("own", "mean"), default="own",
        help="features: pooled as the model does it (own), or the mean over its tokens",
    )  # fmt: skip
    data = parser.add_argument_group("splits")
    data.add_argument("--train-split", help="neighbours, probe and gallery (train)")
    data.add_argument(
        "--validation-split", help="where a probe's settings are chosen (default: on a fifth of train)"
    )
    data.add_argument("--test-split", help="what is scored (test; with --folds N the training split)")
    data.add_argument(
        "--folds", metavar="N|official",
        help="average over folds: N of cross-validation over one split, every clip tested once, or those of "
        "an official data set (UCF101, HMDB51, ESC-50); protocols that learn nothing score all clips",
    )  # fmt: skip
    probes = parser.add_argument_group("neighbours and probes")
    probes.add_argument("--k", type=int, default=10, help="knn: neighbours that vote (10)")
    probes.add_argument("--temperature", type=float, help="knn: votes weigh exp(similarity / temperature)")
    probes.add_argument(
        "--optimizer", choices=("lbfgs", "sgd", "adamw"), default="lbfgs",
        help="linear: to convergence, with penalties to try (lbfgs), or trained with rates to try",
    )  # fmt: skip
    probes.add_argument(
        "--l2", type=float, nargs="+", default=list(DEFAULT_L2_GRID), help="linear, lbfgs: penalties to try"
    )
    probes.add_argument(
        "--lr", type=float, nargs="+", help="linear by sgd or adamw, attentive: learning rates to try"
    )
    probes.add_argument("--weight-decay", type=float, nargs="+", help="the same: weight decays to try")
    probes.add_argument(
        "--epochs", type=int, help="the same: passes over the training clips (50; attentive 20)"
    )
    probes.add_argument(
        "--shots", type=int, nargs="+", help="few_shot: clips a class (those of 1 5 10 that there are)"
    )
    probes.add_argument("--draws", type=int, default=10, help="few_shot: how often they are drawn (10)")
    others = parser.add_argument_group("retrieval, classifiers and texts")
    others.add_argument(
        "--ranks", type=int, nargs="+", help="k of R@k (those of 1 5 10 20 50 that the gallery has)"
    )
    others.add_argument(
        "--average", choices=ANSWERS, default="probabilities",
        help="classify: what is averaged over the views of a video (probabilities)",
    )  # fmt: skip
    others.add_argument(
        "--text-column", choices=TEXT_COLUMNS,
        help="text_retrieval: of one text a clip, or of speech in as many equal parts as the model has "
        "scripts (the first that there is)",
    )  # fmt: skip
    others.add_argument(
        "--prompt", nargs="+", default=["{}"], metavar="TEXT",
        help='zero_shot: what names of classes are put into, such as "a person {}"; several are averaged',
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, help="folder for features, to come back to them")
    parser.add_argument(
        "--output", type=Path, default=Path("results.json"),
        help="results file, with what every clip came to in a folder .clips beside it (results.json)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Extract what the protocols need, score it, add it to the results file and print it."""
    if args.folds and args.folds != "official" and not args.folds.isdecimal():
        raise InputError(f'folds must be a number or "official", got {args.folds!r}')
    evaluation = Evaluation(args)
    results = [result for protocol in args.protocol for result in evaluation.results(protocol)]
    write_results(args.output, results)
    for result in results:
        write_clip_values(args.output, result, evaluation.clip_values[result.identity])
    print_results(results, args.model)
    Console().print(f"written to {args.output}", highlight=False)


def print_results(results: Sequence[Result], title: str) -> None:
    """A table of figures with their intervals."""
    table = Table(title=title, title_justify="left")
    for heading in ("protocol", "figure", "value", "95 % interval", "samples"):
        table.add_column(heading, justify="left" if heading in ("protocol", "figure") else "right")
    for result in results:
        settings = ", ".join(
            f"{key} {value}" for key, value in result.protocol.items() if key in ("k", "l2", "lr", "folds")
        )
        name = " ".join([result.protocol["name"], result.protocol.get("direction", "")]).strip()
        for figure_name, figure in result.figures.items():
            unit = " %" if figure.unit == "percent" else ""
            interval = f"{figure.low:.1f} to {figure.high:.1f}"
            shown = f"{name} ({settings})" if settings else name
            table.add_row(shown, figure_name, f"{figure.value:.1f}{unit}", interval, str(figure.samples))
    Console().print(table)
