"""Two processes of batch b must be one process of batch 2b: BatchNorm statistics are those of all pairs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.model_checks import perturb
from distributed import check_one_step, gradients_and_buffers, run_processes
from models.tiny_ila import LABELS, clips, make_config
from videossl_hf import ILAForVideoClassification

BATCH = 2
CASES: dict[str, dict[str, Any]] = {
    "float32-words": {},
    "float64-words": {},
    "float64-linear": {"head": "linear", "interactive_block": "dense", "freeze_backbone": False},
    "float64-concat": {"token_mode": "concat", "freeze_batch_norm": True},
}


def train(case: str, own: slice) -> dict[str, Tensor]:
    """Loss, gradients and buffers of a step on some rows of the joint batch, with blended labels."""
    torch.manual_seed(0)
    model = ILAForVideoClassification(make_config(**CASES[case]))
    perturb(model)
    model = model.to(torch.float64 if "float64" in case else torch.float32).train()
    videos = clips(2 * BATCH).to(model.dtype)[own]
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(2 * BATCH, len(LABELS), generator=generator).softmax(-1).to(model.dtype)[own]
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    output = wrapped(pixel_values_videos=videos, labels=labels)
    output.loss.backward()
    named = gradients_and_buffers(model)
    return {"loss": output.loss.detach()} | {
        name: value for name, value in named.items() if value is not None
    }


def of_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    """Runs in a process of its own."""
    return {case: train(case, slice(rank * BATCH, (rank + 1) * BATCH)) for case in CASES}


@cache
def two_processes() -> list[dict[str, dict[str, Tensor]]]:
    return run_processes(of_rank, 2)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_joint_batch(case: str) -> None:
    first, second = (rank[case] for rank in two_processes())
    whole = train(case, slice(None))
    is_double = "float64" in case
    tolerance = 1e-10 if is_double else 1e-5
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, whole["loss"], rtol=tolerance, atol=0)
    check_one_step(first, second, whole, noise=1e-12 if is_double else 1e-4)
