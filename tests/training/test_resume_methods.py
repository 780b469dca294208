"""Every method: a training by its smoke recipe that is killed ends, after going on, as one that never was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from videossl_hf.models.vimpac.configuration_dvae import DVAEConfig
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel
from videossl_hf.registry import METHODS, has_class

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "training/recipes"
STEPS, SAVE_STEPS = 6, 2
# So that a run this short goes through all that a training of the method has.
SHORTENED = {
    "videomoco": {"model.adversarial_start_step": 4},
    "ila": {"training.init_from": "null", "model.disturbance_decay_start_epoch": 1},
}
TIMES = {"clips_per_second", "data_wait_share", "peak_memory_gib", "train_runtime", "total_flos"}


def told_clips(clips: Path) -> dict[str, Any]:
    """What a training on texts needs; its steps take turns with those on another data set."""
    return {
        "processor.tokenizer": clips / "tokenizer",
        "data.alternate.sequences.train": clips,
        "data.alternate.sequences.augmentation": "{resize_ratio: 1.5, flip_probability: 0.5}",
    }


def read_log(output: Path) -> dict[int, dict[str, Any]]:
    """Step -> what was logged of it last, without times."""
    log: dict[int, dict[str, Any]] = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        entry = {key: value for key, value in json.loads(line).items() if key not in TIMES}
        if "loss" in entry:
            log[entry["step"]] = entry
    return log


def bits(tree: Any) -> Any:
    """The same nest with bytes in place of tensors: compared by `==`, NaNs included."""
    if isinstance(tree, torch.Tensor):
        return tree.dtype, tuple(tree.shape), tree.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(tree, dict):
        return {key: bits(value) for key, value in tree.items()}
    return [bits(value) for value in tree] if isinstance(tree, list | tuple) else tree


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_a_killed_training_goes_on_to_the_same_bits(
    method: str, seed: int, clips: Path, tmp_path: Path
) -> None:
    def arguments(name: str) -> list[str]:
        pretrains = has_class(method, "ForPreTraining")
        settings = {
            "data.train": clips, "training.output_dir": tmp_path / name, "training.batch_size": 6,
            "training.max_steps": STEPS, "training.save_steps": SAVE_STEPS, "training.logging_steps": 1,
            "training.seed": seed, "training.device": "cpu", "evaluation.knn_k": 3,
            f"evaluation.{'knn' if pretrains else 'accuracy'}_every": 3, **SHORTENED.get(method, {}),
            **(told_clips(clips) if method == "tvts" else {}),
            **({"processor.tokenizer_model": tmp_path / "tokenizer"} if method == "vimpac" else {}),
        }  # fmt: skip
        options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        return ["pretrain" if pretrains else "finetune", str(RECIPES / method / "smoke.yaml"), *options]

    if method == "vimpac":  # whose smoke recipe leaves the tokeniser open
        tokenizer = DVAEConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=128, use_decoder=False)
        DVAEModel(tokenizer).save_pretrained(tmp_path / "tokenizer")
    kill_at = random.Random(seed).randint(1, STEPS - 1)
    runs = [(arguments("unbroken"), None), (arguments("broken"), kill_at), (arguments("broken"), None)]
    process = subprocess.run(
        [sys.executable, str(HERE / "run_recipe.py"), json.dumps(runs)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads(process.stdout.splitlines()[-1]) == [0, "killed", 0], process.stderr[-3000:]

    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert (unbroken / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    last = f"checkpoint-{STEPS}/optimizer.pt"
    assert bits(torch.load(unbroken / last, weights_only=True)) == bits(
        torch.load(broken / last, weights_only=True)
    )
    log = read_log(unbroken)
    assert list(log) == list(range(1, STEPS + 1))
    assert read_log(broken) == log
