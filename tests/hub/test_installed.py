"""The package as users get it: a wheel and an sdist, each installed by pip into a fresh virtual environment.

The environments are new and hold nothing but pip when the package is installed (`--no-deps`); its
dependencies, a gigabyte and a half, are then read from the environment of the tests by a `.pth` file. That
environment's own, editable, copy of the package is not seen: the tests assert where it is imported from.
Building needs hatchling, which pip fetches from the package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import LoopbackHub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NEEDED = {
    "videossl_hf/hub/templates/card.md",
    "videossl_hf/hub/templates/usage_features.md",
    "videossl_hf/hub/templates/handler.py",
    "videossl_hf/hub/templates/app.py",
    "videossl_hf/visualize/report.css",
    "videossl_hf/models/vimpac/facts_dvae.yaml",
    "videossl_launcher.py",
}


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=600, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files that would be released, built from a clean copy of what git knows."""
    folder = tmp_path_factory.mktemp("build")
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "copy" / name).write_bytes((ROOT / name).read_bytes())
    venv.create(folder / "builder", with_pip=True)
    python = folder / "builder/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "hatchling")
    run(python, "-m", "hatchling", "build", "-d", folder / "dist", cwd=folder / "copy")
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def python(
    request: pytest.FixtureRequest, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The interpreter of a fresh environment in which the package is installed."""
    folder = tmp_path_factory.mktemp(f"fresh-{request.param}")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", built[request.param])
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_all_that_is_read_and_no_tests(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
    assert names >= NEEDED
    assert not [name for name in names if name.startswith(("tests/", "shared/", "results/"))]
    with tarfile.open(built["sdist"]) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", *(f"src/{name}" for name in NEEDED)} <= files


def test_the_quick_start_runs_from_an_empty_folder(
    python: Path, hub: LoopbackHub, client: Callable[..., Any], clip_with_sound: Path, tmp_path: Path
) -> None:
    client(
        "from models.tiny_stica import make_config, make_processor\n"
        "from videossl_hf import STiCAForPreTraining\n"
        "STiCAForPreTraining(make_config()).push_to_hub('videossl/stica-k400')\n"
        "make_processor().push_to_hub('videossl/stica-k400')\n"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet = "".join(re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL))
    environment = os.environ | hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    work = tmp_path / "work"
    work.mkdir()
    options: dict[str, Any] = {"cwd": work, "env": environment}
    where = run(python, "-c", "import videossl_hf; print(videossl_hf.__file__)", **options).strip()
    assert Path(where).is_relative_to(python.parents[1])
    (work / "clip.mp4").write_bytes(clip_with_sound.read_bytes())
    said = run(python, "-c", f"{snippet}\nprint(features.shape, len(windows))", **options)
    assert said.startswith("torch.Size([1, ")
    videossl = python.with_name("videossl")
    assert "videossl-hf 0." in run(videossl, "--version", **options)
    assert "GFLOP" in run(videossl, "info", "videossl/stica-k400", **options)
    made = ("prepare", "--sounding-shapes", "4", "--output", "shapes", "--processes", "1")
    run(videossl, *made, **options)
    assert (work / "shapes" / "train" / "metadata.jsonl").is_file()
    assert sys.prefix not in where
