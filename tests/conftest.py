"""Fixtures for all tests: small media files, written on the spot, and the folder of real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from media import sweep, write_media

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """`write_clip(name="clip.mp4", **what)` writes a file as `media.write_media` does; returns its path."""

    def write(name: str = "clip.mp4", **what: object) -> Path:
        return write_media(tmp_path / name, **what)

    return write


@pytest.fixture(scope="session")
def clip_with_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3 s MP4 (H.264, 30 frames of 48x64 at 10 fps; AAC, a rising tone at 24 kHz), not to be changed."""
    path = tmp_path_factory.mktemp("media") / "clip_with_sound.mp4"
    return write_media(path, sound=sweep(3.0, 24000), options={"g": "8", "bf": "2"})


@pytest.fixture(scope="session")
def media_folder() -> Path:
    """The folder of real clips that VIDEOSSL_MEDIA names; the test is skipped without it."""
    folder = os.environ.get("VIDEOSSL_MEDIA")
    if not folder:
        pytest.skip("VIDEOSSL_MEDIA names no folder of real clips")
    return Path(folder)
