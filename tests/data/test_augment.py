from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videossl_hf.data.augment import ClipAugmentation, augment_clips, draw_clip
from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.colour import adjust_brightness, adjust_contrast, adjust_saturation, gaussian_blur
from videossl_hf.data.official_draws import draw_official_box, draw_official_clip
from videossl_hf.data.seeds import mix_seeds, seeded_generator
from videossl_hf.data.spatial_crop import (
    centre_box,
    draw_crop_box,
    draw_resized_crop_box,
    resized_crop,
    short_side_size,
)
from videossl_hf.data.spec_augment import SPEC_AUGMENT, draw_spec_masks, fill_masks
from videossl_hf.errors import ConfigurationError, InputError

OFF = ClipAugmentation(
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    gray_probability=0.0,
    blur_probability=0.0,
)
sides = st.integers(2, 90)
seeds = st.integers(0, 2**40)


def clips(count: int, height: int = 20, width: int = 24, frames: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (frames, 3, height, width)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


def augmented(
    videos: list[torch.Tensor], augmentation: ClipAugmentation, sample_seeds: list[int], size: int = 14
) -> torch.Tensor:
    draws = [
        draw_clip(augmentation, *video.shape[-2:], size, seeded_generator(seed))
        for video, seed in zip(videos, sample_seeds, strict=True)
    ]
    legacy = augmentation.legacy_augmentations
    return augment_clips(videos, draws, size, mean=0.45, std=0.225, legacy=legacy)


@given(sides, sides, seeds)
def test_boxes_of_random_resized_crops_lie_inside_the_frame(height: int, width: int, seed: int) -> None:
    top, left, rows, columns = draw_resized_crop_box(
        height, width, (0.14, 1.0), (3 / 4, 4 / 3), seeded_generator(seed)
    )
    assert rows > 0
    assert columns > 0
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns


@given(st.integers(30, 200), st.integers(30, 200), seeds)
def test_boxes_keep_to_area_and_ratio(height: int, width: int, seed: int) -> None:
    box = draw_resized_crop_box(height, width, (0.3, 0.5), (3 / 4, 4 / 3), seeded_generator(seed))
    if box == centre_box(height, width, (3 / 4, 4 / 3)):
        return
    # Sides are rounded to pixels: half a pixel either way.
    low, high = ((box[2] + d) * (box[3] + d) / (height * width) for d in (-0.5, 0.5))
    assert low <= 0.5
    assert high >= 0.3
    assert (box[3] - 0.5) / (box[2] + 0.5) <= 4 / 3
    assert (box[3] + 0.5) / (box[2] - 0.5) >= 3 / 4


def test_every_position_of_a_box_is_drawn_the_last_one_included() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = {draw_crop_box(7, 6, 5, generator)[:2] for _ in range(300)}
    assert boxes == {(top, left) for top in range(3) for left in range(2)}


def test_a_ratio_that_never_fits_falls_back_to_the_centre() -> None:
    box = draw_resized_crop_box(10, 100, (1.0, 1.0), (3 / 4, 4 / 3), torch.Generator())
    assert box == (0, 43, 10, 13)
    assert centre_box(100, 10, (3 / 4, 4 / 3)) == (43, 0, 13, 10)


@given(sides, sides, st.integers(1, 64))
def test_short_side_size_keeps_the_ratio(height: int, width: int, short_side: int) -> None:
    rows, columns = short_side_size(height, width, short_side)
    assert min(rows, columns) == short_side
    assert abs(max(rows, columns) - max(height, width) / min(height, width) * short_side) < 1


def test_a_crop_is_cut_exactly_and_resized_as_torch_does() -> None:
    video = clips(1)[0]
    exact = resized_crop([video], [(3, 5, 8, 9)], (8, 9))
    assert torch.equal(exact[0], video[..., 3:11, 5:14].float())
    smaller = resized_crop([video], [(3, 5, 8, 9)], (4, 4))
    reference = torch.nn.functional.interpolate(
        video[..., 3:11, 5:14].float(), size=(4, 4), mode="bilinear", align_corners=False, antialias=False
    )
    assert torch.equal(smaller[0], reference)


@pytest.mark.parametrize("box", [(0, 0, 21, 5), (-1, 0, 5, 5), (0, 20, 5, 5), (0, 0, 0, 5)])
def test_a_box_outside_its_clip_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="leaves the frame"):
        resized_crop(clips(1), [box], (4, 4))


