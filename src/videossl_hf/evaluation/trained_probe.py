"""A head on frozen features, trained by SGD or AdamW as the papers train theirs.

Features (or tokens) are cached, so an epoch costs the head alone. Every pair of a learning rate and a weight
decay is trained for the same number of epochs with a cosine to zero, and the pair with the best accuracy on
validation samples is taken; test samples are never looked at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigurationError, DataError, InputError
from .linear import hold_out
from .scores import top_k_accuracy
from .table import check_features

__all__ = ["LINEAR_SETTINGS", "ProbeTraining", "StandardisedLinear", "TrainedProbe", "select_trained_probe"]

Setting = tuple[float, float]
"""Learning rate and weight decay."""


@dataclass(frozen=True)
class ProbeTraining:
    """How a head is trained.

    Attributes:
        optimizer: "sgd" (momentum 0.9) or "adamw".
        learning_rates, weight_decays: all pairs are tried.
        epochs: passes over the training samples.
        batch_size: samples a step.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 5e-3)
    weight_decays: tuple[float, ...] = (1e-2, 1e-1)
    epochs: int = 20
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ConfigurationError(f"a head is trained by sgd or adamw, got {self.optimizer!r}")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ConfigurationError(f"learning rates must be positive, got {list(self.learning_rates)}")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ConfigurationError(f"weight decays must be 0 or more, got {list(self.weight_decays)}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigurationError("a head needs at least one epoch and one sample a step")


LINEAR_SETTINGS = {
    # MoCo and its kind: no decay, rates that look large because the features are standardised and few.
    "sgd": ProbeTraining("sgd", (0.01, 0.03, 0.1, 0.3, 1.0), (0.0,), epochs=50),
    "adamw": ProbeTraining("adamw", (1e-3, 3e-3, 1e-2, 3e-2), (1e-2,), epochs=50),
}
"""Defaults of the linear probe, by optimiser."""


class StandardisedLinear(nn.Module):
    """A linear layer on features that are standardised with the training samples' mean and deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, classes: int) -> None:
        super().__init__()
        scale = features.std(dim=0, correction=0)
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("scale", scale.masked_fill(scale < 1e-12, 1.0))
        self.linear = nn.Linear(features.shape[1], classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(samples, width) -> (samples, classes)."""
        return self.linear((features - self.mean) / self.scale)


@dataclass(frozen=True)
class TrainedProbe:
    """A trained head.

    Attributes:
        head: in evaluation mode.
        learning_rate, weight_decay: the chosen ones.
        validation: accuracy (0 to 1) on the validation samples by pair; 0 where training diverged.
    """

    head: nn.Module
    learning_rate: float
    weight_decay: float
    validation: dict[Setting, float]

    @torch.no_grad()
    def logits(self, features: Tensor, batch_size: int = 256) -> Tensor:
        """(samples, ...) as it was trained on -> (samples, classes)."""
        return torch.cat([self.head(part) for part in features.split(batch_size)])


def select_trained_probe(
    features: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor] | None,
    training: ProbeTraining,
    make_head: Callable[[Tensor, int], nn.Module],
    *,
    num_classes: int,
    seed: int = 0,
) -> TrainedProbe:
    """Train every pair of settings, choose on validation samples, and return the head that goes with it.

    Without a validation split a fifth of every class of train is held out to choose on, and the chosen pair
    is then trained on all of train. Of equally good pairs the first is taken.

    Args:
        features: (train samples, ...), features or tokens.
        labels: (train samples,) int64.
        validation: features and labels of the validation split, or None.
        training: the grid, and how long.
        make_head: from training features and the number of classes to a fresh head.
        num_classes: of the answers.
        seed: of the heads, the order of samples and what is held out.

    Raises:
        InputError: NaN features, or training diverged with every pair.
        DataError: fewer than two classes, or nothing to choose on.
    """
    check_features(features.flatten(1), labels, name="train features")
    if len(labels.unique()) < 2:
        raise DataError("a probe needs at least two classes in the train split, got one")
    fitted, check = (features, labels), validation
    if check is None:
        kept, held = hold_out(labels.cpu(), seed=seed)
        fitted, check = (features[kept], labels[kept]), (features[held], labels[held])
    check_features(check[0].flatten(1), check[1], name="validation features")
    accuracy: dict[Setting, float] = {}
    best: TrainedProbe | None = None
    for setting in itertools.product(training.learning_rates, training.weight_decays):
        head = _train(*fitted, training, setting, make_head, num_classes, seed)
        probe = TrainedProbe(head, *setting, accuracy)
        logits = probe.logits(check[0])
        accuracy[setting] = top_k_accuracy(logits, check[1]) if bool(logits.isfinite().all()) else 0.0
        if best is None or accuracy[setting] > accuracy[best.learning_rate, best.weight_decay]:
            best = probe
    assert best is not None  # the settings refuse an empty grid
    if validation is None:
        chosen = (best.learning_rate, best.weight_decay)
        head = _train(features, labels, training, chosen, make_head, num_classes, seed)
        best = TrainedProbe(head, *chosen, accuracy)
    if not all(bool(value.isfinite().all()) for value in best.head.state_dict().values()):
        raise InputError("the probe diverged with every learning rate that was tried: try lower ones")
    return best


def _train(
    features: Tensor,
    labels: Tensor,
    training: ProbeTraining,
    setting: Setting,
    make_head: Callable[[Tensor, int], nn.Module],
    classes: int,
    seed: int,
) -> nn.Module:
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        head = make_head(features, classes).to(features.device).train()
        optimizer = _optimizer(head, training.optimizer, *setting)
        generator = torch.Generator().manual_seed(seed)
        steps_per_epoch = math.ceil(len(labels) / training.batch_size)
        total = training.epochs * steps_per_epoch
        step = 0
        for _ in range(training.epochs):
            for rows in torch.randperm(len(labels), generator=generator).split(training.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = setting[0] * (1 + math.cos(math.pi * step / total)) / 2
                optimizer.zero_grad()
                F.cross_entropy(head(features[rows]), labels[rows].to(features.device)).backward()
                optimizer.step()
                step += 1
    return head.eval()


def _optimizer(head: nn.Module, name: str, rate: float, decay: float) -> torch.optim.Optimizer:
    """Biases, norms and queries do not decay."""
    matrices = [parameter for parameter in head.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in head.parameters() if parameter.ndim != 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": decay}, {"params": others}]
    if name == "sgd":
        return torch.optim.SGD(groups, rate, momentum=0.9)
    return torch.optim.AdamW(groups, rate, weight_decay=0.0)
