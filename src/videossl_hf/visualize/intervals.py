"""Figures side by side, each with its interval: one row a model, one panel a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.results import Figure as Measured
from .theme import Palette, Picture, bare_axes, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["interval_picture"]


def interval_picture(
    panels: Mapping[str, Mapping[str, Measured]],
    *,
    highlight: str,
    chance: float | None = None,
    size: tuple[float, float] | None = None,
) -> Picture:
    """Dots with 95 % intervals on one percent axis a panel.

    Args:
        panels: title -> row name -> figure, the rows of all panels in one order.
        highlight: the row that is drawn in the accent colour.
        chance: percent, a dotted line.
        size: inches.

    Raises:
        InputError: nothing to draw.
    """
    if not panels or not all(panels.values()):
        raise InputError("there is no figure to draw")
    rows = list(dict.fromkeys(name for panel in panels.values() for name in panel))

    def draw(figure: Figure, palette: Palette) -> None:
        figure.set_layout_engine("constrained", wspace=0.12)
        for number, (title, panel) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number)
            bare_axes(axes, palette)
            axes.grid(visible=False, axis="y")
            axes.grid(axis="x", color=palette.line, linewidth=0.8)
            if chance is not None:
                axes.axvline(chance, color=palette.muted, linewidth=1.2, linestyle=(0, (1, 2)))
            for place, name in enumerate(rows):
                if name not in panel:
                    continue
                measured = panel[name]
                colour = palette.accent if name == highlight else palette.third
                axes.plot([measured.low, measured.high], [place, place], color=colour, linewidth=7, alpha=0.3,
                          solid_capstyle="round")  # fmt: skip
                axes.plot(measured.value, place, "o", color=colour, markersize=8)
                axes.annotate(
                    f"{measured.value:.1f}", (measured.value, place), (0, 9), textcoords="offset points",
                    ha="center", color=palette.ink if name == highlight else palette.muted, fontsize=9.5,
                    fontweight="bold",
                )  # fmt: skip
            axes.set_yticks(range(len(rows)), rows if number == 1 else [""] * len(rows))
            axes.tick_params(axis="y", labelsize=10.5, labelcolor=palette.ink)
            axes.set_ylim(len(rows) - 0.5, -0.75)
            axes.set_xlim(0, 100)
            axes.set_xticks(range(0, 101, 25))
            axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
            axes.set_xlabel("%")

    return draw_picture(draw, size or (2.2 + 2.6 * len(panels), 0.9 + 0.55 * len(rows)))
