"""A comparison as a table, in Markdown and HTML, with the paired tests that belong to it."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.comparison import Column, Comparison
from ..evaluation.paired import PairedTest
from .report import table_block

__all__ = ["comparison_html", "comparison_markdown", "comparison_rows", "p_value", "signed"]


def comparison_rows(
    comparison: Comparison, columns: Sequence[Column] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table: figures with intervals; the best of a column has a star."""
    columns = comparison.columns if columns is None else columns
    best = {
        column: (min if column.figure == "MedR" else max)(
            cell.figure.value for (_, own), cell in comparison.cells.items() if own == column
        )
        for column in columns
    }
    rows = []
    for row in comparison.rows:
        texts = [row]
        for column in columns:
            cell = comparison.cells.get((row, column))
            star = " *" if cell is not None and cell.figure.value == best[column] else ""
            texts.append("" if cell is None else f"{cell.figure}{star}")
        rows.append(texts)
    return ["", *(column.title for column in columns)], rows


def comparison_markdown(comparison: Comparison, reference: str) -> str:
    """The table, and under it the paired tests against the reference."""
    header, rows = comparison_rows(comparison)
    lines = [
        f"**{comparison.data}**: figures in percent, 95 % intervals (MedR: rank); * is the best of a column.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    paired = [
        f"| {row} | {column.title} | {signed(test)} | {test.only_first} : {test.only_second} "
        f"| {p_value(test)} |"
        for column in comparison.main_columns
        for row, test in comparison.paired(column, reference).items()
    ]
    if paired:
        heading = f"| against {reference} | figure | difference | larger : smaller on clips | p |"
        lines += [heading, "|---|---|---|---|---|", *paired, ""]
    return "\n".join(lines)


def comparison_html(comparison: Comparison) -> str:
    """The table as an HTML fragment."""
    header, rows = comparison_rows(comparison)
    return table_block(header, rows, title=comparison.data, full=True)


def signed(test: PairedTest) -> str:
    """A difference with its interval."""
    return f"{test.difference:+.1f} [{test.low:+.1f}, {test.high:+.1f}]"


def p_value(test: PairedTest) -> str:
    """A probability as people write it."""
    return "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
