"""Runs a function in several gloo processes and compares their step with one process's."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _process(rank: int, function: Callable, world: int, port: int, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run_processes(function: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """`function(rank, *arguments)` in `world` processes; what each returns, in the order of ranks.

    Args:
        function: of a module's top level; it returns tensors, numbers, strings, lists or dictionaries of
            those.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        # The server imports the heavy packages once for all tests of a session.
        multiprocessing.set_forkserver_preload(["torch", "videossl_hf.models.stica.modeling_stica"])
        mp.start_processes(
            _process,
            (function, world, _free_port(), folder, arguments),
            nprocs=world,
            start_method="forkserver",
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(world)]


def gradients_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a step leaves in a model: `gradient.NAME` of every trained parameter, `buffer.NAME`."""
    gradients = {f"gradient.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients | {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}


def check_one_step(
    first: dict[str, Tensor], second: dict[str, Tensor], whole: dict[str, Tensor], noise: float
) -> None:
    """Two processes have the `gradients_and_buffers` of one process with the joint batch.

    Gradients in float64 to 1e-5 of each tensor's largest value, in float32 by their cosine (0.9999).

    Args:
        noise: relative to the largest gradient. What is not above it everywhere is zero but for rounding (a
            bias before a BatchNorm, a shift that a softmax takes away) and only must stay as small.
    """
    assert first.keys() == second.keys() == whole.keys()
    gradients = [name for name in whole if name.startswith("gradient.")]
    assert gradients
    noise *= max(whole[name].abs().max().item() for name in gradients)
    for name in gradients:
        expected, own = whole[name], first[name]
        assert torch.equal(own, second[name]), "DDP averages"
        largest = expected.abs().max().item()
        if largest <= noise:
            assert own.abs().max() <= 10 * noise, name
        elif own.dtype == torch.float64:
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-5 * largest)
        else:
            cosine = F.cosine_similarity(own.flatten(), expected.flatten(), dim=0)
            assert cosine >= 0.9999, f"{name}: cosine {cosine}"
    for name in [name for name in whole if name.startswith("buffer.")]:
        torch.testing.assert_close(first[name], whole[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(first[name], second[name]), name
