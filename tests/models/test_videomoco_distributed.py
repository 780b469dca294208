"""Two processes of batch b must be one process of batch 2b: where BatchNorm's statistics are those of all
processes, or frozen. By default each process has statistics of its own, over shuffled clips, as published; a
recorded case (kind `moco_two_process`) tests those, and here that both keep the same queue."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distributed import check_one_step, gradients_and_buffers, run_processes
from models.tiny_videomoco import make_inputs, make_model
from videossl_hf.models.videomoco.objective_videomoco import draw_shuffle, encode_shuffled

BATCH = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "synchronized": {"synchronize_batch_norm": True, "temporal_decay": "adversarial"},
    "frozen": {"mlp": True, "generator_contrastive_grad": False},
    "first-stage": {"synchronize_batch_norm": True, "adversarial_start_epoch": 1},
}
CASES = [f"{variant}-{dtype}" for variant in VARIANTS for dtype in ("float32", "float64")]


def _train(case: str, own: slice) -> dict[str, Tensor]:
    """Steps on some rows of the joint batches; the last one's loss, gradients and state."""
    variant, _, dtype = case.rpartition("-")
    model = make_model(queue_size=10, temperature=0.5, generator_loss_weight=1.0, **VARIANTS[variant]).to(
        getattr(torch, dtype)
    )
    if variant == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    wrapped: nn.Module = model
    if torch.distributed.is_initialized():
        wrapped = DistributedDataParallel(model, find_unused_parameters=variant == "first-stage")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01, momentum=0.9)
    steps = 2 if dtype == "float64" else 1  # a first step's rounding errors show in the second
    for step in range(steps):
        batch = make_inputs("ForPreTraining", 2 * BATCH)
        if variant == "first-stage":
            del batch["dropped_frames"]
        batch = {
            name: (value if value.dtype is torch.int64 else (value + step).to(model.dtype))[own]
            for name, value in batch.items()
        }
        optimizer.zero_grad()
        output = wrapped(**batch)
        output.loss.backward()
        optimizer.step()
        model.after_optimizer_step(step + 1, steps)
    results = {"loss_d": output.loss_d, "accuracy": output.accuracy_top5}
    if output.loss_g is not None:
        results["loss_g"] = output.loss_g
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
    for name in {"loss_d", "loss_g"} & whole.keys():
        torch.testing.assert_close((first[name] + second[name]) / 2, whole[name], rtol=tolerance, atol=0)
    torch.testing.assert_close((first["accuracy"] + second["accuracy"]) / 2, whole["accuracy"])
    assert any(name.startswith("gradient.generator") for name in whole) == ("first-stage" not in case)
    check_one_step(first, second, whole, noise=1e-12 if is_double else 1e-5)


def _exchange_of_rank(rank: int, batch: int) -> dict[str, Any]:
    """Runs in a process of its own."""
    seen: list[Tensor] = []

    def encode(part: Tensor) -> Tensor:
        seen.append(part)
        return 2 * part

    clips = torch.arange(batch)[:, None] + 100.0 * rank
    generator = torch.Generator().manual_seed(rank)
    keys = encode_shuffled(encode, clips, draw_shuffle(batch, clips.device, generator))
    return {"same": bool(torch.equal(keys, 2 * clips)), "seen": seen[0].flatten().tolist()}


@pytest.mark.parametrize(("world", "batch"), [(2, 1), (2, 4), (3, 5)])
def test_processes_encode_equal_shares_of_each_others_clips(world: int, batch: int) -> None:
    results = run_processes(_exchange_of_rank, world, batch)
    everything = sorted(value for result in results for value in result["seen"])
    assert everything == sorted(100.0 * rank + row for rank in range(world) for row in range(batch))
    for rank, result in enumerate(results):
        assert result["same"]
        sources = [int(value // 100) for value in result["seen"]]
        shares = [sources.count(other) for other in range(world)]
        assert max(shares) - min(shares) <= 1
        assert shares[rank] == min(shares), "what is left over goes to others"


def _queue_of_rank(rank: int) -> dict[str, Tensor]:
    """Runs in a process of its own: statistics of its own, clips shuffled differently by each process."""
    model, inputs = make_model(queue_size=10), make_inputs("ForPreTraining", 2 * BATCH)
    own = {name: value[rank * BATCH : (rank + 1) * BATCH] for name, value in inputs.items()}
    for step in range(2):
        keys = model(**own, generator=torch.Generator().manual_seed(7 * rank + step)).key_embeds
    return {"last": keys} | {name: buffer.clone() for name, buffer in model.queue.named_buffers()}


def test_processes_with_statistics_of_their_own_keep_one_queue() -> None:
    first, second = run_processes(_queue_of_rank, 2)
    for name in ("keys", "ages", "pointer"):
        assert torch.equal(first[name], second[name])
    places = (2 * BATCH + torch.arange(2 * BATCH)) % 10
    assert torch.equal(first["keys"][:, places], torch.cat([first["last"], second["last"]]).T)
    assert first["ages"].tolist() == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]
