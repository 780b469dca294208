"""Which codes of a clip are hidden: cuboids, single places, or cuboids of which some are replaced or left.

A mask is an int32 tensor of the shape of the codes: `NOT_MASKED` where nothing happens, `LEFT_AS_IS` where
the code stays but is to be predicted, else the id that stands in the code's place. Masks are drawn on the
host, for all clips of a batch at once and from uniform random numbers that the caller may draw for every
sample by itself; nothing here depends on the codes, so that it works before they exist. Blocks are placed by
NumPy, whose operations on such small arrays start sooner than torch's, with the clips along the last axis of
its arrays, since its loops are slow over short ones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from .configuration_vimpac import VIMPACConfig

NOT_MASKED = -1
LEFT_AS_IS = -2
IGNORED = -100

_BITS = 7  # of a byte without its sign
_BYTES = 8  # of an int64
_ALL_BYTES = np.int64(0x0101010101010101)  # times a byte: the byte in all eight places

_MASKED_SHARE = 0.8
_REPLACED_SHARE = 0.9


class MaskDraws(NamedTuple):
    """The random numbers of masks, each uniform in [0, 1); what a strategy does not need is None.

    Attributes:
        boxes: `(..., blocks, 6)`: lengths in time, height and width, then starts.
        actions: `(..., blocks)`: what happens in each block ("block_replace").
        places: `(..., frames, rows, columns)`: whether a place is hidden ("iid"), or its random code
            ("block_replace").
    """

    boxes: Tensor | None = None
    actions: Tensor | None = None
    places: Tensor | None = None


def draw_mask_numbers(
    config: VIMPACConfig,
    clips: int,
    generator: torch.Generator | None = None,
    grid: tuple[int, int, int] | None = None,
) -> MaskDraws:
    """The random numbers for the masks of `clips` clips; axis 0 of each is the clips.

    Args:
        grid: frames, rows and columns; the configuration's by default.
    """
    size = grid or config.grid
    if config.mask_strategy == "iid":
        return MaskDraws(places=torch.rand(clips, *size, generator=generator))
    boxes = torch.rand(clips, config.mask_blocks, 6, generator=generator)
    if config.mask_strategy == "block":
        return MaskDraws(boxes=boxes)
    actions = torch.rand(clips, config.mask_blocks, generator=generator)
    return MaskDraws(boxes, actions, torch.rand(clips, *size, generator=generator))


def stack_draws(draws: Sequence[MaskDraws], dim: int = 0) -> MaskDraws:
    """The numbers of several samples as those of a batch, with the samples along axis `dim`."""
    return MaskDraws(*(None if of[0] is None else torch.stack(of, dim) for of in zip(*draws, strict=True)))


def make_masks(config: VIMPACConfig, draws: MaskDraws, grid: tuple[int, int, int] | None = None) -> Tensor:
    """Masks `(..., frames, rows, columns)` of `MaskDraws`."""
    size = grid or config.grid
    mask_code = config.mask_code or 0
    if draws.boxes is None:
        assert draws.places is not None
        return _hide(draws.places < config.mask_ratio, mask_code)
    boxes = place_boxes(draws.boxes, size)
    if draws.actions is None or draws.places is None:
        return _hide(cover(boxes, size).bool(), mask_code)
    random_codes = (draws.places * config.num_codes).long()
    return replace_blocks(boxes, draws.actions, random_codes, mask_code)


def _hide(hidden: Tensor, mask_code: int) -> Tensor:
    """`mask_code` where hidden, else `NOT_MASKED`, which is all bits: several times faster than `where`.
    `hidden` is used up."""
    is_shown = hidden.numpy().view(np.int8)
    is_shown -= np.int8(1)  # 0 or all bits
    masks = is_shown.astype(np.int32)
    masks |= np.int32(mask_code)
    return torch.from_numpy(masks)


def place_boxes(numbers: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Cuboids from uniform random numbers.

    A length is uniform in 1 .. floor(2/3 of the frames), 1 .. floor(half of the rows or columns); a start is
    uniform over all places at which a cuboid of that length fits.

    Args:
        numbers: `(..., blocks, 6)` in [0, 1).

    Returns:
        `(..., blocks, 6)` int16: (start, end) in time, rows and columns, ends exclusive.
    """
    if min(grid) < 2:
        raise InputError(f"blocks need at least two frames, rows and columns; the codes are {grid}")
    size, longest = _sides(grid)
    values = np.ascontiguousarray(numbers.numpy().reshape(-1, *numbers.shape[-2:]).T)
    boxes = np.empty(values.shape, np.int16)
    lengths = (values[:3] * longest).astype(np.int16)
    lengths += 1
    boxes[0::2] = values[3:] * (size + 1 - lengths)
    np.add(boxes[0::2], lengths, out=boxes[1::2])
    return torch.from_numpy(boxes.T).reshape(numbers.shape)


