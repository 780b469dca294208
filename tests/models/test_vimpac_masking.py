"""Masks: their statistics against the exact ones, their strategies, and that they cost little to draw."""

from __future__ import annotations

import itertools
import random
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import tiny_vimpac
from videossl_hf.errors import InputError
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.masking_vimpac import (
    IGNORED,
    LEFT_AS_IS,
    NOT_MASKED,
    apply_mask,
    cover,
    draw_mask_numbers,
    find_masked_positions,
    make_masks,
    place_boxes,
    replace_blocks,
)

# Expected share of masked places in % with 4 to 8 blocks, by frames and frame size (spec of the method).
RATIOS = {
    (5, 128): (11.82, 14.45, 16.96, 19.37, 21.67),
    (5, 256): (10.59, 12.96, 15.24, 17.42, 19.51),
    (10, 128): (10.40, 12.73, 14.97, 17.13, 19.19),
    (10, 256): (9.31, 11.42, 13.44, 15.39, 17.27),
}


def exact_marginal(grid: tuple[int, int, int], blocks: int) -> Tensor:
    """The probability that each place is masked: along an axis, all lengths and starts are equally likely."""
    along = []
    for size, longest in zip(grid, (2 * grid[0] // 3, grid[1] // 2, grid[2] // 2), strict=True):
        covered = torch.zeros(size, dtype=torch.float64)
        for length in range(1, longest + 1):
            for start in range(size - length + 1):
                covered[start : start + length] += 1 / (longest * (size - length + 1))
        along.append(covered)
    time_, rows, columns = along
    return 1 - (1 - time_[:, None, None] * rows[:, None] * columns) ** blocks


def drawn(config: VIMPACConfig, clips: int, seed: int = 0) -> Tensor:
    return make_masks(config, draw_mask_numbers(config, clips, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("frames", "size"), RATIOS)
def test_the_exact_ratios_are_the_published_ones(frames: int, size: int) -> None:
    for blocks, expected in zip(range(4, 9), RATIOS[frames, size], strict=True):
        ratio = 100 * exact_marginal((frames, size // 8, size // 8), blocks).mean()
        assert abs(float(ratio) - expected) < 0.006


def test_masks_have_the_exact_marginal_and_the_known_spread() -> None:
    config = VIMPACConfig()
    masks = torch.cat([drawn(config, 2000, seed) != NOT_MASKED for seed in range(5)])
    exact = exact_marginal(config.grid, config.mask_blocks)
    ratios = masks.flatten(1).float().mean(1)
    error = 3 * ratios.std() / len(ratios) ** 0.5
    assert abs(ratios.mean() - exact.mean()) < error
    assert 0.05 < ratios.std() < 0.06
    assert (masks.float().mean(0) - exact).abs().max() < 0.02
    assert exact[0, 0, 0] < 0.01 < 0.38 < exact[2, 8, 8]  # centre-heavy


@given(
    grid=st.tuples(*[st.integers(2, 12)] * 3),
    blocks=st.integers(1, 8),
    seed=st.integers(0, 2**31),
)
def test_boxes_lie_within_the_clip_and_keep_to_their_longest_sides(
    grid: tuple[int, int, int], blocks: int, seed: int
) -> None:
    boxes = place_boxes(torch.rand(3, blocks, 6, generator=torch.Generator().manual_seed(seed)), grid)
    starts, ends = boxes[..., 0::2], boxes[..., 1::2]
    longest = torch.tensor([2 * grid[0] // 3, grid[1] // 2, grid[2] // 2])
    assert (starts >= 0).all()
    assert (ends <= torch.tensor(grid)).all()
    assert ((ends - starts) >= 1).all()
    assert ((ends - starts) <= longest).all()
    expected = torch.zeros(3, *grid, dtype=torch.bool)
    for clip, block in itertools.product(range(3), range(blocks)):
        t0, t1, h0, h1, w0, w1 = boxes[clip, block].tolist()
        expected[clip, t0:t1, h0:h1, w0:w1] = True
    assert torch.equal(cover(boxes, grid) != 0, expected)


def test_random_numbers_at_both_ends_give_the_smallest_and_the_largest_box() -> None:
    ends = torch.tensor([[0.0] * 6, [1 - 2**-24] * 3 + [0.0] * 3, [1 - 2**-24] * 6])
    boxes = place_boxes(ends, (5, 16, 8))
    assert boxes.tolist() == [[0, 1, 0, 1, 0, 1], [0, 3, 0, 8, 0, 4], [2, 5, 8, 16, 4, 8]]


def test_blocks_need_two_frames_rows_and_columns() -> None:
    with pytest.raises(InputError, match="at least two"):
        place_boxes(torch.rand(1, 1, 6), (1, 8, 8))


def test_later_blocks_overwrite_earlier_ones_and_left_ones_do_nothing() -> None:
    boxes = torch.tensor([[0, 1, 0, 2, 0, 2], [0, 1, 0, 1, 0, 4], [0, 1, 0, 2, 3, 4]])
    codes = torch.arange(8).view(1, 2, 4)
    hide, fill, leave = 0.5, 0.85, 0.95

    def masks(*actions: float) -> list:
        return replace_blocks(boxes, torch.tensor(actions), codes + 10, 99).flatten().tolist()

    no, left = NOT_MASKED, LEFT_AS_IS
    assert masks(hide, fill, leave) == [10, 11, 12, 13, 99, 99, no, left]
    assert masks(fill, hide, fill) == [99, 99, 99, 13, 14, 15, no, 17]
    assert masks(leave, leave, leave) == [left, left, left, left, left, left, no, left]


def test_eight_blocks_in_ten_are_hidden_one_is_filled_one_is_left() -> None:
    config = tiny_vimpac.make_config(mask_strategy="block_replace", mask_blocks=1)
    masks = drawn(config, 4000)
    kinds = torch.stack(
        [
            (masks == kind).flatten(1).any(1).float().mean()
            for kind in (config.mask_code, LEFT_AS_IS, NOT_MASKED)
        ]
    )
    filled = ((masks >= 0) & (masks < config.num_codes)).flatten(1).any(1).float().mean()
    torch.testing.assert_close(kinds[:2], torch.tensor([0.8, 0.1]), atol=0.02, rtol=0)
    assert abs(filled - 0.1) < 0.02
    assert masks.max() == config.mask_code


def test_single_places_are_hidden_with_the_given_probability() -> None:
    config = tiny_vimpac.make_config(mask_strategy="iid", mask_ratio=0.3)
    masks = drawn(config, 2000)
    assert set(masks.unique().tolist()) == {NOT_MASKED, config.mask_code}
    assert abs((masks != NOT_MASKED).float().mean() - 0.3) < 0.005


def test_padding_is_neither_hidden_nor_asked() -> None:
    codes = torch.tensor([3, 25, 4, 25, 5])
    mask = torch.tensor([28, 28, LEFT_AS_IS, 7, NOT_MASKED])
    seen, labels = apply_mask(codes, mask, pad_code=25)
    assert seen.tolist() == [28, 25, 4, 25, 5]
    assert labels.tolist() == [3, IGNORED, 4, IGNORED, IGNORED]
    assert find_masked_positions(mask).tolist() == [0, 1, 2, 3]


def test_one_seed_gives_one_mask_whatever_else_is_drawn() -> None:
    config = tiny_vimpac.make_config()
    torch.rand(7)
    assert torch.equal(drawn(config, 3), drawn(config, 3))
    assert not torch.equal(drawn(config, 3), drawn(config, 3, seed=1))


def looped_masks(clips: int, grid: tuple[int, int, int], blocks: int) -> Tensor:
    """One block after the other, as one would write it first."""
    masks = torch.zeros(clips, *grid, dtype=torch.bool)
    longest = (2 * grid[0] // 3, grid[1] // 2, grid[2] // 2)
    for clip in range(clips):
        for _ in range(blocks):
            lengths = [random.randint(1, length) for length in longest]
            starts = [random.randint(0, size - length) for size, length in zip(grid, lengths, strict=True)]
            place = tuple(slice(s, s + n) for s, n in zip(starts, lengths, strict=True))
            masks[clip][place] = True
    return masks


def test_all_masks_of_a_batch_are_drawn_at_once() -> None:
    config = VIMPACConfig()

    def seconds(function: object, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            function()  # type: ignore[operator]
            times.append(time.thread_time() - start)
        return min(times)

    ours = seconds(lambda: drawn(config, 256), 20)
    looped = seconds(lambda: looped_masks(256, config.grid, config.mask_blocks), 3)
    assert looped / ours >= 5  # far less than is measured; the benchmark holds the figure