@pytest.mark.parametrize("legacy", [False, True])
def test_everything_off_is_normalisation_alone(legacy: bool) -> None:
    off = ClipAugmentation(**{**vars(OFF), "legacy_augmentations": legacy})
    videos = clips(2, 14, 14)
    result = augmented(videos, off, [1, 2])
    expected = (torch.stack(videos).float() / 255 - 0.45) / 0.225
    assert torch.allclose(result, expected, atol=1e-6)


@given(
    st.lists(seeds, min_size=2, max_size=4, unique=True),
    st.booleans(),
    st.sampled_from(["resized", "short_side"]),
)
@settings(max_examples=30, deadline=None)
def test_a_clip_comes_out_the_same_in_any_batch(sample_seeds: list[int], legacy: bool, crop: str) -> None:
    augmentation = ClipAugmentation(crop=crop, short_side=(14, 20), legacy_augmentations=legacy)
    videos = clips(len(sample_seeds))
    together = augmented(videos, augmentation, sample_seeds)
    for video, seed, row in zip(videos, sample_seeds, together, strict=True):
        assert torch.equal(augmented([video], augmentation, [seed])[0], row)


@given(seeds, st.booleans())
@settings(max_examples=30, deadline=None)
def test_all_frames_of_a_clip_are_treated_alike(seed: int, legacy: bool) -> None:
    frame = clips(1, frames=1)[0]
    video = frame.expand(4, -1, -1, -1)
    result = augmented([video], ClipAugmentation(legacy_augmentations=legacy), [seed])[0]
    assert torch.equal(result, result[:1].expand_as(result))


def test_clips_of_different_sizes_share_a_batch() -> None:
    videos = [*clips(1, 20, 24), *clips(1, 40, 30)]
    assert augmented(videos, ClipAugmentation(), [0, 1]).shape == (2, 3, 3, 14, 14)


def test_values_stay_in_range_by_default_and_may_leave_it_in_legacy_mode() -> None:
    videos = [torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)] * 2
    draw = ClipDraw(box=(0, 0, 16, 16), jitter=(("brightness", 1.4),))
    clamped = augment_clips(videos, [draw] * 2, 16, mean=0.0, std=1.0)
    assert clamped.max() == 1
    legacy = augment_clips(videos, [draw] * 2, 16, mean=0.45, std=0.225, legacy=True)
    assert torch.allclose(legacy, torch.tensor((1 - 0.45) / 0.225 * 1.4))


@given(seeds)
def test_switching_one_step_off_leaves_the_others_as_they_were(seed: int) -> None:
    full = draw_clip(ClipAugmentation(), 30, 40, 14, seeded_generator(seed))
    less = draw_clip(
        ClipAugmentation(brightness=0.0, flip_probability=0.0, blur_probability=0.0),
        30, 40, 14, seeded_generator(seed),
    )  # fmt: skip
    assert (less.box, less.gray) == (full.box, full.gray)
    assert less.jitter == tuple(step for step in full.jitter if step[0] != "brightness")
    assert not less.flip
    assert less.blur is None


