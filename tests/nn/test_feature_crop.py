from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from videossl_hf.nn.feature_crop import counter_bits, crop_starts, pool_boxes, window_size


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_box_is_averaged_like_its_slice(data: st.DataObject) -> None:
    size = [data.draw(st.integers(1, 9)) for _ in range(3)]
    tokens = data.draw(st.integers(1, 10))
    boxes = []
    for _ in range(data.draw(st.integers(1, 4))):
        box = []
        for length in size:
            start = data.draw(st.integers(0, length - 1))
            box += [start, data.draw(st.integers(start + 1, length))]
        boxes.append(box)
    feature_map = torch.randn(2, 3, *size, dtype=torch.float64)
    pooled = pool_boxes(feature_map, torch.tensor(boxes), tokens)
    for box, found in zip(boxes, pooled, strict=True):
        t0, t1, top, bottom, left, right = box
        crop = feature_map[:, :, t0:t1, top:bottom, left:right]
        expected = F.adaptive_avg_pool3d(crop, (tokens, 1, 1)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(found, expected)


def test_gradients_reach_the_places_of_the_boxes_alone() -> None:
    feature_map = torch.randn(1, 2, 4, 5, 5, requires_grad=True)
    pool_boxes(feature_map, torch.tensor([[1, 3, 0, 2, 2, 5]]), 2).sum().backward()
    inside = torch.zeros(4, 5, 5, dtype=torch.bool)
    inside[1:3, 0:2, 2:5] = True
    assert (feature_map.grad[0, 0] != 0).equal(inside)


@pytest.mark.parametrize(
    ("size", "fraction", "window"),
    [(7, 6 / 7, 6), (7, 4 / 7, 4), (4, 3 / 4, 3), (4, 1 / 2, 2), (8, 3 / 4, 6), (8, 1 / 2, 4), (1, 1 / 2, 1)],
)
def test_fractions_give_the_published_windows(size: int, fraction: float, window: int) -> None:
    assert window_size(size, fraction) == window


@pytest.mark.parametrize(("legacy", "starts"), [(False, {0, 1, 2, 3}), (True, {0, 1, 2})])
def test_starts_cover_their_range_evenly(legacy: bool, starts: set[int]) -> None:
    drawn = crop_starts(counter_bits(31, torch.tensor(0), 4000), 7, 4, legacy)
    counts = drawn.bincount()
    assert {start for start, count in enumerate(counts.tolist()) if count} == starts
    assert counts.min() > 0.9 * 4000 / len(starts)


def test_a_window_as_large_as_the_map_starts_at_zero() -> None:
    assert crop_starts(counter_bits(0, torch.tensor(5), 100), 4, 4, legacy_range=True).eq(0).all()


def test_bits_are_a_function_of_seed_and_counter() -> None:
    bits = [counter_bits(seed, torch.tensor(step), 64) for seed, step in ((1, 2), (1, 3), (2, 2), (2**40, 2))]
    assert torch.equal(bits[0], counter_bits(1, torch.tensor(2), 64))
    assert all(bits_.min() >= 0 and bits_.max() < 2**32 for bits_ in bits)
    assert len({tuple(bits_.tolist()) for bits_ in bits}) == 4
    assert len(bits[0].unique()) == 64
