"""CONTRIBUTING's promise: a sixth method is one folder under models/ and one name in the registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import videossl_hf
from common import without_package
from common.media import make_clip

WITH_ONE_MORE = """
import sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification
import videossl_hf
from videossl_hf import HUMConfig, HUMForVideoClassification, HUMProcessor, HUMVideoProcessor
from videossl_hf.registry import METHODS, find_class

assert find_class("hum", "Model") is videossl_hf.HUMModel and set(METHODS) > {"hum"}
torch.manual_seed(0)
classifier = AutoModelForVideoClassification.from_config(HUMConfig(num_labels=3))
assert type(classifier) is HUMForVideoClassification
assert type(AutoModel.from_config(AutoConfig.for_model("hum"))) is videossl_hf.HUMModel
for name, model in {"AutoModelForVideoClassification": classifier, "AutoModel": classifier.hum}.items():
    model.save_pretrained(f"{sys.argv[1]}/{name}")
    HUMProcessor(HUMVideoProcessor()).save_pretrained(f"{sys.argv[1]}/{name}")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more folder and one more name; nothing else is touched."""
    root = tmp_path_factory.mktemp("six")
    source = Path(videossl_hf.__file__).parent
    shutil.copytree(source, root / "videossl_hf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent / "sixth_method/hum", root / "videossl_hf/models/hum")
    registry = root / "videossl_hf/registry.py"
    text = registry.read_text()
    named = text.replace("METHODS: dict[str, str] = {", 'METHODS: dict[str, str] = {"hum": "HUM", ')
    assert named != text
    registry.write_text(named)
    return root


def run(*command: object, **environment: str) -> None:
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, *map(str, command)], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_folder_and_a_name_make_a_method_that_loads_everywhere(package: Path, tmp_path: Path) -> None:
    run("-c", WITH_ONE_MORE, tmp_path / "first", PYTHONPATH=str(package))

    clip = make_clip(tmp_path / "clip.mp4")
    inputs: dict[str, Any] = {"pixel_values_videos": torch.randn(2, 4, 3, 16, 16)}
    torch.save(
        dict.fromkeys(("AutoModel", "AutoModelForVideoClassification"), inputs), tmp_path / "inputs.pt"
    )
    (tmp_path / "processor.json").write_text(json.dumps({"videos": str(clip)}))
    results = []
    for target, mode in (("registered", "imported"), ("alone", "blocked")):
        (tmp_path / target).mkdir()
        arguments = (without_package.__file__, tmp_path, tmp_path / "first", tmp_path / target, mode)
        run(*arguments, PYTHONPATH=str(package), HF_HOME=str(tmp_path / "home"))
        results.append(torch.load(tmp_path / target / "results.pt", weights_only=True))
    registered, alone = results
    assert registered["imported"]
    assert not alone["imported"]
    for name in ("AutoModel", "AutoModelForVideoClassification"):
        assert all(torch.equal(value, alone[name][key]) for key, value in registered[name].items())
    assert alone["pipeline"] == registered["pipeline"]
    assert len(alone["pipeline"]) == 3
