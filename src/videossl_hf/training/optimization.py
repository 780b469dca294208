"""Optimisers and learning-rate schedules, made from a recipe."""

from __future__ import annotations

import bisect
import dataclasses
import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ..errors import ConfigurationError
from .recipe import OptimizerRecipe, ScheduleRecipe

__all__ = ["LearningRateCurve", "make_optimizer", "make_scheduler", "parameter_groups", "scale_learning_rate"]


def scale_learning_rate(optimizer: OptimizerRecipe, batch_size: int) -> OptimizerRecipe:
    """The same optimiser with lr scaled linearly to the run's batch (Goyal et al., 2017), and the reference
    used up.

    Args:
        batch_size: clips in one optimiser step, over all processes and accumulated forwards.
    """
    if optimizer.reference_batch_size is None:
        return optimizer
    factor = batch_size / optimizer.reference_batch_size
    return dataclasses.replace(optimizer, lr=optimizer.lr * factor, reference_batch_size=None)


def parameter_groups(model: nn.Module, optimizer: OptimizerRecipe) -> list[dict[str, Any]]:
    """What the optimiser gets: the model's own groups where it has a say, else all that is trained.

    A model says it through `parameter_groups(optimizer_config)`, which returns torch parameter groups; each
    may set its own `lr` (the schedule multiplies it) and `weight_decay`.

    Raises:
        ConfigurationError: nothing to train, or a trained parameter that the model's groups name twice or not
            at all.
    """
    trained = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ConfigurationError(
            "the model has no parameter that requires a gradient: there is nothing to train"
        )
    if not hasattr(model, "parameter_groups"):
        return _groups_by_decay(model, optimizer)
    method_model: Any = model
    groups = [dict(group, params=list(group["params"])) for group in method_model.parameter_groups(optimizer)]
    given = [id(parameter) for group in groups for parameter in group["params"]]
    wrong = [trained[key] for key in trained if given.count(key) != 1]
    if wrong:
        raise ConfigurationError(
            f"{type(model).__name__}.parameter_groups must name every trained parameter once; it does not "
            f"for {len(wrong)}, such as {wrong[0]}"
        )
    return groups


def _groups_by_decay(model: nn.Module, optimizer: OptimizerRecipe) -> list[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optimizer.decay_norm_and_bias:
        return [{"params": trained}]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, optimizer: OptimizerRecipe) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over `parameter_groups`; lr is taken as it stands (scale it before).

    AdamW goes over all tensors in one kernel, without temporary ones, where the device has such a kernel.
    """
    groups = parameter_groups(model, optimizer)
    lr, weight_decay = optimizer.lr, optimizer.weight_decay
    if optimizer.name == "sgd":
        momentum, nesterov = optimizer.momentum, optimizer.nesterov
        return torch.optim.SGD(groups, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = devices <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr, optimizer.betas, optimizer.eps, weight_decay, fused=fused)


class LearningRateCurve:
    """The multiple of lr that step `n` (0 is the first) is taken with.

    Warm-up is linear in the step: `start + (1 - start) * n / warmup`, so that step `warmup` is the first at
    full lr. With `warmup_reaches_lr` step `warmup - 1` is at full lr already.
    After it: 1; or a line or half a cosine that reaches `final_factor` at the end; or a product of `gamma`
    at each milestone.
    With `hold_epochs` a step is taken with the multiple of the first step of so many epochs.

    Args:
        max_steps: length of the run.
        steps_per_epoch: turns epochs into steps; None where the data's length is unknown.

    Raises:
        ConfigurationError: epochs are given and the data's length is unknown.
    """

    def __init__(self, schedule: ScheduleRecipe, max_steps: int, steps_per_epoch: int | None) -> None:
        self.schedule = schedule
        self.max_steps = max_steps
        if schedule.warmup_epochs is not None:
            self.warmup = self._to_steps("warmup_epochs", schedule.warmup_epochs, steps_per_epoch)
        else:
            self.warmup = schedule.warmup_steps or 0
        self.milestones = sorted(schedule.milestone_steps) or sorted(
            self._to_steps("milestone_epochs", epoch, steps_per_epoch) for epoch in schedule.milestone_epochs
        )
        self.hold = 1
        if schedule.hold_epochs is not None:
            self.hold = max(1, self._to_steps("hold_epochs", schedule.hold_epochs, steps_per_epoch))

    def _to_steps(self, name: str, epochs: float, steps_per_epoch: int | None) -> int:
        if steps_per_epoch is None:
            in_steps = name.replace("epochs", "steps")
            way_out = (
                f"give schedule.{in_steps} instead" if hasattr(self.schedule, in_steps) else "leave it out"
            )
            raise ConfigurationError(
                f"schedule.{name}: a stream has no length, so that epochs mean nothing; {way_out}"
            )
        return round(epochs * steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The multiple for one step."""
        schedule = self.schedule
        step -= step % self.hold
        if step < self.warmup:
            start = schedule.warmup_start_factor
            length = max(1, self.warmup - 1) if schedule.warmup_reaches_lr else self.warmup
            return start + (1 - start) * step / length
        if schedule.name in ("cosine", "linear"):
            progress = min(1.0, (step - self.warmup) / max(1, self.max_steps - self.warmup))
            share = 1 - progress if schedule.name == "linear" else (1 + math.cos(math.pi * progress)) / 2
            return schedule.final_factor + (1 - schedule.final_factor) * share
        if schedule.name == "steps":
            return schedule.gamma ** bisect.bisect_right(self.milestones, step)
        return 1.0


def make_scheduler(
    optimizer: torch.optim.Optimizer, schedule: ScheduleRecipe, max_steps: int, steps_per_epoch: int | None
) -> LambdaLR:
    """The schedule as torch wants it: `step()` once after every optimiser step."""
    curve = LearningRateCurve(schedule, max_steps, steps_per_epoch)
    # A plain function: of any other callable LambdaLR would write the attributes into the checkpoint.
    return LambdaLR(optimizer, lambda step: curve(step))
