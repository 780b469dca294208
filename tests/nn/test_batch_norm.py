from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distributed import run_processes
from videossl_hf.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupedBatchNorm1d

SHAPES = [
    (BatchNorm1d, nn.BatchNorm1d, (6, 5)),
    (BatchNorm1d, nn.BatchNorm1d, (6, 5, 7)),
    (BatchNorm2d, nn.BatchNorm2d, (6, 5, 4, 3)),
    (BatchNorm3d, nn.BatchNorm3d, (6, 5, 4, 3, 2)),
]

KINDS = ("1d", "2d", "3d", "grouped")


def _random_layer(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return layer


def _run(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.arange(y.numel()).view_as(y).to(y.dtype).sin()).sum().backward()
    gradients = {"x": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    return {"y": y.detach(), **gradients, **dict(layer.named_buffers())}


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], share: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=share * value.abs().max().item() + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ours", "torchs", "shape"), SHAPES)
def test_one_process_gives_what_torch_gives(
    ours: type, torchs: type, shape: tuple, dtype: torch.dtype
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 3 + 5
    layer, reference = _random_layer(ours(5)).to(dtype), _random_layer(torchs(5)).to(dtype)
    _assert_same(_run(layer, x), _run(reference, x), 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_state_and_output_are_interchangeable_with_torch(training: bool) -> None:
    layer, reference = BatchNorm3d(5).train(training), nn.BatchNorm3d(5).train(training)
    reference.load_state_dict(_random_layer(layer).state_dict())
    x = torch.randn(2, 5, 3, 4, 4)
    torch.testing.assert_close(layer(x), reference(x))


def test_statistics_of_channels_last_tensors_keep_float32_precision() -> None:
    x = torch.randn(2, 8, 16, 56, 56, generator=torch.Generator().manual_seed(0)) + 3
    x = x.contiguous(memory_format=torch.channels_last_3d)
    layer = BatchNorm3d(8, momentum=1.0)
    layer(x)
    torch.testing.assert_close(layer.running_mean.double(), x.double().mean((0, 2, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.running_var.double(), x.double().var((0, 2, 3, 4)), rtol=1e-6, atol=0)


def test_a_single_value_a_channel_leaves_everything_finite() -> None:
    layer = BatchNorm1d(4)
    results = _run(layer, torch.randn(1, 4))
    assert all(value.isfinite().all() for value in results.values())
    assert layer.running_var.eq(0.9).all()


def test_checkpointing_counts_a_batch_once() -> None:
    plain, checkpointed = BatchNorm3d(3), BatchNorm3d(3)
    x = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    plain(x).sum().backward()
    for use_reentrant in (False, True):
        layer = copy.deepcopy(checkpointed)
        checkpoint(layer, x, use_reentrant=use_reentrant).sum().backward()
        assert layer.num_batches_tracked == 1
        torch.testing.assert_close(layer.running_mean, plain.running_mean)


def test_groups_are_batches_of_their_own_one_after_the_other() -> None:
    x = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1
    grouped = _random_layer(GroupedBatchNorm1d(5)).double()
    reference = _random_layer(nn.BatchNorm1d(5)).double()
    torch.testing.assert_close(grouped(x), torch.stack([reference(group) for group in x]))
    _assert_same(dict(grouped.named_buffers()), dict(reference.named_buffers()), 1e-12)
    torch.testing.assert_close(grouped.eval()(x), torch.stack([reference.eval()(group) for group in x]))


def _of_rank(rank: int, sizes: list[int], synchronized: bool) -> dict[str, dict[str, Tensor]]:
    """Runs in a process of its own."""
    start = sum(sizes[:rank])
    return {kind: _of_part(kind, slice(start, start + sizes[rank]), sizes, synchronized) for kind in KINDS}


def _of_part(kind: str, own: slice, sizes: list[int], synchronized: bool) -> dict[str, Tensor]:
    layer, x = _joined_case(kind, sum(sizes))
    layer.synchronized = synchronized
    x = (x[:, own] if kind == "grouped" else x[own]).clone().requires_grad_()
    y = layer(x)
    _weighted(y, kind, own).backward()
    gradients = {"x": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    return {"y": y.detach(), **gradients, **dict(layer.named_buffers())}


def _joined_case(kind: str, batch: int) -> tuple[nn.Module, Tensor]:
    shapes = {"1d": (batch, 5), "2d": (batch, 5, 4, 3), "3d": (batch, 5, 4, 3, 2), "grouped": (3, batch, 5)}
    makers = {"1d": BatchNorm1d, "2d": BatchNorm2d, "3d": BatchNorm3d, "grouped": GroupedBatchNorm1d}
    x = torch.randn(shapes[kind], generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 3
    return _random_layer(makers[kind](5)).double(), x


def _weighted(y: Tensor, kind: str, own: slice) -> Tensor:
    """A loss whose gradient differs for every sample of the joined batch."""
    axis = 1 if kind == "grouped" else 0
    samples = torch.arange(100, dtype=y.dtype)[own].add(1).sin()
    shape = [-1 if index == axis else 1 for index in range(y.dim())]
    return (y.square() * samples.view(shape)).sum()


def test_two_processes_with_unequal_batches_are_one_batch() -> None:
    sizes = [4, 3]
    ranks = run_processes(_of_rank, 2, sizes, True)
    for kind in KINDS:
        whole = _of_part(kind, slice(0, sum(sizes)), sizes, True)
        found = [rank[kind] for rank in ranks]
        axis = 1 if kind == "grouped" else 0
        joined = {name: torch.cat([rank[name] for rank in found], dim=axis) for name in ("y", "x")}
        joined |= {name: found[0][name] + found[1][name] for name in ("weight", "bias")}
        _assert_same(joined, {name: whole[name] for name in joined}, 1e-10)
        buffers = {name: whole[name] for name in ("running_mean", "running_var", "num_batches_tracked")}
        for rank in found:
            _assert_same(rank, buffers, 1e-10)


def test_without_synchronization_each_process_keeps_to_itself() -> None:
    first, second = run_processes(_of_rank, 2, [4, 3], False)
    for kind in KINDS:
        assert not torch.allclose(first[kind]["running_mean"], second[kind]["running_mean"])
