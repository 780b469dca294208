"""Charts of a comparison: what accuracy costs, and how many labels it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.results import Figure as Measured
from .theme import Palette, Picture, bare_axes, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cost_picture", "label_curves"]

_MARKS = "osD^vPX*"


def cost_picture(
    points: Mapping[str, tuple[float, Measured]],
    *,
    highlight: str,
    cost: str,
    label: str,
    size: tuple[float, float] = (6.4, 3.8),
) -> Picture:
    """Figures against what they cost, on a logarithmic axis; whoever is cheaper and better stands left above.

    Args:
        points: row name -> (cost, figure); a row without cost cannot be drawn.
        highlight: the row in the accent colour.
        cost: name of the axis, with its unit.
        label: name of the figure.
        size: inches.

    Raises:
        InputError: nothing to draw, or a cost that is not positive.
    """
    if not points or min(price for price, _ in points.values()) <= 0:
        raise InputError("a cost picture needs points with a positive cost")

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        bare_axes(axes, palette)
        axes.set_xscale("log")
        highest = max(measured.high for _, measured in points.values())
        for name, (price, measured) in points.items():
            colour = palette.accent if name == highlight else palette.third
            axes.plot([price, price], [measured.low, measured.high], color=colour, linewidth=6, alpha=0.3,
                      solid_capstyle="round")  # fmt: skip
            axes.plot(price, measured.value, "o", color=colour, markersize=8)
            axes.annotate(
                name, (price, measured.value), (9, 0), textcoords="offset points", va="center", fontsize=9.5,
                color=palette.ink, fontweight="bold" if name == highlight else "normal",
            )  # fmt: skip
        prices = [price for price, _ in points.values()]
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(min(prices) / 2.2, max(prices) * 6)
        axes.set_ylim(0, min(100, 1.12 * highest + 2))
        axes.set_xlabel(cost)
        axes.set_ylabel(label)

    return draw_picture(draw, size)


def label_curves(
    curves: Mapping[str, Sequence[tuple[int, Measured]]],
    *,
    highlight: str,
    label: str,
    size: tuple[float, float] = (6.4, 3.8),
) -> Picture:
    """Figures over the number of labelled clips a class, with bands for their intervals.

    Args:
        curves: row name -> (clips a class, figure), at least one point each.
        highlight: the row in the accent colour.
        label: name of the figure.
        size: inches.

    Raises:
        InputError: nothing to draw.
    """
    if not curves or not all(curves.values()):
        raise InputError("there is no few-shot figure to draw")

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        bare_axes(axes, palette)
        axes.set_xscale("log")
        colours = (palette.second, palette.third, palette.good, palette.bad, palette.muted)
        others = [name for name in curves if name != highlight]
        for number, (name, points) in enumerate(curves.items()):
            place = others.index(name) if name in others else 0
            colour = palette.accent if name == highlight else colours[place % len(colours)]
            shots, figures = zip(*points, strict=True)
            axes.fill_between(shots, [f.low for f in figures], [f.high for f in figures], color=colour,
                              alpha=0.13, linewidth=0)  # fmt: skip
            axes.plot(shots, [f.value for f in figures], color=colour, linewidth=2.2, label=name,
            markersize=6,
                      marker=_MARKS[number % len(_MARKS)])  # fmt: skip
        ticks = sorted({shot for points in curves.values() for shot, _ in points})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("labelled clips a class")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", labelcolor=palette.ink, fontsize=9)
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])

    return draw_picture(draw, size)
