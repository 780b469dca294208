"""Crops of a feature map, averaged to tokens, all crops of all samples in one product.

A box is `(time start, time end, top, bottom, left, right)` in steps, rows and columns of the map, ends
exclusive, the same for every sample of a batch. Boxes are tensors, so drawing and applying them never waits
for the device, and another box is no reason to compile again.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["counter_bits", "crop_starts", "pool_boxes", "window_size"]

_MASK_32 = 0xFFFFFFFF


def window_size(size: int, fraction: float) -> int:
    """Length of a crop along an axis of the map: `fraction` of `size`, rounded, at least 1."""
    return min(size, max(1, round(size * fraction)))


def counter_bits(seed: int, counter: Tensor, count: int) -> Tensor:
    """Random integers in [0, 2**32) that are a function of a seed, a counter and their own index.

    Args:
        seed: of the run.
        counter: int64 scalar tensor, such as the training step.
        count: how many.

    Returns:
        `(count,)` int64, on the counter's device. Computed by integer arithmetic alone: the same on every
        device and in every process, and no generator state has to be saved (a counter-based generator, Salmon
        et al., SC 2011; the mixing is that of MurmurHash3's finaliser).
    """
    index = torch.arange(1, count + 1, device=counter.device, dtype=torch.int64)
    x = _mix(index + _mix(counter + _mix(torch.full_like(counter, seed & _MASK_32) ^ (seed >> 32))))
    return x


def _mix(x: Tensor) -> Tensor:
    """Finaliser of MurmurHash3 on 32-bit values held in int64."""
    x = x & _MASK_32
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK_32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK_32
    return x ^ (x >> 16)


def crop_starts(bits: Tensor, size: int, window: int, legacy_range: bool = False) -> Tensor:
    """First index of a window in [0, size), one for each of `bits` (integers in [0, 2**32)).

    Args:
        legacy_range: leave out the last possible position, as the official STiCA code does.
    """
    positions = max(1, size - window + (0 if legacy_range else 1))
    return (bits * positions) >> 32


def _box_weights(boxes: Tensor, size: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> Tensor:
    """`(boxes, tokens, frames * height * width)`: what each place of the map adds to each token."""
    frames, height, width = size
    device = boxes.device
    time_start, time_end, top, bottom, left, right = boxes[:, :, None].unbind(1)

    def shares(start: Tensor, end: Tensor, length: int) -> Tensor:
        place = torch.arange(length, device=device)
        inside = (place >= start[..., None]) & (place < end[..., None])
        return inside.to(dtype) / (end - start)[..., None].to(dtype)

    # Adaptive average pooling along time: token n covers [floor(n*L/N), ceil((n+1)*L/N)) of L steps.
    token = torch.arange(tokens, device=device)
    steps = time_end - time_start
    over_time = shares(
        time_start + (token * steps) // tokens, time_start - (-(token + 1) * steps) // tokens, frames
    )
    over_rows = shares(top, bottom, height)
    over_columns = shares(left, right, width)
    weights = (
        over_time[:, :, :, None, None] * over_rows[:, :, None, :, None] * over_columns[:, :, None, None, :]
    )
    return weights.flatten(2)


def pool_boxes(feature_map: Tensor, boxes: Tensor, tokens: int) -> Tensor:
    """Crop and average a map as `adaptive_avg_pool3d(crop, (tokens, 1, 1))` does, for all boxes at once.

    Args:
        feature_map: `(batch, channels, frames, height, width)`.
        boxes: `(boxes, 6)` int64.
        tokens: steps that the time axis of each crop is resampled to.

    Returns:
        `(boxes, batch, tokens, channels)`, in float32 or better.
    """
    dtype = torch.promote_types(feature_map.dtype, torch.float32)
    frames, height, width = feature_map.shape[2:]
    weights = _box_weights(boxes, (frames, height, width), tokens, dtype)
    with torch.autocast(feature_map.device.type, enabled=False):
        places = feature_map.to(dtype).flatten(2).transpose(1, 2)
        pooled = weights.flatten(0, 1) @ places
    return pooled.unflatten(1, (boxes.shape[0], tokens)).transpose(0, 1)
