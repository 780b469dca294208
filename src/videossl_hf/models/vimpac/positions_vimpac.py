"""Position tables of VIMPAC, in three ways, and their interpolation to other clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_vimpac import VIMPACConfig

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
TABLES: dict[str, dict[str, tuple[int, ...]]] = {
    "axial": {"time": (0,), "rows": (1,), "columns": (2,)},
    "space_time": {"time": (0,), "places": (1, 2)},
    "joint": {"joint": (0, 1, 2)},
}
"""Mode -> its tables -> the axes (time, rows, columns) that each one runs over."""


class VIMPACPositions(nn.Module):
    """Learned positions: one of CLS, and tables whose entries are added up for every place.

    The tables are flat, `(entries, hidden)`, t-major.
    """

    def __init__(self, config: VIMPACConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.axes = TABLES[config.positions]
        self.cls = nn.Parameter(torch.empty(1, config.hidden_size))
        for name, axes in self.axes.items():
            entries = torch.Size(self.grid[axis] for axis in axes).numel()
            self.register_parameter(name, nn.Parameter(torch.empty(entries, config.hidden_size)))

    def tables(self) -> dict[str, nn.Parameter]:
        """The tables by name, without that of CLS."""
        return {name: getattr(self, name) for name in self.axes}

    def forward(self) -> Tensor:
        """`(1 + frames * rows * columns, hidden)`, CLS first."""
        total: Tensor | None = None
        for name, table in self.tables().items():
            shape = [self.grid[axis] if axis in self.axes[name] else 1 for axis in range(3)]
            placed = table.view(*shape, -1)
            total = placed if total is None else total + placed
        assert total is not None
        return torch.cat([self.cls, total.expand(*self.grid, -1).flatten(0, 2)])

    @torch.no_grad()
    def resize(self, grid: tuple[int, int, int]) -> None:
        """Interpolate the tables to clips of another number of frames, rows or columns."""
        for name, table in self.tables().items():
            axes = self.axes[name]
            before, after = ([sizes[axis] for axis in axes] for sizes in (self.grid, grid))
            resized = nn.Parameter(interpolate_table(table, before, after), table.requires_grad)
            self.register_parameter(name, resized)
        self.grid = grid


def interpolate_table(table: Tensor, before: list[int], after: list[int]) -> Tensor:
    """Linear interpolation of a table along each of its axes, corners not aligned, as the official code does.

    Args:
        table: `(entries, hidden)`, one entry for each place of a grid of size `before`; positions, or an
            optimiser's moments of them.
        before, after: sizes of the grid along its one to three axes.

    Returns:
        `(entries', hidden)`.
    """
    if before == after:
        return table.clone()
    placed = table.view(*before, -1).movedim(-1, 0)[None].float()
    mode = _INTERPOLATION[len(before)]
    resized = F.interpolate(placed, after, mode=mode, align_corners=False)
    return resized[0].movedim(0, -1).flatten(0, -2).to(table.dtype)


__all__ = ["TABLES", "VIMPACPositions", "interpolate_table"]
