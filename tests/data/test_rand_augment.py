"""RandAugment: what is drawn, and what each operation does to a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videossl_hf.data.rand_augment import OPERATIONS, apply_operations, draw_operations


def drawn(count: int, magnitude: float = 7, spread: float = 0.5, seed: int = 0) -> tuple:
    return draw_operations(count, magnitude, spread, torch.Generator().manual_seed(seed))


def frames(count: int = 2, seed: int = 0) -> np.ndarray:
    """Noise of middling values."""
    return np.random.default_rng(seed).integers(60, 180, (count, 24, 32, 3), dtype=np.uint8)


def test_half_of_what_is_drawn_is_left_out_and_all_operations_come_up() -> None:
    operations = drawn(3000)
    assert 1400 < len(operations) < 1600
    names = [name for name, _ in operations]
    assert set(names) == set(OPERATIONS)
    assert len(OPERATIONS) == 15
    assert min(names.count(name) for name in OPERATIONS) > 60  # 100 expected


def test_strengths_are_normal_around_the_magnitude_in_both_directions() -> None:
    strengths = np.array([strength for _, strength in drawn(4000)])
    assert 0.45 < (strengths > 0).mean() < 0.55
    assert abs(np.abs(strengths).mean() - 0.7) < 0.01
    assert abs(np.abs(strengths).std() - 0.05) < 0.005


def test_strengths_stay_in_their_range() -> None:
    strengths = np.abs([strength for _, strength in drawn(500, magnitude=9.9, spread=5)])
    assert strengths.max() == 1
    assert strengths.min() == 0


def test_a_draw_is_the_same_whenever_its_seed_is() -> None:
    assert drawn(4, seed=3) == drawn(4, seed=3)
    assert drawn(4, seed=3) != drawn(4, seed=4)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.7, 1.0])
def test_every_operation_changes_frames_and_keeps_their_form(name: str, strength: float) -> None:
    given = frames()
    kept = given.copy()
    changed = apply_operations(given, [(name, strength)])
    assert changed.shape == given.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(given, kept)
    assert (changed != given).any()


def test_the_frames_of_a_clip_are_treated_alike() -> None:
    clip = np.repeat(frames(1), 3, axis=0)
    changed = apply_operations(clip, drawn(20))
    assert all(np.array_equal(frame, changed[0]) for frame in changed)


def test_operations_follow_one_another() -> None:
    steps = [("invert", 1.0), ("translate_x", 0.5), ("solarize", 0.25)]
    one_by_one = frames()
    for step in steps:
        one_by_one = apply_operations(one_by_one, [step])
    assert np.array_equal(apply_operations(frames(), steps), one_by_one)


def test_nothing_drawn_gives_the_very_same_frames() -> None:
    given = frames()
    assert apply_operations(given, ()) is given


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("invert", 0.3, [255, 155, 127, 0]),
        ("posterize", 0.5, [0, 64, 128, 192]),  # two bits are left
        ("posterize", -1.0, [0, 0, 0, 0]),
        ("solarize", 0.5, [0, 100, 127, 0]),  # from 128 on
        ("solarize_add", 0.1, [11, 111, 128, 255]),
        ("brightness", -1.0, [0, 10, 12, 25]),
        ("brightness", 1.0, [0, 190, 243, 255]),
    ],
)
def test_values_are_what_the_operation_says(name: str, strength: float, expected: list[int]) -> None:
    gray = np.array([0, 100, 128, 255], dtype=np.uint8)
    clip = np.broadcast_to(gray[None, None, :, None], (1, 2, 4, 3)).copy()
    changed = apply_operations(clip, [(name, strength)])
    assert np.abs(changed[0, 0, :, 0].astype(int) - expected).max() <= 1


def test_a_moved_frame_is_filled_with_the_colour_given() -> None:
    clip = np.full((1, 10, 20, 3), 200, dtype=np.uint8)
    moved = apply_operations(clip, [("translate_x", 1.0)], (1, 2, 3))  # by 9 of 20 pixels
    assert (moved[0, :, :10] == 200).all()
    assert (moved[0, :, 12:] == [1, 2, 3]).all()
    down = apply_operations(clip, [("translate_y", -1.0)], (1, 2, 3))  # by 4.5 of 10
    assert (down[0, :4] == [1, 2, 3]).all()
    assert (down[0, 6:] == 200).all()


def test_shears_move_rows_and_columns_in_proportion_to_their_place() -> None:
    """A white line down the middle leans by 0.3 pixels a row, and one across by 0.3 a column."""
    upright = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    upright[:, :, 20] = 255
    leaning = apply_operations(upright, [("shear_x", 1.0)])[0, :, :, 0]
    assert np.abs(leaning.argmax(axis=1) - (20 - 0.3 * np.arange(40))).max() <= 1
    falling = apply_operations(upright.transpose(0, 2, 1, 3).copy(), [("shear_y", 1.0)])[0, :, :, 0]
    assert np.array_equal(falling, leaning.T)
