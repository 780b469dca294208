"""ILA's picture: a row a block, dark where its mask is, with the points where the model has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.media import moving_frames
from common.model_checks import perturb
from models.tiny_ila import FRAMES, SIDE, make_config, make_processor
from videossl_hf import ILAForVideoClassification, ILAProcessor
from videossl_hf.visualize.command import visualize
from videossl_hf.visualize.picture_ila import CAPTION, GAP, HEIGHT, aligned_strip, point_places
from videossl_hf.visualize.theme import LIGHT


def colour(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(getattr(LIGHT, name)[1:]))


def test_a_point_of_minus_one_or_one_is_the_middle_of_an_outermost_patch() -> None:
    places = point_places(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]), grid=4, side=96)
    assert places == [(12.0, 84.0), (48.0, 48.0)]


def test_marks_lie_at_the_points_and_masks_darken_the_rest() -> None:
    frames = np.full((2, 32, 32, 3), 200, np.uint8)
    masks = torch.zeros(2, 16)
    masks[0, :8] = 1  # the upper half of the first frame
    points = torch.tensor([[0.0, -1.0, 1.0, 0.0]])
    picture = np.asarray(aligned_strip(frames, masks, points, "block"))
    first, second = (slice(GAP + n * (HEIGHT + GAP), (n + 1) * (HEIGHT + GAP)) for n in range(2))
    rows = slice(CAPTION + GAP, CAPTION + GAP + HEIGHT)
    crosses = np.argwhere((picture[rows] == colour("accent")).all(-1))
    rings = np.argwhere((picture[rows] == colour("second")).all(-1))
    assert np.allclose(crosses.mean(0), [48, GAP + HEIGHT + GAP + 84], atol=1.5)
    assert np.allclose(rings.mean(0), [12, GAP + 48], atol=1.5)
    upper, lower = np.split(picture[rows, first], 2)
    assert np.median(upper) == 200
    assert np.median(lower) == 50 == np.median(picture[rows, second])


def test_the_command_draws_a_row_for_every_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ILAForVideoClassification(make_config())
    perturb(model)
    model.save_pretrained(tmp_path)
    make_processor().save_pretrained(tmp_path)
    clip = moving_frames(9, 40, 48)
    picture = visualize(str(tmp_path), [clip])
    blocks = model.config.vision_config.num_hidden_layers
    assert picture.width == FRAMES * (HEIGHT + GAP) + GAP
    assert picture.height == CAPTION + blocks * (CAPTION + HEIGHT + 2 * GAP)
    pixels = ILAProcessor.from_pretrained(tmp_path)(videos=clip)["pixel_values_videos"]
    with torch.no_grad():
        output = model.eval().ila(pixels, output_alignment=True)
    x, y = point_places(output.points[-1][0, 0, :2][None], SIDE // 8, HEIGHT)[0]
    last = np.asarray(picture)[CAPTION + (blocks - 1) * (CAPTION + HEIGHT + 2 * GAP) :]
    rings = np.argwhere((last[:, : HEIGHT + GAP] == colour("second")).all(-1))
    assert rings.mean(0) == pytest.approx([CAPTION + GAP + y, GAP + x], abs=1.5)
