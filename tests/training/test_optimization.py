"""Optimisers and schedules do what the recipe says, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from videossl_hf.errors import ConfigurationError
from videossl_hf.training.optimization import (
    LearningRateCurve,
    make_optimizer,
    make_scheduler,
    parameter_groups,
    scale_learning_rate,
)
from videossl_hf.training.recipe import OptimizerRecipe, ScheduleRecipe


def curve(max_steps: int = 10, steps_per_epoch: int | None = 2, **settings: Any) -> list[float]:
    schedule = LearningRateCurve(ScheduleRecipe(**settings), max_steps, steps_per_epoch)
    return [schedule(step) for step in range(max_steps)]


def test_warm_up_is_linear_per_step_and_then_constant() -> None:
    values = curve(name="constant", warmup_steps=4, warmup_start_factor=0.2)
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 6])


def test_warm_up_in_epochs_counts_their_steps() -> None:
    assert curve(name="constant", warmup_epochs=1.5) == curve(name="constant", warmup_steps=3)


def test_a_warm_up_may_come_down_from_above() -> None:
    assert curve(name="constant", warmup_steps=2, warmup_start_factor=8.0)[:3] == [8.0, 4.5, 1.0]


def test_a_warm_up_can_reach_lr_with_its_own_last_step() -> None:
    values = curve(name="constant", warmup_steps=4, warmup_reaches_lr=True)
    assert values[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert curve(name="constant", warmup_steps=1, warmup_reaches_lr=True)[:2] == [0, 1]


def test_cosine_goes_from_one_to_its_end_over_the_rest_of_the_run() -> None:
    schedule = LearningRateCurve(ScheduleRecipe(name="cosine", warmup_steps=2, final_factor=0.1), 12, None)
    assert schedule(2) == 1.0
    assert schedule(7) == pytest.approx(0.55)
    assert schedule(12) == pytest.approx(0.1)


def test_steps_multiply_by_gamma_at_each_milestone() -> None:
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert curve(name="steps", milestone_steps=[3, 7], gamma=0.5) == expected
    assert curve(name="steps", milestone_epochs=[1.5, 3.5], gamma=0.5) == expected


def test_a_held_rate_changes_once_in_so_many_epochs() -> None:
    rising = {"name": "constant", "warmup_epochs": 4, "warmup_start_factor": 0.2}
    assert curve(hold_epochs=2, **rising) == pytest.approx([0.2] * 4 + [0.6] * 4 + [1.0] * 2)
    assert curve(hold_epochs=0.1, **rising) == curve(**rising), "never less than a step"


def test_a_rate_held_for_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="hold_epochs must be above 0, or null"):
        ScheduleRecipe(name="constant", hold_epochs=0)


def test_epochs_of_a_stream_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"give schedule\.warmup_steps instead"):
        curve(steps_per_epoch=None, warmup_epochs=1)
    with pytest.raises(ConfigurationError, match=r"schedule\.hold_epochs: a stream .* leave it out"):
        curve(steps_per_epoch=None, hold_epochs=1)


def test_the_scheduler_multiplies_each_groups_own_rate() -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 2.0}, {"params": [bias], "lr": 4.0}])
    scheduler = make_scheduler(optimizer, ScheduleRecipe(name="constant", warmup_steps=2), 4, None)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates == [[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]


def test_the_learning_rate_scales_with_the_batch_once() -> None:
    recipe = OptimizerRecipe(lr=0.64, reference_batch_size=512)
    scaled = scale_learning_rate(recipe, 64)
    assert scaled.lr == pytest.approx(0.08)
    assert scale_learning_rate(scaled, 64).lr == scaled.lr
    assert scale_learning_rate(OptimizerRecipe(lr=0.64), 64).lr == 0.64


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)


def test_all_trained_parameters_decay_unless_the_recipe_spares_norms_and_biases() -> None:
    model = Network()
    (everything,) = parameter_groups(model, OptimizerRecipe())
    assert len(everything["params"]) == 4
    matrices, vectors = parameter_groups(model, OptimizerRecipe(decay_norm_and_bias=False))
    assert [parameter.ndim for parameter in matrices["params"]] == [2]
    assert [parameter.ndim for parameter in vectors["params"]] == [1, 1, 1]
    assert vectors["weight_decay"] == 0.0


class NetworkWithGroups(Network):
    forgotten = False

    def parameter_groups(self, optimizer_config: OptimizerRecipe) -> list[dict[str, Any]]:
        groups = [{"params": self.layer.parameters(), "lr": optimizer_config.lr / 10}]
        return groups if self.forgotten else [*groups, {"params": self.norm.parameters()}]


def test_a_model_chooses_its_own_groups() -> None:
    optimizer = make_optimizer(NetworkWithGroups(), OptimizerRecipe(name="sgd", lr=0.5, momentum=0.8))
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]
    assert optimizer.param_groups[1]["momentum"] == 0.8


def test_a_model_that_forgets_parameters_is_told_which() -> None:
    model = NetworkWithGroups()
    model.forgotten = True
    with pytest.raises(ConfigurationError, match=r"does not for 2, such as norm\.weight"):
        parameter_groups(model, OptimizerRecipe())


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to train"):
        parameter_groups(Network().requires_grad_(False), OptimizerRecipe())


def test_adamw_takes_betas_eps_and_decay() -> None:
    recipe = OptimizerRecipe(name="adamw", lr=0.1, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.2)
    (group,) = make_optimizer(Network(), recipe).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.1, (0.5, 0.6), 1e-3, 0.2)
