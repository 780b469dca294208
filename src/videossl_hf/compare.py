"""`videossl compare RUN ...`: results of several models as tables, charts and one page.

A run is a results file, or a folder with results.json; NAME=RUN calls its row NAME, and several runs of one
name are its seeds. Written are comparison.md, comparison.html (the table alone), report.html (everything, in
one file) and the charts as PNG. Whether a difference is more than luck is asked clip by clip, of models that
were scored on the same clips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .errors import InputError, OutputError
from .evaluation.comparison import Comparison, compare_results, read_runs
from .visualize.comparison_report import write_comparison_report
from .visualize.comparison_table import (
    comparison_html,
    comparison_markdown,
    comparison_rows,
    p_value,
    signed,
)

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `videossl compare`."""
    parser.add_argument(
        "runs", nargs="+", metavar="[NAME=]RUN", help="results.json, or the folder it lies in"
    )
    parser.add_argument(
        "--reference", metavar="NAME", help="the row that others are tested against (the first)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/compare"), help="folder to write to (outputs/compare)"
    )


def run(args: argparse.Namespace) -> None:
    """Read, compare, print and write."""
    comparisons = compare_results(read_runs(args.runs))
    names = list(dict.fromkeys(row for comparison in comparisons for row in comparison.rows))
    reference = args.reference or names[0]
    if reference not in names:
        raise InputError(f"there is no row {reference!r}: the rows are {', '.join(names)}")
    console = Console()
    for comparison in comparisons:
        _print(console, comparison, reference)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        markdown = "\n".join(comparison_markdown(comparison, reference) for comparison in comparisons)
        (args.output / "comparison.md").write_text(markdown, encoding="utf-8")
        tables = "\n".join(comparison_html(comparison) for comparison in comparisons)
        (args.output / "comparison.html").write_text(tables, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {args.output}: {error}") from error
    report = write_comparison_report(comparisons, reference, args.output)
    console.print(f"written to {args.output}: open {report}", highlight=False)


def _print(console: Console, comparison: Comparison, reference: str) -> None:
    table = Table(title=comparison.data, title_justify="left")
    header, rows = comparison_rows(comparison, comparison.main_columns)
    for place, heading in enumerate(header):
        table.add_column(heading, justify="right" if place else "left")
    for texts in rows:
        table.add_row(*texts)
    console.print(table)
    for column in comparison.main_columns:
        for row, test in comparison.paired(column, reference).items():
            console.print(
                f"{row} against {reference}, {column.title}: {signed(test)}, p {p_value(test)}",
                highlight=False,
            )
