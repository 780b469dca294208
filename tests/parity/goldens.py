"""Golden cases: numbers of the official codes, or of our own plain references, that ours must reproduce.

A case is a JSON file, with a safetensors file of the same name where it has tensors. Cases lie in `data/`
beside this file and, if the environment variable VIDEOSSL_GOLDENS names a folder, anywhere below that.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

CARRIED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Golden:
    """One case. `record` is its whole JSON."""

    path: Path
    record: dict[str, Any]

    @property
    def method(self) -> str:
        return self.record["method"]

    @property
    def kind(self) -> str:
        return self.record["kind"]

    @property
    def meta(self) -> dict[str, Any]:
        return self.record.get("meta", {})

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, named `input.*` and `output.*`."""
        weights = self.path.with_suffix(".safetensors")
        return load_file(weights) if weights.exists() else {}

    def input(self, name: str) -> Tensor:
        return self.tensors[f"input.{name}"]

    def inputs_below(self, prefix: str) -> dict[str, Tensor]:
        """Inputs whose names start with a prefix, without it."""
        start = f"input.{prefix}"
        return {
            name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)
        }

    def outputs(self) -> dict[str, Tensor]:
        """Expected values, by name."""
        return {
            name.removeprefix("output."): value
            for name, value in self.tensors.items()
            if name.startswith("output.")
        }

    def rounding(self, name: str) -> float:
        """How far the official code's own float32 run lies from its float64 run."""
        details = self.record.get("outputs", {}).get(name, [])
        return details[2].get("fp32_vs_fp64_maxdiff", 0.0) if len(details) > 2 else 0.0

    def official_state(self) -> dict[str, Tensor]:
        """The weights of the case, made by the rule that its JSON spells out (`seed_rule`)."""
        base = self.meta["seed_base"]
        return {
            key: _seeded(key, list(shape), torch.Generator().manual_seed(base + index))
            for index, (key, shape, _) in enumerate(self.record["state_spec"])
        }


def _seeded(key: str, shape: list[int], generator: torch.Generator) -> Tensor:
    def normal() -> Tensor:
        return torch.randn(shape, generator=generator)

    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("pos_ids"):
        return torch.arange(math.prod(shape)).view(shape)
    if key.endswith("running_mean"):
        return 0.1 * normal()
    if key.endswith("running_var"):
        return 1 + 0.1 * torch.rand(shape, generator=generator)
    if key.endswith(".bias"):
        return 0.1 * normal()
    if len(shape) == 1:
        return 1 + 0.1 * normal()
    if ".pos_embs." in key:
        return 0.5 * normal()
    gain = 2 if len(shape) >= 3 else 1
    return normal() * math.sqrt(gain / math.prod(shape[1:]))


def golden_roots() -> list[Path]:
    """The carried folder, and the one that VIDEOSSL_GOLDENS names."""
    named = os.environ.get("VIDEOSSL_GOLDENS")
    return [CARRIED, *([Path(named)] if named else [])]


def find_goldens(root: Path) -> list[Golden]:
    """All cases below a folder, sorted by path."""
    cases = [Golden(path, json.loads(path.read_text())) for path in sorted(root.rglob("*.json"))]
    return [case for case in cases if "method" in case.record and "kind" in case.record]


def assert_close(
    name: str,
    found: Tensor,
    expected: Tensor,
    *,
    atol: float = 0.0,
    of_maximum: float = 0.0,
    cosine: float | None = None,
) -> None:
    """Largest difference at most `atol`, or that share of the largest expected value, whichever is more."""
    assert found.shape == expected.shape, (
        f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    )
    found, expected = found.detach().double(), expected.double()
    difference = (found - expected).abs().max().item() if expected.numel() else 0.0
    limit = max(atol, of_maximum * expected.abs().max().item() if expected.numel() else 0.0)
    assert difference <= limit, f"{name} is off by {difference:.3g}; allowed is {limit:.3g}"
    if cosine is not None:
        angle = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()
        assert angle >= cosine, f"{name} has cosine {angle:.6f}; asked is {cosine}"
