"""Two processes of batch b must be one process of batch 2b, in loss, gradients and running statistics."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from distributed import check_one_step, gradients_and_buffers, run_processes
from models import tiny_vimpac
from videossl_hf.models.vimpac.modeling_vimpac import VIMPACForPreTraining

BATCH = 3
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {},
    "float64-clean": {"contrastive_input": "clean", "projection_layers": 3, "projection_final_norm": True},
}


def train(case: str, own: slice) -> dict[str, Tensor]:
    """Loss, gradients and buffers of a step on some rows of the joint batch."""
    torch.manual_seed(0)
    model = VIMPACForPreTraining(tiny_vimpac.make_config(**CASES[case])).train()
    model = model.to(torch.float64 if "float64" in case else torch.float32)
    batch = {name: value[own] for name, value in tiny_vimpac.make_inputs("ForPreTraining", 2 * BATCH).items()}
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    output = wrapped(**batch)
    output.loss.backward()
    results = {"loss": output.loss.detach(), "accuracy": output.accuracy_contrastive}
    return results | gradients_and_buffers(model)


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
    torch.testing.assert_close((first["accuracy"] + second["accuracy"]) / 2, whole["accuracy"])
    check_one_step(first, second, whole, noise=1e-12 if is_double else 1e-4)


def losses_of_rank(rank: int) -> dict[str, Tensor]:
    """Runs in a process of its own: the published mean, of each process's own hidden places."""
    torch.manual_seed(0)
    model = VIMPACForPreTraining(tiny_vimpac.make_config(token_loss_mean="process")).eval()
    inputs = tiny_vimpac.make_inputs("ForPreTraining", 2 * BATCH)
    own = slice(rank * BATCH, (rank + 1) * BATCH)
    return {"loss": model(**{name: value[own] for name, value in inputs.items()}).loss_tokens.detach()}


def test_the_published_mean_is_that_of_each_process() -> None:
    torch.manual_seed(0)
    model = VIMPACForPreTraining(tiny_vimpac.make_config()).eval()
    inputs = tiny_vimpac.make_inputs("ForPreTraining", 2 * BATCH)
    for rank, result in enumerate(run_processes(losses_of_rank, 2)):
        own = slice(rank * BATCH, (rank + 1) * BATCH)
        alone = model(**{name: value[own] for name, value in inputs.items()}).loss_tokens
        torch.testing.assert_close(result["loss"], alone)
