"""Makes the toy method known to this process: its folder joins the package's methods, its name the
registry.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import videossl_hf
import videossl_hf.models
from videossl_hf.registry import METHODS


def register_toy(folder: Path) -> None:
    """Lay a package out in `folder` that is ours (by links) with one more method, and take that method from
    there.
    """
    package = Path(videossl_hf.__file__).parent
    overlay = folder / "videossl_hf"
    (overlay / "models").mkdir(parents=True, exist_ok=True)
    for item in package.iterdir():
        if item.name != "models" and not (overlay / item.name).exists():
            (overlay / item.name).symlink_to(item)
    shutil.copytree(Path(__file__).parent / "methods/toy", overlay / "models/toy", dirs_exist_ok=True)
    videossl_hf.models.__path__.append(str(overlay / "models"))
    METHODS["toy"] = "Toy"
