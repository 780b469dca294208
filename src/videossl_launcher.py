"""Starts `videossl` without importing the package, whose models need torch and transformers.

`videossl --help` then takes a tenth of a second instead of several.
"""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Run `videossl_hf/cli.py` as a script."""
    package = find_spec("videossl_hf")
    assert package is not None
    assert package.origin is not None
    runpy.run_path(str(Path(package.origin).with_name("cli.py")), run_name="__main__")
