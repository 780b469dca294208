"""One self-contained HTML page: text, pictures and tables, without a file beside it and without a script."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OutputError
from .theme import DARK, LIGHT, Palette, Picture

__all__ = ["Report", "Section", "figure_block", "settings_block", "strip_rows", "table_block", "tiles_block"]

_STYLE = Path(__file__).with_name("report.css")


@dataclass
class Section:
    """A heading, a sentence under it, and blocks of HTML side by side where there is room."""

    title: str
    text: str = ""
    blocks: list[str] = field(default_factory=list)


@dataclass
class Report:
    """A page. All texts are escaped; blocks are HTML made by the functions of this file.

    Attributes:
        title: the headline, a finding rather than a name.
        lead: one or two sentences under it.
        eyebrow: the small line above it.
        tiles: HTML of `tiles_block`, or nothing.
        sections: in order.
        footer: the last line.
    """

    title: str
    lead: str
    eyebrow: str = ""
    tiles: str = ""
    sections: list[Section] = field(default_factory=list)
    footer: str = ""

    def html(self) -> str:
        """The whole page."""
        sections = "".join(
            f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>"
            f'<div class="row">{"".join(section.blocks)}</div></section>'
            for section in self.sections
        )
        light, dark = (_variables(palette) for palette in (LIGHT, DARK))
        style = (
            f":root {{ --page: #f6f7fa; {light} }}"
            f"@media (prefers-color-scheme: dark) {{ :root {{ --page: #0f131b; {dark} }} }}"
            f"{_STYLE.read_text(encoding='utf-8')}"
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{style}</style></head><body><main><header>"
            f'<p class="eyebrow">{html.escape(self.eyebrow)}</p><h1>{html.escape(self.title)}</h1>'
            f"<p>{html.escape(self.lead)}</p></header>{self.tiles}{sections}"
            f"<footer>{html.escape(self.footer)}</footer></main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page; its folder is made if absent.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(path)
        part = path.with_suffix(f".part{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(self.html(), encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
        return path


def tiles_block(tiles: Sequence[tuple[str, str, str]]) -> str:
    """Large numbers: (number, what it is, what it compares with)."""
    cells = (
        f'<div class="tile"><span>{html.escape(name)}</span><b>{html.escape(number)}</b>'
        f"<span>{html.escape(note)}</span></div>"
        for number, name, note in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def figure_block(title: str, picture: Picture, caption: str = "", *, full: bool = False) -> str:
    """A picture with a title and a caption; `full` gives it the whole width."""
    note = f"<p>{html.escape(caption)}</p>" if caption else ""
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    return f'<div class="card{" full" if full else ""}">{heading}{picture.svg}{note}</div>'


def table_block(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    strong: Sequence[int] = (),
    title: str = "",
    full: bool = False,
) -> str:
    """A table; the rows numbered in `strong` stand out, `full` gives it the whole width."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=strong' if number in strong else ''}>"
        + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    width = " full" if full else ""
    return f'<div class="card scroll{width}">{heading}<table><tr>{head}</tr>{body}</table></div>'


def settings_block(title: str, settings: Mapping[str, object], recipe: str = "") -> str:
    """Names and values, and the recipe, which opens on a click."""
    pairs = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in settings.items()
    )
    more = (
        f"<details><summary>The whole recipe</summary><pre>{html.escape(recipe)}</pre></details>"
        if recipe
        else ""
    )
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    return f'<div class="card full">{heading}<dl>{pairs}</dl>{more}</div>'


def strip_rows(queries: Sequence[Mapping[str, object]]) -> str:
    """Queries and what was found for them.

    Each query has "image" (an address), "name", "note" and "found": a list of (heading, clips), a clip being
    (address, name, whether it is right).
    """
    rows = []
    for query in queries:
        columns = []
        for heading, clips in query["found"]:  # type: ignore[attr-defined]
            items = "".join(
                f'<div class="clip"><img src="{address}" alt=""><span class="{"yes" if right else "no"}">'
                f"{'✓' if right else '✗'} {html.escape(name)}</span></div>"
                for address, name, right in clips
            )
            columns.append(f'<div class="found"><h3>{html.escape(heading)}</h3>{items}</div>')
        rows.append(
            f'<div class="card query"><div class="lead"><img src="{query["image"]}" alt="">'
            f"<b>{html.escape(str(query['name']))}</b><span>{html.escape(str(query['note']))}</span></div>"
            f"{''.join(columns)}</div>"
        )
    return f'<div class="queries">{"".join(rows)}</div>'


def _variables(palette: Palette) -> str:
    return " ".join(f"--{name}: {value};" for name, value in vars(palette).items())
