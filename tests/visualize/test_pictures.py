from __future__ import annotations

import io
import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from videossl_hf.errors import DependencyError, InputError
from videossl_hf.evaluation.results import Figure
from videossl_hf.visualize.confusion import confusion_picture
from videossl_hf.visualize.curves import accuracy_curve, loss_curves
from videossl_hf.visualize.film_strip import (
    animation,
    data_uri,
    film_strip,
    motion_print,
    neighbour_board,
    png_bytes,
)
from videossl_hf.visualize.intervals import interval_picture
from videossl_hf.visualize.similarity import similarity_picture
from videossl_hf.visualize.theme import DARK, LIGHT

NAMES = ["up", "down", "round"]
POINTS = [(0, 3.0), (10, 2.5), (20, 1.0)]
THUMBNAIL = np.full((8, 8, 3), 120, dtype=np.uint8)


def measured(value: float) -> Figure:
    return Figure(value, value - 3, value + 3, 100)


def moving_dot(frames: int = 6, size: int = 16) -> np.ndarray:
    """A white dot that goes from left to right on grey."""
    clip = np.full((frames, size, size, 3), 40, dtype=np.uint8)
    for number in range(frames):
        clip[number, 7:9, 2 * number : 2 * number + 2] = 255
    return clip


PICTURES = {
    "losses": lambda: loss_curves({"total": POINTS, "crops": POINTS[:2]}),
    "accuracy": lambda: accuracy_curve(POINTS, {"chance": 0.5}),
    "confusion": lambda: confusion_picture(torch.tensor([[5, 0, 1], [0, 3, 3], [0, 0, 0]]), NAMES),
    "similarity": lambda: similarity_picture(
        torch.eye(3), NAMES, row_images=[THUMBNAIL] * 3, column_images=[THUMBNAIL] * 3
    ),
    "intervals": lambda: interval_picture(
        {"kNN": {"ours": measured(50), "other": measured(20)}, "probe": {"ours": measured(70)}},
        highlight="ours",
        chance=8.3,
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_readable_png_and_an_svg_in_the_colours_of_the_page(name):
    picture = PICTURES[name]()
    image = Image.open(io.BytesIO(picture.png)).convert("RGB")
    assert min(image.size) > 200
    assert len(image.getcolors(maxcolors=100_000)) > 20  # something is drawn
    root = ElementTree.fromstring(picture.svg)
    assert root.get("width") == "100%"
    used = set(re.findall(r"var\(--(\w+)\)", picture.svg))
    assert {"muted"} < used <= set(vars(LIGHT)) == set(vars(DARK))
    assert "#0d0e" not in picture.svg  # every marker colour was replaced


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_same_whenever_they_are_drawn(name):
    first, second = PICTURES[name](), PICTURES[name]()
    assert first == second


def test_what_a_chart_says_stands_in_it_as_text():
    assert all(f">{name}</text>" in PICTURES["confusion"]().svg for name in NAMES)
    assert ">50.0</text>" in PICTURES["intervals"]().svg
    assert ">chance 0.5</text>" in PICTURES["accuracy"]().svg


def test_a_confusion_cell_is_a_share_of_its_row_and_an_empty_class_stays_empty():
    numbers = re.findall(r">(\d+)</text>", PICTURES["confusion"]().svg)
    assert sorted(numbers) == ["17", "50", "50", "83"]


def test_a_film_strip_shows_the_frames_in_order():
    clip = moving_dot()
    strip = np.asarray(film_strip(clip, height=16, gap=2).convert("RGB"))
    assert strip.shape == (20, 6 * 18 + 2, 3)
    for number in range(6):
        shown = strip[2:18, 2 + 18 * number : 18 + 18 * number].astype(int)
        assert abs(shown - clip[number]).max() <= 1
    assert film_strip(clip, height=16, gap=2, count=3).width == 3 * 18 + 2


def test_a_motion_print_turns_from_blue_to_orange():
    picture = np.asarray(motion_print(moving_dot(), size=16)).astype(int)
    early, late = picture[8, 1], picture[8, 11]
    assert early[2] > early[0] + 50
    assert late[0] > late[2] + 50
    assert picture[2, 2].max() < 30  # still ground is dimmed


def test_an_animation_has_all_frames():
    moving = Image.open(io.BytesIO(animation(moving_dot(), height=32)))
    assert moving.n_frames == 6
    assert moving.size == (32, 32)
    assert data_uri(b"abc", "image/webp") == "data:image/webp;base64,YWJj"


def test_a_board_has_room_for_every_clip():
    strip = film_strip(moving_dot(), height=20)
    found = [("ours", [(strip, "up", True), (strip, "down", False)]), ("other", [(strip, "up", True)])]
    board = neighbour_board([(strip, "up", found), (strip, "down", found)])
    assert board.width > 3 * strip.width
    assert board.height > 4 * strip.height
    assert Image.open(io.BytesIO(png_bytes(board))).size == board.size


@pytest.mark.parametrize(
    "call",
    [
        lambda: loss_curves({"total": []}),
        lambda: accuracy_curve([]),
        lambda: confusion_picture(torch.zeros(2, 2), NAMES),
        lambda: similarity_picture(torch.eye(2), NAMES),
        lambda: similarity_picture(torch.eye(3), NAMES, row_images=[THUMBNAIL]),
        lambda: interval_picture({}, highlight="ours"),
        lambda: film_strip(np.zeros((4, 8, 8), dtype=np.uint8)),
        lambda: motion_print(np.zeros((4, 8, 8, 3), dtype=np.float32)),
    ],
)
def test_what_cannot_be_drawn_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"videossl-hf\[viz\]"):
        loss_curves({"total": POINTS})
