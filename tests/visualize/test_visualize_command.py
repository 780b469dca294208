"""`videossl visualize`: a picture of what a model sees, from a saved folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.media import make_clip, moving_frames
from models import tiny_stica
from videossl_hf import (
    STiCAModel,
    VideoMoCoConfig,
    VideoMoCoForPreTraining,
    VideoMoCoModel,
    VideoMoCoProcessor,
    cli,
)
from videossl_hf.errors import DecodeError, InputError
from videossl_hf.visualize.command import shown_frames, visualize
from videossl_hf.visualize.scored_strip import scored_strip
from videossl_hf.visualize.theme import LIGHT

CONFIG = {"num_frames": 8, "image_size": 28, "widths": [8, 8], "depths": [1, 1], "queue_size": 16, "dim": 8}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("media") / "clip.mp4", sound=False)


def saved(folder: Path, model_class: type = VideoMoCoForPreTraining, **changes: object) -> Path:
    config = VideoMoCoConfig(**(CONFIG | changes))
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    VideoMoCoProcessor.from_config(config).save_pretrained(folder)
    return folder


def colour(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(getattr(LIGHT, name)[1:]))


def test_the_command_writes_one_row_a_clip(tmp_path: Path, clip: Path, capsys) -> None:
    folder = saved(tmp_path / "model")
    output = tmp_path / "new" / "picture.png"
    assert cli.main(["visualize", str(folder), str(clip), str(clip), "--output", str(output)]) == 0
    assert "2 clip(s)" in capsys.readouterr().out
    double, single = Image.open(output), visualize(str(folder), [str(clip)])
    assert double.width == single.width
    assert double.height == 2 * single.height + 8
    assert np.array_equal(np.asarray(double)[: single.height], np.asarray(single))


def test_the_frames_that_videomocos_generator_scores_lowest_are_crossed_out(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    frames = moving_frames(8, 32, 32)
    picture = np.asarray(visualize(str(folder), [frames]))
    model = VideoMoCoForPreTraining.from_pretrained(folder)
    pixels = VideoMoCoProcessor.from_pretrained(folder)(videos=frames)["pixel_values_videos"]
    with torch.no_grad():
        lowest = set(model.generator(pixels)[0].argsort()[:2].tolist())
    is_red = (picture[-20] == colour("bad")).all(axis=1)  # a row of pixels through the bars
    pitch = (picture.shape[1] - 3) // 8
    assert {(int(x) - 3) // pitch for x in np.flatnonzero(is_red)} == lowest


@pytest.mark.parametrize(
    ("model_class", "changes"), [(VideoMoCoModel, {}), (VideoMoCoForPreTraining, {"dropped_frames": "none"})]
)
def test_a_folder_without_a_generator_says_so(
    tmp_path: Path, clip: Path, model_class: type, changes: dict
) -> None:
    folder = saved(tmp_path / "model", model_class, **changes)
    with pytest.raises(InputError, match="holds no generator"):
        visualize(str(folder), [str(clip)])


def test_any_other_method_shows_the_frames_that_its_processor_takes(tmp_path: Path, clip: Path) -> None:
    STiCAModel(tiny_stica.make_config()).save_pretrained(tmp_path)
    processor = tiny_stica.make_processor()
    processor.save_pretrained(tmp_path)
    picture = visualize(str(tmp_path), [str(clip)])
    assert picture.size == (tiny_stica.FRAMES * 75 + 3, 78)
    frames = shown_frames(processor.video_processor, str(clip))
    assert frames.shape == (tiny_stica.FRAMES, tiny_stica.SIZE, tiny_stica.SIZE, 3)
    pixels = processor(videos=str(clip))["pixel_values_videos"][0].permute(0, 2, 3, 1)
    assert torch.allclose(torch.from_numpy(frames) / 255, pixels * 0.225 + 0.45, atol=1e-2)


def test_errors_say_what_to_do(tmp_path: Path, clip: Path, capsys) -> None:
    folder = saved(tmp_path / "model")
    assert cli.main(["visualize", str(folder), str(clip), "--output", str(tmp_path / "a.txt")]) == 1
    assert ".png" in capsys.readouterr().err
    with pytest.raises(InputError, match="neither a folder"):
        visualize(str(tmp_path / "nothing"), [str(clip)])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DecodeError):
        visualize(str(folder), [str(tmp_path / "text.mp4")])


def test_longer_bars_stand_for_higher_scores_and_marks_for_themselves() -> None:
    frames = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    picture = np.asarray(scored_strip(frames, [0.5, 0.25, 0.0], [1], height=30, caption="three frames"))
    blue, red = ((picture == colour(name)).all(axis=2) for name in ("accent", "bad"))
    assert blue[:, :33].sum() > 0
    assert not blue[:, 33:].any()
    assert red[:, 36:66].any()
    assert not red[:, :33].any()
    for wrong in ({"scores": [1.0]}, {"scores": [0.1, 0.2, 0.3], "marked": [3]}):
        with pytest.raises(InputError):
            scored_strip(frames, **wrong)
