"""The plain products that training on a CPU uses for short rows equal the attention modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import tiny_vimpac
from videossl_hf.models.vimpac import layers_vimpac
from videossl_hf.models.vimpac.layers_vimpac import VIMPACAttentionStep, axis_padding
from videossl_hf.models.vimpac.short_attention_vimpac import attend_axes


def make_step(axes: list[str], **changes: Any) -> VIMPACAttentionStep:
    torch.manual_seed(0)
    config = tiny_vimpac.make_config(dropout=0.0, **{"attention_dropout": 0.0, **changes})
    config._attn_implementation = "sdpa"
    return VIMPACAttentionStep(config, axes).double().train()


def make_qkv(step: VIMPACAttentionStep) -> Tensor:
    places = torch.Size(step.config.grid).numel()
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1 + places, step.qkv.out_features, dtype=torch.float64, generator=generator)


def make_padding(step: VIMPACAttentionStep, ignore_rows: bool) -> dict[int, Any]:
    is_padding = torch.zeros(2, *step.config.grid, dtype=torch.bool)
    is_padding[0, -1] = True
    return {axis: axis_padding(is_padding, axis, torch.float64, ignore_rows) for axis in range(3)}


@pytest.mark.parametrize("axes", [["T"], ["H", "W"], ["W", "T"]])
@pytest.mark.parametrize("padding", ["none", "plain", "ignored"])
def test_values_and_gradients_are_those_of_the_modules(axes: list[str], padding: str) -> None:
    step, results = make_step(axes), []
    given = None if padding == "none" else make_padding(step, padding == "ignored")
    for attend in (step._attend, step._attend_briefly):
        qkv = make_qkv(step).requires_grad_()
        mixed = attend(qkv, given)
        (mixed * torch.arange(mixed.shape[-1])).sin().sum().backward()
        results.append((mixed.detach(), qkv.grad))
    torch.testing.assert_close(results[1], results[0])


def test_gradients_with_dropout_are_those_of_finite_differences() -> None:
    step = make_step(["H", "W"])
    qkv = make_qkv(step)[:1].requires_grad_()

    def run(qkv: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same places are dropped each time
        axes = [(axis, None, None) for axis in step.axes]
        return attend_axes(qkv, step.config.grid, axes, step.attentions[0].head_dim, dropout=0.4)

    assert torch.autograd.gradcheck(run, (qkv,), fast_mode=True)
    assert not torch.equal(run(qkv), step._attend_briefly(qkv, None))


@pytest.mark.parametrize("asked_for", ["eager", "sdpa"])
def test_a_kernel_that_is_asked_for_and_passes_without_gradient_use_the_modules(
    asked_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return attend_axes(*arguments)

    monkeypatch.setattr(layers_vimpac, "attend_axes", count)
    step = make_step(["T"])
    step.config._attn_implementation = asked_for
    hidden = torch.zeros(1, 1 + torch.Size(step.config.grid).numel(), step.qkv.in_features).double()
    with torch.no_grad():
        step(hidden, torch.nn.Identity())
    assert not calls
    step(hidden, torch.nn.Identity())
    assert len(calls) == (asked_for == "sdpa")
