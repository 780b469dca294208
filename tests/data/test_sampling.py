from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.data.sampling import (
    dense_clip,
    evenly_spaced_clips,
    segment_middle_clip,
    segment_random_clip,
    source_stride,
    stica_clip_length,
    stica_clip_span,
    stica_frame_indices,
    three_crop_positions,
    uniform_clip,
)
from videossl_hf.errors import InputError

COUNTS = st.integers(1, 400)
LENGTHS = st.integers(1, 70)
STRIDES = st.one_of(st.integers(1, 9), st.floats(0.1, 9.0))
SEEDS = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


POLICIES: dict[str, Callable[[int, int, float, int], np.ndarray]] = {
    "dense": lambda n, length, stride, seed: dense_clip(n, length, stride, generator=seeded(seed)),
    "dense centre": lambda n, length, stride, seed: dense_clip(n, length, stride),
    "uniform": lambda n, length, stride, seed: uniform_clip(n, length),
    "segment random": lambda n, length, stride, seed: segment_random_clip(n, length, generator=seeded(seed)),
    "segment middle": lambda n, length, stride, seed: segment_middle_clip(n, length),
    "stica": lambda n, length, stride, seed: stica_frame_indices(
        n, length * stride, length, start=stica_clip_span(n, length * stride, generator=seeded(seed))[0]
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
@given(num_frames=COUNTS, length=LENGTHS, stride=STRIDES, seed=SEEDS)
def test_a_clip_has_its_length_stays_in_the_video_and_never_goes_back(
    policy: str, num_frames: int, length: int, stride: float, seed: int
) -> None:
    clip = POLICIES[policy](num_frames, length, stride, seed)

    assert clip.shape == (length,)
    assert clip.dtype == np.int64
    assert clip.min() >= 0
    assert clip.max() < num_frames
    assert (np.diff(clip) >= 0).all()


@pytest.mark.parametrize("policy", ["dense", "dense centre", "uniform", "segment random", "segment middle"])
@given(length=LENGTHS, seed=SEEDS, data=st.data())
def test_a_video_that_is_too_short_repeats_its_last_frame(
    policy: str, length: int, seed: int, data: st.DataObject
) -> None:
    num_frames = data.draw(st.integers(1, length))

    clip = POLICIES[policy](num_frames, length, 1.0, seed)

    np.testing.assert_array_equal(clip, np.minimum(np.arange(length), num_frames - 1))


@given(num_frames=COUNTS, length=LENGTHS, seed=SEEDS)
def test_equal_seeds_draw_equal_clips(num_frames: int, length: int, seed: int) -> None:
    for policy in POLICIES.values():
        first, second = policy(num_frames, length, 2.0, seed), policy(num_frames, length, 2.0, seed)
        np.testing.assert_array_equal(first, second)


def test_dense_clips_begin_everywhere_they_fit() -> None:
    generator = seeded(0)
    starts = {int(dense_clip(20, 4, 3, generator=generator)[0]) for _ in range(500)}
    assert starts == set(range(20 - 9))


def test_a_whole_stride_keeps_its_distance_and_a_fraction_is_rounded_down() -> None:
    np.testing.assert_array_equal(np.diff(dense_clip(100, 8, 4, generator=seeded(1))), 4)
    clip = dense_clip(100, 7, 5 / 3, generator=seeded(1))
    np.testing.assert_array_equal(clip - clip[0], [0, 1, 3, 5, 6, 8, 10])


def test_source_stride_follows_the_frame_rates() -> None:
    assert source_stride(60, 15) == 4
    assert source_stride(30, 15, 2) == 4
    assert source_stride(25, 30) == pytest.approx(5 / 6)


@given(num_frames=COUNTS, length=LENGTHS, stride=STRIDES, num_clips=st.integers(1, 12))
def test_evenly_spaced_clips_reach_from_the_first_frame_to_the_last(
    num_frames: int, length: int, stride: float, num_clips: int
) -> None:
    clips = evenly_spaced_clips(num_frames, length, stride, num_clips=num_clips)

    assert clips.shape == (num_clips, length)
    assert (np.diff(clips[:, 0]) >= 0).all()
    if num_clips > 1:
        assert clips[0, 0] == 0
        assert clips[-1, -1] == num_frames - 1 or clips[-1, 0] == 0


def test_one_test_clip_is_the_centre_one() -> None:
    np.testing.assert_array_equal(evenly_spaced_clips(11, 3, 2, num_clips=1), [[3, 5, 7]])


@given(num_frames=st.integers(2, 400), length=LENGTHS, seed=SEEDS)
def test_every_segment_gives_one_frame(num_frames: int, length: int, seed: int) -> None:
    if num_frames <= length:
        return
    edges = np.arange(length + 1) * num_frames // length
    drawn = segment_random_clip(num_frames, length, generator=seeded(seed))
    middles = segment_middle_clip(num_frames, length)

    assert (drawn >= edges[:-1]).all()
    assert (drawn < edges[1:]).all()
    assert (np.diff(middles) > 0).all()
    # As far from the first frame as from the last, up to the rounding of a half.
    assert abs(middles[0] - (num_frames - 1 - middles[-1])) <= 1


def test_segment_middles_and_uniform_frames_of_known_videos() -> None:
    np.testing.assert_array_equal(segment_middle_clip(30, 3), [5, 15, 25])
    np.testing.assert_array_equal(uniform_clip(31, 4), [0, 10, 20, 30])
    np.testing.assert_array_equal(uniform_clip(31, 1), [15])


@given(height=st.integers(1, 300), width=st.integers(1, 300), data=st.data())
def test_three_crops_lie_inside_and_reach_both_ends_of_the_longer_side(
    height: int, width: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, min(height, width)))

    crops = three_crop_positions(height, width, size)

    assert crops.shape == (3, 2)
    assert (crops >= 0).all()
    assert (crops + size <= [height, width]).all()
    longer = int(width >= height)
    assert crops[0, longer] == 0
    assert crops[2, longer] == (height, width)[longer] - size
    assert len(set(crops[:, 1 - longer])) == 1


def test_stica_places_its_ten_test_clips_like_the_official_code() -> None:
    # 41 frames, clips of 30: eleven frames of room, so test clip k begins at int(11 * k / 10).
    spans = [stica_clip_span(41, 30.0, clip_index=k) for k in range(10)]
    assert spans == [(float(k), float(k + 29)) for k in range(10)]


def test_a_stica_clip_spans_its_seconds_at_any_frame_rate() -> None:
    assert stica_clip_length(30, 30) == 30
    assert stica_clip_length(30, 25) == 25
    np.testing.assert_array_equal(
        stica_frame_indices(100, 25.0, 6, start=9.5), 10 + np.array([0, 4, 9, 14, 19, 24])
    )


@given(num_frames=COUNTS, length=st.floats(0.5, 120.0), seed=SEEDS)
def test_a_random_stica_span_lies_in_the_video_where_it_fits(
    num_frames: int, length: float, seed: int
) -> None:
    start, end = stica_clip_span(num_frames, length, generator=seeded(seed))
    assert 0 <= start <= max(num_frames - length, 0)
    assert end == pytest.approx(start + length - 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: dense_clip(0, 4),
        lambda: dense_clip(4, 0),
        lambda: dense_clip(4, 4, 0),
        lambda: uniform_clip(0, 1),
        lambda: source_stride(0, 15),
        lambda: evenly_spaced_clips(10, 2, num_clips=0),
        lambda: three_crop_positions(10, 20, 11),
        lambda: stica_clip_length(0, 30),
        lambda: stica_clip_span(10, 4.0),
        lambda: stica_clip_span(10, 4.0, generator=seeded(0), clip_index=1),
        lambda: stica_clip_span(10, 4.0, clip_index=10),
        lambda: stica_clip_span(0, 4.0, clip_index=1),
        lambda: stica_frame_indices(10, -1.0, 4),
    ],
)
def test_senseless_arguments_are_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
