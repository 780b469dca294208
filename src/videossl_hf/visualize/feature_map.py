"""Features on a plane: clips that are alike to a model lie close together (t-SNE, van der Maaten and Hinton
2008).

Distances between far groups, and the size of a group, mean nothing in such a map; neighbourhoods do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DependencyError, InputError
from .theme import Palette, Picture, draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["map_picture", "plane_of", "spread_rows"]

# Twenty hues that are told apart on white and on black; classes beyond take turns.
_COLOURS = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d6a20c", "#ff8fa3", "#9d755d"),
    *("#7f8c9b", "#3f8efc", "#c2410c", "#2dd4bf", "#a855f7", "#84cc16", "#ec4899", "#0ea5e9", "#ca8a04"),
    *("#64748b", "#f43f5e"),
)


def plane_of(features: Tensor, *, seed: int = 0) -> np.ndarray:
    """Places (clips, 2) in [0, 1] of features (clips, width), by the cosine between them.

    Raises:
        DependencyError: scikit-learn is not installed.
        InputError: fewer than four clips.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise DependencyError(
            'a map of features needs scikit-learn: install it with `pip install "videossl-hf[eval]"`'
        ) from error
    if len(features) < 4:
        raise InputError(f"a map needs at least four clips, got {len(features)}")
    directions = F.normalize(features.double(), dim=1)
    distance = (1 - directions @ directions.T).clamp(min=0).fill_diagonal_(0)
    # Start from the two principal axes, found among the clips: features may be much wider than there are
    # clips.
    centred = directions - directions.mean(dim=0)
    start = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -2:].flip(1)
    start = 1e-4 * start / start.std(dim=0).clamp(min=1e-12)
    with threadpool_limits(1):  # threads that wait for each other cost more than they save here
        places = TSNE(
            perplexity=min(30.0, (len(features) - 1) / 3),
            metric="precomputed",
            init=start.float().numpy(),
            random_state=seed,
        ).fit_transform(distance.numpy())
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-9)


def spread_rows(places: np.ndarray, labels: Sequence[int]) -> list[int]:
    """A row of every class, one after the other as far as can be from those before, so that pictures at these
    places overlap little."""
    numbers = np.asarray(labels)
    rows: list[int] = []
    for label in sorted(set(numbers.tolist())):
        own = np.flatnonzero(numbers == label)
        if rows:
            distance = np.linalg.norm(places[own, None] - places[rows][None], axis=2).min(axis=1)
        else:
            distance = np.linalg.norm(places[own] - places.mean(axis=0), axis=1)
        rows.append(int(own[distance.argmax()]))
    return rows


def map_picture(
    maps: Mapping[str, np.ndarray],
    labels: Sequence[int],
    names: Sequence[str],
    thumbnails: Mapping[int, np.ndarray] | None = None,
    *,
    size: tuple[float, float] | None = None,
) -> Picture:
    """Maps side by side, a dot a clip in the colour of its class.

    Args:
        maps: title -> places (clips, 2), as `plane_of` gives them.
        labels: classes of the clips.
        names: of the classes.
        thumbnails: row -> small picture (height, width, 3) uint8 that is drawn at its place, in every map.
        size: inches.

    Raises:
        InputError: no map, or not as many labels as places.
    """
    if not maps or any(len(places) != len(labels) for places in maps.values()):
        raise InputError("maps need one place a clip, and one label")

    def draw(figure: Figure, palette: Palette) -> None:
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        numbers = np.asarray(labels)
        figure.set_layout_engine("constrained", wspace=0.06)
        for number, (title, places) in enumerate(maps.items(), 1):
            axes = figure.add_subplot(1, len(maps), number)
            for label in sorted(set(numbers.tolist())):
                own = places[numbers == label]
                colour = _COLOURS[label % len(_COLOURS)]
                axes.scatter(own[:, 0], own[:, 1], s=26, color=colour, alpha=0.85, linewidths=0,
                             label=str(names[label]))  # fmt: skip
            for row, picture in (thumbnails or {}).items():
                zoom = 26 / picture.shape[0]
                image = OffsetImage(picture, zoom=zoom)
                edge = {"edgecolor": _COLOURS[int(numbers[row]) % len(_COLOURS)], "linewidth": 2,
                        "boxstyle": "round,pad=0.05"}  # fmt: skip
                axes.add_artist(AnnotationBbox(image, places[row], pad=0.1, bboxprops=edge))
            axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlim(-0.06, 1.06)
            axes.set_ylim(-0.06, 1.06)
            for spine in axes.spines.values():
                spine.set_color(palette.line)
        handles, texts = axes.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=min(6, len(texts)), fontsize=9,
                      labelcolor=palette.ink, handletextpad=0.2)  # fmt: skip

    return draw_picture(draw, size or (4.6 * len(maps), 5.2))
