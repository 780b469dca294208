"""Two processes of batch b must be one process of batch 2b, in loss, gradients and running statistics."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distributed import check_one_step, gradients_and_buffers, run_processes
from models.stica_batches import tiny_batch, tiny_config
from videossl_hf.models.stica.configuration_stica import STiCAConfig
from videossl_hf.models.stica.modeling_stica import STiCAForPreTraining
from videossl_hf.models.stica.objective_stica import FULL, contrastive_losses

BATCH = 3
CASES = {
    f"{objective}-{dtype}-{'frozen' if frozen else 'synced'}": (objective, dtype, frozen)
    for objective in ("stica", "gdt")
    for dtype in ("float32", "float64")
    for frozen in (False, True)
}


def _train(case: str, own: slice) -> dict[str, Tensor]:
    """Loss, gradients and buffers of a step on some rows of the joint batch."""
    objective, dtype, frozen = CASES[case]
    torch.manual_seed(0)
    model = STiCAForPreTraining(tiny_config(objective=objective)).to(getattr(torch, dtype)).train()
    if frozen:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    batch = {name: value[own].to(getattr(torch, dtype)) for name, value in tiny_batch(2 * BATCH).items()}
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    output = wrapped(**batch)
    output.loss.backward()
    results = {"loss": output.loss.detach(), "accuracy": output.accuracy_video_to_audio}
    return results | gradients_and_buffers(model)


def _of_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    """Runs in a process of its own."""
    return {case: _train(case, slice(rank * BATCH, (rank + 1) * BATCH)) for case in CASES}


@cache
def two_processes() -> list[dict[str, dict[str, Tensor]]]:
    return run_processes(_of_rank, 2)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_joint_batch(case: str) -> None:
    first, second = (rank[case] for rank in two_processes())
    whole = _train(case, slice(None))
    is_double = "float64" in case
    tolerance = 1e-10 if is_double else 1e-5
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, whole["loss"], rtol=tolerance, atol=0)
    torch.testing.assert_close((first["accuracy"] + second["accuracy"]) / 2, whole["accuracy"])
    check_one_step(first, second, whole, noise=1e-12 if is_double else 1e-6)


def _few_negatives_of_rank(rank: int, count: int) -> dict[str, Tensor]:
    """Runs in a process of its own."""
    losses = {}
    video, audio = _embeddings()[:, rank].unbind()
    for name, negatives in (("all", None), ("few", count)):
        config = STiCAConfig.gdt(num_negatives=negatives)
        generator = torch.Generator().manual_seed(1)
        losses[name] = contrastive_losses(config, {(0, FULL, 0): video}, audio[None], generator).loss
    return losses


def _embeddings() -> Tensor:
    """`(modality, process, batch, dim)`, unit length."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(2, 2, 4, 8, generator=generator), dim=-1)


def test_gdt_can_draw_its_negatives_from_the_other_processes() -> None:
    count = 7
    joint = _embeddings()
    for rank, losses in enumerate(run_processes(_few_negatives_of_rank, 2, count)):
        drawn = torch.randint(4, (count,), generator=torch.Generator().manual_seed(1))
        video, audio = joint[:, rank]
        expected = []
        for query, own, others in ((video, audio, joint[1, 1 - rank]), (audio, video, joint[0, 1 - rank])):
            scores = query @ torch.cat([own, others[drawn]]).T / 0.07
            expected.append(F.cross_entropy(scores, torch.arange(4)))
        torch.testing.assert_close(losses["few"], torch.stack(expected).mean())
        assert not torch.allclose(losses["few"], losses["all"])
