"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import InputError
from .theme import Palette, Picture, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_picture"]


def confusion_picture(
    counts: Tensor, names: Sequence[str], *, size: tuple[float, float] | None = None
) -> Picture:
    """Rows are true classes, columns predicted ones; a cell is as strong as its share of the row, in percent.

    Args:
        counts: (classes, classes) as `confusion_matrix` returns them.
        names: of the classes.
        size: inches; by default it grows with the number of classes.

    Raises:
        InputError: the names do not fit the counts.
    """
    if counts.shape != (len(names), len(names)):
        raise InputError(f"{len(names)} names for a confusion matrix of {tuple(counts.shape)}")
    share = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = 1.6 + 0.42 * len(names)

    def draw(figure: Figure, palette: Palette) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.add_subplot()
        for row in range(len(names)):
            for column in range(len(names)):
                value = share[row, column].item()
                colour = palette.accent if row == column else palette.second
                cell = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(cell, 0.92, 0.92, color=palette.line, alpha=0.25, linewidth=0))
                axes.add_patch(Rectangle(cell, 0.92, 0.92, color=colour, alpha=0.9 * value, linewidth=0))
                if value >= 0.005:
                    axes.text(
                        column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8.5,
                        color=palette.surface if value > 0.55 else palette.ink,
                    )  # fmt: skip
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw_picture(draw, size or (side, side))
