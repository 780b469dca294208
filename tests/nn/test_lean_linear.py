"""Linear layers that compute their input again equal those that keep it, with less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from distributed import run_processes
from videossl_hf.nn import lean_linear
from videossl_hf.nn.lean_linear import (
    activation_linear,
    lean_norm,
    norm_and_linear,
    norm_linear,
    plain_linear,
)
from videossl_hf.nn.mlp import Mlp
from videossl_hf.nn.multiply import multiply
from videossl_hf.nn.quick_gelu import QuickGELU


class Block(nn.Module):
    """A residual branch, with the lean steps or the plain ones."""

    def __init__(self, activation: str = "gelu", size: int = 6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.mlp = Mlp(size, 4 * size, activation)
        self.is_lean = True
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters()):
                generator = torch.Generator().manual_seed(place)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_lean:
            return x + self.mlp(x, self.norm)
        return x + self.mlp.fc2(self.mlp.activation(self.mlp.fc1(self.norm(x))))


def plain(block: Block) -> Block:
    block = copy.deepcopy(block)
    block.is_lean = False
    return block


def tokens(size: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 5, size, generator=torch.Generator().manual_seed(9)).to(dtype).requires_grad_()


def trained(block: nn.Module, x: Tensor, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Output and gradients."""
    x = x.detach().requires_grad_(x.requires_grad)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        y = block(x)
    y.float().square().sum().backward()
    return y.detach(), {"x": x.grad} | {name: p.grad for name, p in block.named_parameters()}


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu", "relu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.float32, False), (torch.float64, False), (torch.bfloat16, False), (torch.float32, True),
     (torch.bfloat16, True), (torch.float64, True)],
)  # fmt: skip
def test_values_and_gradients_are_those_of_the_plain_steps(
    activation: str, dtype: torch.dtype, autocast: bool
) -> None:
    block = Block(activation).to(dtype)
    y, gradients = trained(block, tokens(dtype=dtype), autocast)
    expected, wanted = trained(plain(block), tokens(dtype=dtype), autocast)
    assert torch.equal(y, expected)
    torch.testing.assert_close(gradients, wanted)


def test_gradients_are_those_of_finite_differences() -> None:
    block = Block().double()
    x = tokens(dtype=torch.float64)
    names, values = zip(*block.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize(
    "frozen", ["norm", "mlp.fc1", "mlp.fc2", "mlp.fc1.bias", "x", "everything but fc2.bias"]
)
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen: str) -> None:
    block, x = Block(), tokens()
    for name, parameter in block.named_parameters():
        keeps = name == "mlp.fc2.bias" if "but" in frozen else not name.startswith(frozen)
        parameter.requires_grad_(keeps)
    x.requires_grad_(frozen not in ("x", "everything but fc2.bias"))
    y, gradients = trained(block, x)
    expected, wanted = trained(plain(block), x)
    assert torch.equal(y, expected)
    assert {name for name, g in gradients.items() if g is None} == {
        name for name, g in wanted.items() if g is None
    }
    torch.testing.assert_close(
        *({name: g for name, g in some.items() if g is not None} for some in (gradients, wanted))
    )