@functools.cache
def _sides(grid: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """How many places there are along each axis, and the longest side of a block: `(3, 1, 1)`."""
    frames, rows, columns = grid
    longest = (2 * frames // 3, rows // 2, columns // 2)
    return tuple(np.array(sides, np.float32).reshape(3, 1, 1) for sides in (grid, longest))


def cover(boxes: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Which boxes cover a place, as the bits of an integer: bit k is set where box k does.

    Args:
        boxes: `(..., blocks, 6)`, at most 62 blocks.

    Returns:
        `(..., frames, rows, columns)`, int8 of up to seven blocks, else int64. A place lies in a box if it
        does along every axis, so three short rows of bits are all there is to compute.
    """
    blocks = boxes.shape[-2]
    if blocks > _BITS:
        rest = cover(boxes[..., _BITS:, :], grid).long() << _BITS
        return cover(boxes[..., :_BITS, :], grid) | rest
    frames, height, width = grid
    side = -(-max(grid) // _BYTES) * _BYTES
    corners = boxes.numpy().reshape(-1, blocks, 6).T
    # Eight places at a time, a byte each: which box covers them along each axis, and then together.
    between = corners[0::2].astype(np.intp)
    between *= side + 1
    between += corners[1::2]
    lines = _lines(side)[between]
    lines <<= np.arange(blocks)[:, None, None]
    along = np.bitwise_or.reduce(lines, axis=1)
    of_byte = along.view(np.int8)
    time = of_byte[0, :, :frames].astype(np.int64) * _ALL_BYTES
    rows = of_byte[1, :, :height].astype(np.int64) * _ALL_BYTES
    of_frame = np.empty((*rows.shape, along.shape[-1]), np.int64)
    for eight in range(along.shape[-1]):
        np.bitwise_and(rows, along[2, :, eight, None], out=of_frame[..., eight])
    covering = time[..., None, None] & of_frame[:, None]
    found = torch.from_numpy(covering.view(np.int8)[..., :width])
    return found.reshape(*boxes.shape[:-2], *grid)


@functools.cache
def _lines(side: int) -> np.ndarray:
    """`((side + 1)**2, side / 8)` int64: entry start * (side + 1) + end has a byte for each place, 1 from
    start up to end, else 0."""
    ends, place = np.arange(side + 1), np.arange(side)
    inside = (place >= ends[:, None, None]) & (place < ends[:, None])
    return inside.astype(np.int8).view(np.int64).reshape(-1, side // _BYTES)


def replace_blocks(boxes: Tensor, actions: Tensor, random_codes: Tensor, mask_code: int) -> Tensor:
    """Masks of blocks that are hidden, filled with random codes, or left; later ones overwrite earlier ones.

    Args:
        boxes: `(..., blocks, 6)`.
        actions: `(..., blocks)` in [0, 1): below 0.8 hides the block, below 0.9 fills it, else it is left.
        random_codes: `(..., frames, rows, columns)`, what a block is filled with.
    """
    frames, rows, columns = random_codes.shape[-3:]
    covering = cover(boxes, (frames, rows, columns))
    masks = torch.where(covering != 0, LEFT_AS_IS, NOT_MASKED).int()
    for block in range(boxes.shape[-2]):
        inside = (covering >> block) & 1 == 1
        action = actions[..., block, None, None, None]
        masks = torch.where(inside & (action < _MASKED_SHARE), mask_code, masks)
        fills = (action >= _MASKED_SHARE) & (action < _REPLACED_SHARE)
        masks = torch.where(inside & fills, random_codes, masks)
    return masks


def apply_mask(codes: Tensor, mask: Tensor, pad_code: int) -> tuple[Tensor, Tensor]:
    """The codes that the model sees, and its labels: -100 wherever nothing is asked.

    Padding is neither hidden nor asked.
    """
    asked = (mask != NOT_MASKED) & (codes != pad_code)
    seen = torch.where(asked & (mask != LEFT_AS_IS), mask, codes)
    return seen, torch.where(asked, codes, IGNORED)


def find_masked_positions(mask: Tensor) -> Tensor:
    """Flat positions of all masked places, `(masked,)` int64.

    Their number depends on the values: on a mask that lies on a GPU this waits for it.
    """
    return (mask != NOT_MASKED).flatten().nonzero().squeeze(1)


__all__ = [
    "IGNORED",
    "LEFT_AS_IS",
    "NOT_MASKED",
    "MaskDraws",
    "apply_mask",
    "cover",
    "draw_mask_numbers",
    "find_masked_positions",
    "make_masks",
    "place_boxes",
    "replace_blocks",
    "stack_draws",
]
