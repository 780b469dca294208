"""Two processes of batch b against one process of batch 2b, with both ways to gather gradients."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from distributed import check_one_step, gradients_and_buffers, run_processes
from models.tiny_tvts import make_config, make_inputs
from videossl_hf.models.tvts.modeling_tvts import TVTSForPreTraining

BATCH = 2
CASES = [(mode, dtype) for mode in ("full", "local") for dtype in ("float32", "float64")]


def _train(mode: str, dtype: str, own: slice, contrastive_weight: float = 1.0) -> dict[str, Tensor]:
    """Loss and gradients of a step on some rows of the joint batch."""
    torch.manual_seed(0)
    config = make_config(gather_gradient=mode, contrastive_weight=contrastive_weight)
    model = TVTSForPreTraining(config).to(getattr(torch, dtype)).train()
    batch = {
        name: (value.to(getattr(torch, dtype)) if value.is_floating_point() else value)[own]
        for name, value in make_inputs("ForPreTraining", 2 * BATCH).items()
    }
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    output = wrapped(**batch)
    output.loss.backward()
    results = {name: output[name].detach() for name in ("loss", "loss_contrastive", "accuracy_video_to_text")}
    return results | gradients_and_buffers(model)


def _of_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    """Runs in a process of its own."""
    own = slice(rank * BATCH, (rank + 1) * BATCH)
    return {"-".join(case): _train(*case, own) for case in CASES}


@cache
def two_processes() -> list[dict[str, dict[str, Tensor]]]:
    return run_processes(_of_rank, 2)


@pytest.mark.parametrize(("mode", "dtype"), CASES)
def test_two_processes_are_one_with_the_joint_batch(mode: str, dtype: str) -> None:
    """With "local", one whose contrastive loss has half the weight: its share of each process is averaged."""
    first, second = (rank[f"{mode}-{dtype}"] for rank in two_processes())
    whole = _train("full", dtype, slice(None), contrastive_weight=1.0 if mode == "full" else 0.5)
    is_double = dtype == "float64"
    assert torch.equal(first["loss_contrastive"], second["loss_contrastive"])
    torch.testing.assert_close(
        first["loss_contrastive"], whole["loss_contrastive"], rtol=1e-10 if is_double else 1e-5, atol=0
    )
    torch.testing.assert_close(first["accuracy_video_to_text"], whole["accuracy_video_to_text"])
    if mode == "full":
        mean = (first["loss"] + second["loss"]) / 2
        torch.testing.assert_close(mean, whole["loss"], rtol=1e-10 if is_double else 1e-5, atol=0)
    check_one_step(first, second, whole, noise=1e-14 if is_double else 1e-6)
