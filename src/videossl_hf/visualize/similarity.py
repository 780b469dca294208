"""Which sound goes with which clip: similarities between two modalities, with the clips beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..errors import InputError
from .theme import Palette, Picture, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["similarity_picture"]


def similarity_picture(
    similarity: Tensor,
    names: Sequence[str],
    *,
    row_images: Sequence[np.ndarray] = (),
    column_images: Sequence[np.ndarray] = (),
    row_label: str = "video",
    column_label: str = "sound",
    size: tuple[float, float] | None = None,
) -> Picture:
    """Cells are as strong as the similarity, within each row; the best of a row is ringed.

    Args:
        similarity: (pairs, pairs), the right pairs on the diagonal.
        names: one a pair.
        row_images: (height, width, 3) uint8 pictures shown beside the rows, or none.
        column_images: pictures shown under the columns, e.g. spectrograms, or none.
        row_label: what the rows are.
        column_label: what the columns are.
        size: inches; by default it grows with the number of pairs.

    Raises:
        InputError: names or pictures that do not fit the matrix.
    """
    pairs = len(names)
    if (
        similarity.shape != (pairs, pairs)
        or len(row_images) not in (0, pairs)
        or len(column_images) not in (0, pairs)
    ):
        raise InputError(
            f"{pairs} names, {len(row_images)} row and {len(column_images)} column pictures "
            f"for a matrix of {tuple(similarity.shape)}"
        )
    low, high = similarity.amin(dim=1, keepdim=True), similarity.amax(dim=1, keepdim=True)
    strength = ((similarity - low) / (high - low).clamp(min=1e-6)).square()
    best = similarity.argmax(dim=1).tolist()

    def draw(figure: Figure, palette: Palette) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.add_subplot()
        for row in range(pairs):
            for column in range(pairs):
                cell = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(cell, 0.92, 0.92, color=palette.line, alpha=0.25, linewidth=0))
                shade = strength[row, column].item()
                axes.add_patch(
                    Rectangle(cell, 0.92, 0.92, color=palette.accent, alpha=0.9 * shade, linewidth=0)
                )
            ring = palette.good if best[row] == row else palette.bad
            corner = (best[row] - 0.46, row - 0.46)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=ring, linewidth=2))
        for row, image in enumerate(row_images):
            axes.imshow(image, extent=(-1.5, -0.58, row + 0.46, row - 0.46), interpolation="bicubic")
        for column, image in enumerate(column_images):
            extent = (column - 0.46, column + 0.46, pairs + 0.5, pairs - 0.42)
            axes.imshow(image, extent=extent, interpolation="bicubic")
        axes.set_xlim(-1.55 if len(row_images) else -0.5, pairs - 0.5)
        axes.set_ylim(pairs + 0.55 if len(column_images) else pairs - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xticks(range(pairs), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(pairs), names)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw_picture(draw, size or (2.0 + 0.45 * pairs, 1.9 + 0.45 * pairs))
