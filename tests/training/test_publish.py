"""Publishing while training: what arrives loads, and nothing private goes along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from server import LoopbackHub

TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy import register_toy
register_toy(Path(sys.argv[2]))
from videossl_hf.training.pretrain import pretrain
from videossl_hf.training.recipe import make_recipe
pretrain(make_recipe({
    "method": "toy",
    "data": {"train": sys.argv[3]},
    "training": {
        "output_dir": sys.argv[4], "max_steps": 4, "batch_size": 6, "save_steps": 2,
        "push_to_hub": True, "hub_model_id": "alice/toy", "hub_strategy": sys.argv[5], "keep_checkpoints": 1,
    },
}))
from transformers import AutoModelForPreTraining
model = AutoModelForPreTraining.from_pretrained("alice/toy", trust_remote_code=True)
assert model.updates == 4
"""


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint"])
def test_what_is_published_loads_and_holds_nothing_private(
    clips: Path, tmp_path: Path, strategy: str
) -> None:
    output = tmp_path / "secret-folder" / "run"
    with LoopbackHub() as hub:
        arguments = [str(Path(__file__).parent), str(tmp_path / "package"), str(clips), str(output), strategy]
        process = subprocess.run(
            [sys.executable, "-c", TRAIN, *arguments],
            env=os.environ | hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        repository = hub.repository("alice/toy")
    files = {name for name in repository.files() if name != ".gitattributes"}
    top = {name for name in files if "/" not in name}
    assert {"config.json", "model.safetensors", "modeling_toy.py", "processor_config.json"} <= top
    assert {"recipe.yaml", "metrics.jsonl"} <= top
    assert not {name for name in top if name.endswith((".pt", ".pth", ".bin"))}
    assert bool(files - top) == (strategy == "checkpoint")
    if strategy == "checkpoint":
        assert {"last-checkpoint/optimizer.pt", "last-checkpoint/checkpoint.json"} <= files
    for name in top:
        assert b"secret-folder" not in repository.read(name), name
    last = json.loads(repository.read("metrics.jsonl").splitlines()[-1])
    assert last["step"] == 4
