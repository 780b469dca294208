"""Parts of the training loop by themselves."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from videossl_hf.training.trainer import LossParts, _undisturbed


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def outputs(loss: float, part: float) -> dict[str, Any]:
    return {"loss": torch.tensor(loss), "loss_part": torch.tensor(part), "embeds": torch.zeros(2, 2)}


def test_loss_parts_are_averaged_since_the_last_line() -> None:
    parts = LossParts()
    parts.add(outputs(1.0, 10.0), step=1)
    parts.add(outputs(3.0, 20.0), step=2)
    assert parts.drain(alone) == ({"loss": 2.0, "loss_part": 15.0}, None)
    parts.add(outputs(5.0, 30.0), step=3)
    assert parts.drain(alone) == ({"loss": 5.0, "loss_part": 30.0}, None)
    assert parts.drain(alone) == ({}, None)


def test_means_are_taken_over_processes() -> None:
    parts = LossParts()
    parts.add(outputs(1.0, 10.0), step=1)
    means, _ = parts.drain(lambda tensor: torch.cat([tensor, 3 * tensor]))
    assert means == {"loss": 2.0, "loss_part": 20.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_step_whose_loss_is_not_finite_is_remembered(bad: float) -> None:
    parts = LossParts()
    for step, loss in enumerate([1.0, bad, 2.0, bad], start=7):
        parts.add(outputs(loss, 0.0), step)
    assert parts.drain(alone)[1] == 8


def test_taking_up_a_loss_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a value left the device")

    given = [outputs(1.0, 2.0), outputs(3.0, 4.0)]
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    parts = LossParts()
    for step, entry in enumerate(given):
        parts.add(entry, step)


def test_evaluation_leaves_no_trace() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), nn.BatchNorm1d(2).eval())
    modes = [module.training for module in model.modules()]

    def draws() -> tuple[Any, ...]:
        return torch.rand(2).tolist(), random.random(), np.random.random()  # noqa: NPY002

    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    expected = draws()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    with _undisturbed(model):
        assert not any(module.training for module in model.modules())
        model(torch.randn(4, 2))
        draws()
    assert draws() == expected
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[0].running_mean, torch.zeros(2))
