"""One look for all pictures, drawn for two uses: a PNG to keep, an SVG in the colours of the page.

Charts are drawn by matplotlib with the roles of a `Palette` instead of colours. For the SVG each role is a
marker colour that is replaced by a CSS variable afterwards, so the picture turns dark when the page does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..errors import DependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "Palette", "Picture", "bare_axes", "draw_picture"]


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for."""

    ink: str
    muted: str
    line: str
    surface: str
    accent: str
    second: str
    third: str
    good: str
    bad: str


LIGHT = Palette(
    ink="#1c2430",
    muted="#667085",
    line="#d5dae3",
    surface="#ffffff",
    accent="#3b5bdb",
    second="#e8590c",
    third="#8a93a6",
    good="#2b8a3e",
    bad="#d6336c",
)
DARK = Palette(
    ink="#e8ebf1",
    muted="#98a2b5",
    line="#333c4d",
    surface="#171c26",
    accent="#8ea6ff",
    second="#ffa15c",
    third="#8a93a6",
    good="#69db7c",
    bad="#ff8fb3",
)
_MARKERS = Palette(**{field.name: f"#0d0e{number:02x}" for number, field in enumerate(fields(Palette), 16)})


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        png: file content, light colours on white.
        svg: an `<svg>` element whose colours are the CSS variables --ink, --accent and so on.
    """

    png: bytes
    svg: str


def draw_picture(
    draw: Callable[[Figure, Palette], None], size: tuple[float, float], *, png_dpi: int = 160
) -> Picture:
    """Draw twice, once a file type.

    Args:
        draw: puts axes and marks on the empty figure that it is given, in the colours of the palette.
        size: width and height in inches.
        png_dpi: dots an inch of the PNG.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(
            'pictures need matplotlib: install it with `pip install "videossl-hf[viz]"`'
        ) from error

    files = {}
    for kind, palette in (("png", LIGHT), ("svg", _MARKERS)):
        settings = {
            "font.family": "sans-serif",
            "font.size": 10,
            "svg.fonttype": "none",
            "svg.hashsalt": "videossl",
            "axes.edgecolor": palette.line,
            "axes.labelcolor": palette.muted,
            "axes.titlecolor": palette.ink,
            "text.color": palette.ink,
            "xtick.color": palette.line,
            "ytick.color": palette.line,
            "xtick.labelcolor": palette.muted,
            "ytick.labelcolor": palette.muted,
            "grid.color": palette.line,
            "legend.frameon": False,
        }
        with mpl.rc_context(settings):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure, palette)
            buffer = io.BytesIO()
            background = {"facecolor": "white"} if kind == "png" else {"transparent": True}
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=png_dpi, metadata=metadata, **background)
            files[kind] = buffer.getvalue()
    return Picture(files["png"], _themed(files["svg"].decode()))


def bare_axes(axes: Axes, palette: Palette) -> None:
    """Leave only what is read: no frame, horizontal grid lines, no tick marks."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(axis="y", color=palette.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _themed(svg: str) -> str:
    """The `<svg>` element with CSS variables for colours, in the page's font and the container's width."""
    svg = svg[svg.index("<svg") :]
    for field in fields(Palette):
        svg = svg.replace(getattr(_MARKERS, field.name), f"var(--{field.name})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font: (\d+) ([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r'\1width="100%"', svg, count=1)