def kept_bytes(step: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """What a step keeps for its backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = step()  # noqa: F841 - it keeps the graph alive
    return sum(sizes.values())


@pytest.mark.parametrize("autocast", [False, True])
def test_the_norm_and_the_activation_are_not_kept(autocast: bool) -> None:
    block, x = Block(size=32), tokens(32)
    parameters = list(block.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kept = kept_bytes(lambda: block(x), parameters)
    width = 2 if autocast else 4
    casts = 2 * (block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel()) if autocast else 0
    statistics = 2 * 4 * x.shape[0] * x.shape[1]
    assert kept == x.numel() * 4 + 4 * x.numel() * width + statistics + casts


def test_a_linear_layer_behind_a_norm_does_not_keep_it() -> None:
    norm, linear = nn.LayerNorm(32), nn.Linear(32, 8)
    parameters = [*norm.parameters(), *linear.parameters()]
    x, found = tokens(32), []
    kept = kept_bytes(lambda: plain_linear(lean_norm(x, norm), linear), parameters)
    assert kept == x.numel() * 4 + 2 * 4 * x.shape[0] * x.shape[1]
    for y in (plain_linear(lean_norm(x, norm), linear), linear(norm(x))):
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *parameters])])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("frozen", ["nothing", "x", "linear"])
def test_what_is_large_is_activated_in_parts(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x, found = nn.Linear(6, 4), tokens().detach(), []
    linear.requires_grad_(frozen != "linear")
    for size in (lean_linear._PART, 3 * 6 * 4):  # the rows of two fives: all, or three together
        monkeypatch.setattr(lean_linear, "_PART", size)
        linear.zero_grad()
        x = x.detach().requires_grad_(frozen != "x")
        y = activation_linear(x, nn.GELU(), linear)
        y.square().sum().backward()
        found.append([y, *(g for g in (x.grad, linear.weight.grad, linear.bias.grad) if g is not None)])
    assert len(found[0]) == {"nothing": 4, "x": 3, "linear": 2}[frozen]
    torch.testing.assert_close(*found)


def test_a_backward_pass_may_be_taken_twice_and_for_some_inputs_alone() -> None:
    block, x = Block(), tokens()
    y = block(x).square().sum()
    (alone,) = torch.autograd.grad(y, x, retain_graph=True)
    y.backward()
    torch.testing.assert_close(x.grad, alone)
    assert block.mlp.fc1.weight.grad is not None


def test_autocast_still_trains_a_layer_that_is_used_plainly_afterwards() -> None:
    norm, linear, x = nn.LayerNorm(6), nn.Linear(6, 6), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        norm_linear(x, norm, linear)
        activation_linear(x, nn.GELU(), linear)
        y = F.linear(x, linear.weight, linear.bias)
    y.float().sum().backward()
    assert linear.weight.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same(reentrant: bool) -> None:
    block = Block()

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.block, x, use_reentrant=reentrant)

    y, gradients = trained(Checkpointed(), tokens())
    block.zero_grad()
    expected, wanted = trained(block, tokens())
    assert torch.equal(y, expected)
    for (_, found), (_, gradient) in zip(gradients.items(), wanted.items(), strict=True):
        assert torch.equal(found, gradient)


def test_compiled_and_exported_it_is_one_graph() -> None:
    block = Block()
    expected, wanted = trained(block, tokens())
    block.zero_grad()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    y, gradients = trained(compiled, tokens())
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients["x"], wanted["x"])
    program = torch.export.export(block, (tokens().detach(),))
    torch.testing.assert_close(program.module()(tokens().detach()), expected)


class Adapter(nn.Linear):
    """As adapters and quantised layers have it: a linear layer that does more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    "change", ["subclass", "instance", "hook", "pre-hook", "norm hook", "activation hook"]
)
def test_layers_that_do_more_are_called_as_they_are(change: str) -> None:
    block, x = Block(), tokens()
    expected, calls = plain(block)(x), []
    if change == "subclass":
        block.mlp.fc2.__class__ = Adapter
        torch.testing.assert_close(block(x), expected + 1)
        return

    def note(*_: Any) -> None:
        calls.append(change)

    if change == "instance":
        forward = block.mlp.fc1.forward
        block.mlp.fc1.forward = lambda x: (note(), forward(x))[1]  # type: ignore[method-assign]
    elif change == "hook":
        block.mlp.fc2.register_forward_hook(note)
    elif change == "pre-hook":
        block.mlp.fc1.register_forward_pre_hook(note)
    elif change == "norm hook":
        block.norm.register_forward_hook(note)
    else:
        block.mlp.activation.register_forward_hook(note)
    assert torch.equal(block(x), expected)
    assert calls == [change]


def test_activations_with_parameters_are_trained() -> None:
    activation, linear, x = nn.PReLU(), nn.Linear(6, 3), tokens()
    activation_linear(x, activation, linear).sum().backward()
    assert activation.weight.grad is not None
    linear.zero_grad()
    assert torch.equal(activation_linear(x, QuickGELU(), linear), linear(QuickGELU()(x)))


def step_of_one_process(rank: int) -> dict[str, Tensor]:
    block = nn.parallel.DistributedDataParallel(Block().double())
    block(tokens(dtype=torch.float64)[rank : rank + 1].detach()).square().mean().backward()
    return {name: p.grad for name, p in block.module.named_parameters() if p.grad is not None}


def test_two_processes_give_the_gradients_of_one() -> None:
    block = Block().double()
    block(tokens(dtype=torch.float64).detach()).square().mean().backward()
    wanted = {name: p.grad for name, p in block.named_parameters()}
    for found in run_processes(step_of_one_process, 2):
        torch.testing.assert_close(found, wanted)


def test_torch_counts_the_operations_of_a_training_step() -> None:
    """Its counter puts hooks on modules, also on an activation that is computed again."""
    block = Block()

    def operations(block: Block) -> int:
        with FlopCounterMode(display=False) as counter:
            block(tokens()).sum().backward()
        return counter.get_total_flops()

    assert operations(block) == operations(plain(block)) > 0


@pytest.mark.parametrize("used", ["both", "norm", "linear"])
def test_a_norm_that_goes_on_gets_the_gradients_of_both_its_uses(used: str) -> None:
    norm, linear = nn.LayerNorm(6).double(), nn.Linear(6, 4).double()
    found = []
    for function in (norm_and_linear, lambda x, norm, linear: (norm(x), linear(norm(x)))):
        x = tokens(dtype=torch.float64)
        normed, y = function(x, norm, linear)
        loss = normed.sin().sum() * (used != "linear") + y.square().sum() * (used != "norm")
        found.append(torch.autograd.grad(loss, [x, *norm.parameters(), *linear.parameters()]))
    torch.testing.assert_close(*found)


def test_a_norm_that_goes_on_alone_asks_nothing_of_the_linear_layer() -> None:
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 4)
    normed, _ = norm_and_linear(tokens(), norm, linear)
    normed.sin().sum().backward()
    assert norm.weight.grad is not None
    assert linear.weight.grad is None


@pytest.mark.parametrize(
    "shape", [(200, 64), (3, 100, 64), (7, 64), (0, 64)], ids=str
)  # the first two are large
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
def test_the_product_is_that_of_a_linear_layer(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    weight = torch.randn(512, 128, generator=generator).to(dtype)[:, ::2]
    if layout != "strided":
        weight = weight.contiguous() if layout == "rows" else weight.T.contiguous().T
    bias = torch.randn(512, generator=generator).to(dtype)
    for given in (bias, None):
        torch.testing.assert_close(multiply(x, weight, given), F.linear(x, weight, given))
