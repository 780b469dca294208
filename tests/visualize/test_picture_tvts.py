"""The picture of sorted scripts says what the model says, and is told by what lies beside the clip."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models import tiny_tvts
from videossl_hf import TVTSForPreTraining, TVTSModel, TVTSProcessor
from videossl_hf.cli import main
from videossl_hf.data.sounding_shapes import (
    ClipSettings,
    SoundingShapes,
    word_tokenizer,
    write_sounding_shapes,
)
from videossl_hf.errors import DataError, InputError
from videossl_hf.evaluation.loading import quiet_libraries
from videossl_hf.visualize.picture_tvts import Sorting, painter, sort_clip, sorting_picture

SCRIPTS = 3


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A clip with its line of metadata, and the folder of a model."""
    root = tmp_path_factory.mktemp("told")
    clips = ClipSettings(size=32, seconds=1.0, fps=4.0, motions=SCRIPTS, sample_rate=8000)
    write_sounding_shapes(root / "data", SoundingShapes(1, clips=clips), processes=1, show_progress=False)
    torch.manual_seed(0)
    text = tiny_tvts.DISTILBERT | {"vocab_size": 128, "max_position_embeddings": 20}
    config = tiny_tvts.make_config(max_text_length=20, text_settings=text)
    model, processor = TVTSForPreTraining(config).eval(), TVTSProcessor.from_config(config, word_tokenizer())
    with quiet_libraries():
        model.save_pretrained(root / "model")
        processor.save_pretrained(root / "model")
    clip = root / "data" / "train" / "000000.mp4"
    return SimpleNamespace(root=root, clip=clip, model=model, processor=processor, folder=root / "model")


def test_the_command_draws_frames_and_a_row_for_each_script(told: SimpleNamespace, tmp_path: Path) -> None:
    from PIL import Image

    output = tmp_path / "sorted.png"
    assert main(["visualize", str(told.folder), str(told.clip), "--output", str(output)]) == 0
    with Image.open(output) as picture:
        assert picture.width > 600
        assert picture.height > SCRIPTS * 50
        assert len(set(picture.convert("L").get_flattened_data())) > 20


def test_it_shows_what_the_model_says(told: SimpleNamespace) -> None:
    model = TVTSForPreTraining.from_pretrained(told.folder, attn_implementation="eager").eval()
    pixels = told.processor(videos=[str(told.clip)])["pixel_values_videos"]
    sorting = sort_clip(model, told.processor, pixels, told.clip)
    with torch.no_grad():
        logits = told.model(pixels, **told.processor(text=[list(sorting.texts)])).sorting_logits
    assert list(sorting.found) == logits[0].argmax(-1).tolist()
    assert sorted(sorting.places) == list(range(SCRIPTS))
    assert sorting.attention.shape == (SCRIPTS, 4)
    assert sorting.attention.min() > 0
    assert sorting.attention.sum(1).max() < 1
    assert sorting.seconds == pytest.approx(SCRIPTS, abs=0.3)


def test_places_are_green_where_right_and_red_where_not() -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    colours = {}
    for found in ((0, 1), (1, 1)):
        sorting = Sorting(["first", "second"], (0, 1), found, torch.rand(2, 2), 2.0)
        pixels = np.asarray(sorting_picture(frames, sorting)).reshape(-1, 3)
        colours[found] = {tuple(pixel) for pixel in np.unique(pixels, axis=0).tolist()}
    good, bad = (0x2B, 0x8A, 0x3E), (0xD6, 0x33, 0x6C)
    assert good in colours[0, 1]
    assert bad not in colours[0, 1]
    assert {good, bad} <= colours[1, 1]


def test_without_a_sorting_head_or_a_transcript_there_is_no_picture(
    told: SimpleNamespace, tmp_path: Path
) -> None:
    with quiet_libraries():
        TVTSModel.from_pretrained(told.folder).save_pretrained(tmp_path)
        told.processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no sorting head"):
        painter(str(tmp_path))
    (tmp_path / "alone.mp4").write_bytes(told.clip.read_bytes())
    pixels = told.processor(videos=[str(told.clip)])["pixel_values_videos"]
    with pytest.raises(DataError, match=r"no transcript of alone\.mp4"):
        sort_clip(told.model, told.processor, pixels, tmp_path / "alone.mp4")
