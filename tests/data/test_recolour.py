from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videossl_hf.data.clip_draw import ClipDraw
from videossl_hf.data.colour import luminance, shift_brightness
from videossl_hf.data.hsv import hsv_to_rgb, rgb_to_hsv, scale_saturation, shift_hue
from videossl_hf.data.recolour import SHIFTED_COLOURS, blended_colours, recolour_clips

channels = st.floats(0, 1, width=32)


def pixel(*values: float) -> torch.Tensor:
    """One clip of one pixel, in double precision."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 3, 1, 1)


def whole(**choices: object) -> ClipDraw:
    return ClipDraw(box=(0, 0, 8, 8), **choices)


@given(channels, channels, channels)
def test_hsv_is_that_of_the_standard_library_there_and_back(red: float, green: float, blue: float) -> None:
    hue, saturation, value = rgb_to_hsv(pixel(red, green, blue))
    expected = torch.tensor(colorsys.rgb_to_hsv(red, green, blue), dtype=torch.float64)
    found = torch.stack([hue, saturation, value]).flatten()
    turns = (found[0] - expected[0] + 0.5).remainder(1) - 0.5
    assert abs(turns) < 1e-9
    assert torch.allclose(found[1:], expected[1:], atol=1e-9)
    assert torch.allclose(hsv_to_rgb(hue, saturation, value), pixel(red, green, blue), atol=1e-9)


@given(channels, channels, channels, st.floats(-0.5, 0.5))
def test_turning_the_hue_keeps_saturation_and_value(
    red: float, green: float, blue: float, turns: float
) -> None:
    before = pixel(red, green, blue)
    turned = shift_hue(before, turns)
    assert torch.allclose(shift_hue(turned, -turns), before, atol=1e-6)
    for found, expected in zip(rgb_to_hsv(turned)[1:], rgb_to_hsv(before)[1:], strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_known_colours_turn_into_their_neighbours() -> None:
    red, green, blue = pixel(1, 0, 0), pixel(0, 1, 0), pixel(0, 0, 1)
    assert torch.allclose(shift_hue(red, 1 / 3), green, atol=1e-9)
    assert torch.allclose(shift_hue(red, -1 / 3), blue, atol=1e-9)
    assert torch.allclose(shift_hue(red, 0.5), pixel(0, 1, 1), atol=1e-9)
    assert torch.equal(shift_hue(pixel(0.3, 0.3, 0.3), 0.4), pixel(0.3, 0.3, 0.3))


def test_saturation_in_hsv_keeps_the_value_where_blending_keeps_the_luminance() -> None:
    clip = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    scaled = scale_saturation(clip, torch.tensor([0.5, 0.0]))
    assert torch.allclose(scaled.amax(2), clip.amax(2))
    assert torch.allclose(scaled[1].amin(1), clip[1].amax(1))
    assert torch.equal(scale_saturation(clip, 5.0).clamp(0, 1), scale_saturation(clip, 5.0))
    blended = blended_colours()["saturation"](clip, torch.tensor(0.5))
    assert torch.allclose(luminance(blended), luminance(clip), atol=1e-3)


def test_the_old_brightness_is_added_and_the_old_contrast_multiplied() -> None:
    clip = torch.rand(2, 1, 3, 4, 4)
    factors = torch.tensor([1.25, 0.75])
    assert torch.allclose(shift_brightness(clip, factors)[1], clip[1] - 0.25)
    assert torch.allclose(SHIFTED_COLOURS["brightness"](clip, factors)[0], clip[0] + 0.25)
    assert torch.allclose(SHIFTED_COLOURS["contrast"](clip, factors)[1], clip[1] * 0.75)


@pytest.mark.parametrize("colours", [None, SHIFTED_COLOURS])
def test_the_order_of_the_steps_and_of_the_jitter_counts(colours: dict | None) -> None:
    draw = whole(gray=True, jitter=(("hue", 0.3), ("saturation", 1.4), ("brightness", 1.2)))
    clip = torch.rand(1, 2, 3, 8, 8)
    first, last = clip.clone(), clip.clone()
    recolour_clips(first, [draw], steps=("gray", "jitter"), colours=colours)
    recolour_clips(last, [draw], steps=("jitter", "gray"), colours=colours)
    for result in (first, last):
        assert torch.allclose(result[:, :, 0], result[:, :, 2], atol=1e-6)  # gray either way
    assert not torch.allclose(first, last)
    one, other = clip.clone(), clip.clone()
    recolour_clips(one, [whole(jitter=(("brightness", 1.4), ("contrast", 0.6)))], colours=colours)
    recolour_clips(other, [whole(jitter=(("contrast", 0.6), ("brightness", 1.4)))], colours=colours)
    assert not torch.allclose(one, other)


def test_frames_can_be_treated_as_clips_and_then_have_their_own_draws() -> None:
    clips = torch.rand(2, 3, 3, 8, 8)
    frames = clips.clone().flatten(0, 1).unsqueeze(1)
    recolour_clips(frames, [whole(flip=index % 2 == 1) for index in range(6)])
    result = frames.squeeze(1).unflatten(0, (2, 3))
    assert torch.equal(result[0, 1], clips[0, 1].flip(-1))
    assert torch.equal(result[0, ::2], clips[0, ::2])
    assert torch.equal(result[1, 1], clips[1, 1])


@given(st.integers(0, 2**40))
def test_a_clip_is_recoloured_alike_in_any_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clips = torch.rand(3, 2, 3, 8, 8, generator=generator)
    numbers = torch.rand(3, 4, generator=generator).tolist()
    draws = [
        whole(
            flip=one < 0.5,
            gray=two < 0.3,
            jitter=(("hue", three - 0.5), ("contrast", 1 + two)) if four < 0.6 else (("contrast", 0.7),),
            blur=(1.0, 2.0) if one < 0.4 else None,
        )
        for one, two, three, four in numbers
    ]
    together = clips.clone()
    recolour_clips(together, draws, blur_kernel=5)
    for index in range(3):
        alone = clips[index : index + 1].clone()
        recolour_clips(alone, [draws[index]], blur_kernel=5)
        assert torch.allclose(alone[0], together[index], atol=1e-6)
        assert alone.min() >= 0
        assert alone.max() <= 1 + 1e-6
