"""The toy method is registered for the tests of this folder, and forgotten after each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy import register_toy

from videossl_hf.registry import METHODS


@pytest.fixture(scope="session")
def toy_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    register_toy(tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def toy_method(toy_package: None) -> Iterator[None]:
    METHODS["toy"] = "Toy"
    yield
    METHODS.pop("toy", None)
