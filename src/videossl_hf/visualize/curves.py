"""Curves over training steps: losses, and a figure such as kNN accuracy beside its reference lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from .theme import Palette, Picture, bare_axes, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_curve", "loss_curves"]

Points = Sequence[tuple[float, float]]


def loss_curves(curves: Mapping[str, Points], *, size: tuple[float, float] = (6.4, 3.2)) -> Picture:
    """One line a loss, its name at the end of the line.

    Args:
        curves: (step, value) points by the name of the loss; the first one is drawn strongest.
        size: inches.

    Raises:
        InputError: nothing to draw.
    """
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise InputError("there is no point to draw: the run has logged no loss")

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        bare_axes(axes, palette)
        colours = (palette.accent, palette.second, palette.third, palette.good, palette.bad)
        for number, (name, points) in enumerate(curves.items()):
            steps, values = zip(*points, strict=True)
            colour = colours[number % len(colours)]
            axes.plot(steps, values, color=colour, linewidth=2.4 if number == 0 else 1.6, label=name)
        axes.set_xlabel("step")
        axes.margins(x=0.01)
        axes.legend(loc="upper right", labelcolor=palette.ink, ncols=len(curves), handlelength=1.2)
        top = axes.get_ylim()[1]
        axes.set_ylim(top=top + 0.12 * (top - axes.get_ylim()[0]))

    return draw_picture(draw, size)


def accuracy_curve(
    points: Points,
    references: Mapping[str, float] | None = None,
    *,
    label: str = "kNN top-1 (%)",
    size: tuple[float, float] = (6.4, 3.2),
) -> Picture:
    """A figure over the steps, with a dashed line for every reference.

    Args:
        points: (step, percent).
        references: percent by name ("chance", "random weights").
        label: what is measured.
        size: inches.

    Raises:
        InputError: nothing to draw.
    """
    if not points:
        raise InputError("there is no point to draw: the run has logged no accuracy")

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        bare_axes(axes, palette)
        steps, values = zip(*points, strict=True)
        axes.fill_between(steps, values, color=palette.accent, alpha=0.12, linewidth=0)
        axes.plot(steps, values, color=palette.accent, linewidth=2.4, marker="o", markersize=5)
        axes.annotate(
            f"{values[-1]:.1f}", (steps[-1], values[-1]), (0, 9), textcoords="offset points", ha="center",
            color=palette.accent, fontweight="bold",
        )  # fmt: skip
        for name, value in (references or {}).items():
            axes.axhline(value, color=palette.muted, linewidth=1.2, linestyle=(0, (4, 4)))
            axes.annotate(
                f"{name} {value:.1f}", (steps[-1], value), (0, 4), textcoords="offset points", ha="right",
                color=palette.muted, fontsize=9,
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.set_ylim(0, max(max(values), *(references or {"": 0}).values()) * 1.18 + 1)
        axes.margins(x=0.02)

    return draw_picture(draw, size)
