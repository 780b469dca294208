"""Where tests find a tiny model of each method: `tests/models/tiny_<method>.py`."""

from __future__ import annotations

import importlib
from types import ModuleType


def tiny(method: str) -> ModuleType:
    """Its `make_config()`, `make_processor()`, `make_inputs(suffix, batch)`, `processor_arguments(clip)`."""
    return importlib.import_module(f"models.tiny_{method}")
