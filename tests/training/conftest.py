"""The toy method is registered for the tests of this folder, and forgotten after each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy import register_toy

from videossl_hf.data.sounding_shapes import ClipSettings, SoundingShapes, write_sounding_shapes
from videossl_hf.registry import METHODS


@pytest.fixture(scope="session")
def toy_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_toy(tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def toy_method(toy_package: None) -> Iterator[None]:
    METHODS["toy"] = "Toy"
    yield
    METHODS.pop("toy", None)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set that is just large enough: 24 training clips, 12 each to validate and test on."""
    settings = ClipSettings(size=16, seconds=1.0, nuisance="low")
    folder = tmp_path_factory.mktemp("data") / "clips"
    return write_sounding_shapes(
        folder, SoundingShapes(24, 12, 12, settings), processes=1, show_progress=False
    )