def test_probabilities_and_ranges_are_those_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [draw_clip(ClipAugmentation(), 64, 64, 14, generator) for _ in range(2000)]
    for name, probability in [("flip", 0.5), ("jitter", 0.8), ("gray", 0.2), ("blur", 0.5)]:
        share = np.mean([bool(getattr(draw, name)) for draw in draws])
        assert abs(share - probability) < 0.05, name
    factors = [factor for draw in draws for _, factor in draw.jitter]
    assert min(factors) == pytest.approx(0.6, abs=0.01)
    assert max(factors) == pytest.approx(1.4, abs=0.01)
    assert {tuple(name for name, _ in draw.jitter) for draw in draws if draw.jitter} == {
        ("brightness", "contrast", "saturation"), ("brightness", "saturation", "contrast"),
        ("contrast", "brightness", "saturation"), ("contrast", "saturation", "brightness"),
        ("saturation", "brightness", "contrast"), ("saturation", "contrast", "brightness"),
    }  # fmt: skip
    sigmas = [draw.blur[0] for draw in draws if draw.blur]
    assert min(sigmas) == pytest.approx(0.1, abs=0.02)
    assert max(sigmas) == pytest.approx(2.0, abs=0.02)


def test_short_side_crops_do_not_fit_below_their_size() -> None:
    with pytest.raises(InputError, match="raise short_side"):
        draw_clip(ClipAugmentation(crop="short_side", short_side=(10, 20)), 30, 40, 14, torch.Generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "centre"},
        {"crop_area": (0.5, 0.2)},
        {"crop_area": (0.0, 1.0)},
        {"crop_ratio": (1.0,)},
        {"flip_probability": 1.5},
        {"brightness": -0.1},
        {"blur_kernel": 4},
        {"blur_sigma": (0.0, 1.0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigurationError):
        ClipAugmentation(**wrong)


def test_lists_from_a_recipe_become_tuples() -> None:
    assert ClipAugmentation(crop_area=[0.5, 1.0]).crop_area == (0.5, 1.0)


def test_factor_one_changes_nothing_and_factor_zero_removes_the_property() -> None:
    video = torch.rand(2, 3, 3, 8, 8)
    for adjust in (adjust_brightness, adjust_contrast, adjust_saturation):
        assert torch.equal(adjust(video, 1.0), video)
    assert torch.equal(adjust_brightness(video, 0.0), torch.zeros_like(video))
    assert adjust_contrast(video, 0.0).flatten(2).std(dim=-1).max() < 1e-6
    assert adjust_saturation(video, 0.0).std(dim=2).max() < 1e-6


def test_blur_equals_a_convolution_with_reflected_borders_for_each_strength() -> None:
    video = torch.rand(2, 2, 3, 12, 9, dtype=torch.float64)
    rows, columns = torch.tensor([0.5, 1.7]), torch.tensor([1.1, 0.4])
    result = gaussian_blur(video, rows, columns, kernel_size=7)
    for index in range(2):
        taps = torch.arange(-3, 4, dtype=torch.float64)
        kernels = [torch.exp(-(taps**2) / (2 * float(s) ** 2)) for s in (rows[index], columns[index])]
        kernel = torch.outer(*(k / k.sum() for k in kernels))
        planes = torch.nn.functional.pad(video[index].flatten(0, 1)[:, None], (3, 3, 3, 3), mode="reflect")
        expected = torch.nn.functional.conv2d(planes, kernel[None, None]).reshape(video[index].shape)
        assert torch.allclose(result[index], expected, atol=1e-7)


def test_blur_refuses_kernels_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="odd"):
        gaussian_blur(torch.rand(1, 1, 3, 4, 4), 1.0, 1.0, kernel_size=9)


def test_tiny_frames_are_blurred_with_a_narrower_kernel() -> None:
    draw = ClipDraw(box=(0, 0, 4, 4), blur=(1.0, 1.0))
    assert augment_clips(clips(1, 4, 4), [draw], 4, mean=0.0, std=1.0).isfinite().all()


def test_number_of_draws_must_equal_that_of_clips() -> None:
    with pytest.raises(InputError, match="one draw a clip"):
        augment_clips(clips(2), [ClipDraw((0, 0, 4, 4))], 4, mean=0.0, std=1.0)


