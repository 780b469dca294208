"""A generated set, and a model that is just large enough to see and hear it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from videossl_hf import STiCAConfig, STiCAForPreTraining, STiCAProcessor
from videossl_hf.data.datasets import load_videos
from videossl_hf.data.sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from videossl_hf.evaluation.loading import quiet_libraries

# Threads that wait for each other on a busy machine make small problems a hundred times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training clips, 12 each to validate and test on."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    settings = ClipSettings(size=16, seconds=1.0, nuisance="low")
    return write_sounding_shapes(
        folder, SoundingShapes(24, 12, 12, settings), processes=1, show_progress=False
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`model`, `processor`, and the `folder` they are saved in."""
    torch.manual_seed(0)
    config = STiCAConfig(
        num_frames=4,
        fps=4.0,
        image_size=14,
        num_mel_bins=16,
        audio_seconds=1.0,
        video_widths=[8, 16],
        video_depths=[1, 1],
        video_stem_width=4,
        audio_widths=[8, 16],
        audio_depths=[1, 1],
        pooling_heads=2,
        pooling_ffn=16,
        projection_hidden=16,
        projection_dim=8,
    )
    model, processor = STiCAForPreTraining(config).eval(), STiCAProcessor.from_config(config)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    with quiet_libraries():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return SimpleNamespace(model=model, processor=processor, folder=folder)


@pytest.fixture
def test_clips(shapes: Path) -> Iterator[object]:
    """The test split, undecoded."""
    with quiet_libraries():
        yield load_videos(str(shapes), "test")