def test_official_order_repeats_from_its_seeds() -> None:
    augmentation = ClipAugmentation(legacy_augmentations=True)

    def draw(crop: str) -> ClipDraw:
        chosen = ClipAugmentation(**{**vars(augmentation), "crop": crop, "short_side": (30, 40)})
        return draw_official_clip(
            chosen, 60, 84, 28, torch.Generator().manual_seed(51), np.random.RandomState(51)
        )

    assert draw("resized") == draw("resized")
    # The first box after torch.manual_seed(51), as torchvision draws it.
    assert draw("resized").box == (6, 33, 54, 49)
    assert min(draw("short_side").resize) in range(30, 41)


def test_official_square_crops_never_take_the_last_position() -> None:
    augmentation = ClipAugmentation(crop="short_side", short_side=(10, 10))
    numbers = np.random.RandomState(0)
    tops = {
        draw_official_clip(augmentation, 10, 12, 8, torch.Generator(), numbers).box[:2] for _ in range(200)
    }
    assert tops == {(top, left) for top in range(2) for left in range(4)}


def test_official_boxes_fall_back_to_the_centre() -> None:
    box = draw_official_box(10, 100, (1.0, 1.0), (3 / 4, 4 / 3), torch.Generator())
    assert box == (0, 43, 10, 13)


@given(st.sampled_from(list(SPEC_AUGMENT)), st.integers(1, 60), st.integers(1, 60), seeds, st.booleans())
def test_masks_stay_inside_and_within_their_width(
    strength: str, rows: int, steps: int, seed: int, legacy: bool
) -> None:
    setting = SPEC_AUGMENT[strength]
    masks = draw_spec_masks(strength, rows, steps, seeded_generator(seed), legacy_width=legacy)
    assert len(masks) == setting.frequency_masks + setting.time_masks
    for kind, start, width in masks:
        size = rows if kind == "frequency" else steps
        bound = setting.frequency_width if kind == "frequency" else setting.time_width
        assert 0 <= width <= bound - legacy
        assert 0 <= start <= size - width


def test_the_largest_width_is_drawn_except_in_legacy_mode() -> None:
    def widest(legacy: bool) -> int:
        generator = torch.Generator().manual_seed(0)
        masks = (draw_spec_masks("mild", 40, 99, generator, legacy_width=legacy)[0] for _ in range(200))
        return max(width for _, _, width in masks)

    assert (widest(False), widest(True)) == (2, 1)


def test_masks_are_filled_with_zero_and_nothing_else_changes() -> None:
    spectrograms = torch.rand(2, 1, 6, 7) + 1
    masked = fill_masks(spectrograms, [[("frequency", 1, 2)], [("time", 4, 3), ("frequency", 0, 0)]])
    assert (masked[0, :, 1:3] == 0).all()
    assert (masked[1, ..., 4:] == 0).all()
    assert int((masked == 0).sum()) == 2 * 7 + 3 * 6
    assert torch.equal(masked[masked != 0], spectrograms[masked != 0])
    assert (spectrograms > 0).all()


def test_an_unknown_strength_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mild"):
        draw_spec_masks("strong", 40, 99, torch.Generator())


@given(st.lists(st.integers(-(2**63), 2**63), min_size=1, max_size=4))
def test_mixed_seeds_fit_a_generator_and_depend_on_every_part(parts: list[int]) -> None:
    seed = mix_seeds(*parts)
    assert 0 <= seed < 2**63
    assert mix_seeds(*parts, 0) != seed
    assert mix_seeds(*parts[:-1], parts[-1] + 1) != seed
    seeded_generator(*parts)


def test_neighbouring_seeds_share_no_low_bits() -> None:
    """torch's CPU generator only looks at the lower 32 bits."""
    low = {mix_seeds(0, 0, index) % 2**32 for index in range(10_000)}
    assert len(low) > 9_990
