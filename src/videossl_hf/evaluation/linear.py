"""Linear probe: multinomial logistic regression on frozen, standardised features, by L-BFGS to convergence.

The objective is that of scikit-learn's `LogisticRegression(C=1 / (l2 * samples))`, divided by the number of
samples:

    mean cross-entropy + l2 / 2 * ||weight||^2        (the bias is free)

It is strictly convex, so the probe depends on nothing but the features: no learning rate, no schedule, no
seed. The strength of the penalty is chosen on validation samples only, never on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, InputError
from .scores import top_k_accuracy
from .table import check_features

__all__ = ["DEFAULT_L2_GRID", "LinearProbe", "fit_linear_probe", "hold_out", "select_linear_probe"]

DEFAULT_L2_GRID = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight: (classes, width) float64, acting on standardised features.
        bias: (classes,) float64.
        mean: (width,) float64, of the training features.
        scale: (width,) float64, their standard deviation (1 where a feature is constant).
        l2: strength of the penalty.
        validation: accuracy (0 to 1) on the validation samples by l2; empty when l2 was given.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    l2: float
    validation: dict[float, float]

    def logits(self, features: Tensor) -> Tensor:
        """(samples, width) -> (samples, classes) float64."""
        check_features(features, name="test features")
        if features.shape[1] != len(self.mean):
            raise InputError(
                f"the probe was fitted on {len(self.mean)} wide features, got {features.shape[1]}"
            )
        return F.linear((features.to(self.mean) - self.mean) / self.scale, self.weight, self.bias)

    def predict(self, features: Tensor) -> Tensor:
        """(samples, width) -> (samples,) int64, the most probable class."""
        return self.logits(features).argmax(dim=1)


def fit_linear_probe(
    features: Tensor,
    labels: Tensor,
    *,
    l2: float,
    num_classes: int | None = None,
    initial: LinearProbe | None = None,
    max_iterations: int = 2000,
    tolerance: float = 1e-9,
) -> LinearProbe:
    """Fit a probe with a given penalty, on the device where the features lie.

    Args:
        features: (samples, width).
        labels: (samples,) int64.
        l2: strength of the penalty, positive.
        num_classes: by default the largest label + 1.
        initial: a probe of the same features to start from (same answer, sooner).
        max_iterations: of L-BFGS.
        tolerance: largest gradient entry at which the fit counts as converged.

    Raises:
        InputError: NaN features, labels that do not fit, l2 that is not positive.
        DataError: fewer than two classes among the labels.
    """
    check_features(features, labels, name="train features")
    if l2 <= 0:
        raise InputError(
            f"l2 must be positive (without a penalty a separable problem has no solution), got {l2}"
        )
    if len(labels.unique()) < 2:
        raise DataError("a linear probe needs at least two classes in the train split, got one")
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if int(labels.max()) >= classes:
        raise InputError(f"label {int(labels.max())} with num_classes={classes}")
    inputs = features.double()
    mean = inputs.mean(dim=0)
    scale = inputs.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-12 * mean.abs().clamp(min=1.0), scale, torch.ones_like(scale))
    inputs = (inputs - mean) / scale
    targets = labels.to(inputs.device)
    start = torch.zeros(classes, inputs.shape[1] + 1, dtype=torch.float64, device=inputs.device)
    if initial is not None:
        start.copy_(torch.cat([initial.weight, initial.bias[:, None]], dim=1))
    solution = _minimise(inputs, targets, l2, start, max_iterations, tolerance)
    return LinearProbe(solution[:, :-1], solution[:, -1], mean, scale, l2, {})


def _minimise(
    inputs: Tensor, targets: Tensor, l2: float, start: Tensor, max_iterations: int, tolerance: float
) -> Tensor:
    """The minimum of the module's objective over (classes, width + 1), the last column being the bias."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        weight, bias = parameters[:, :-1], parameters[:, -1]
        loss = F.cross_entropy(F.linear(inputs, weight, bias), targets) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return parameters.detach()


def hold_out(labels: Tensor, share: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split rows class by class: (kept, held out), both sorted.

    Every class keeps at least one row; a class with a single row gives none away.

    Args:
        labels: (samples,) int64.
        share: of each class that is held out, between 0 and 1.
        seed: of the draw.

    Raises:
        DataError: every class has a single sample, so that nothing could be held out.
    """
    generator = torch.Generator().manual_seed(seed)
    held: list[Tensor] = []
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    out = torch.cat(held).sort().values
    if len(out) == 0:
        raise DataError("no class has a second sample to choose l2 on: give a validation split, or fix l2")
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[out] = False
    return kept.nonzero().flatten(), out


def select_linear_probe(
    features: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor] | None = None,
    *,
    l2_grid: Sequence[float] = DEFAULT_L2_GRID,
    num_classes: int | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Choose the penalty on validation samples and return the probe that goes with it.

    With a validation split, the probes are fitted on all of train. Without one, a fifth of every class of
    train is held out to choose on, and the chosen penalty is then fitted on all of train. Of equally good
    penalties the strongest is taken.

    Args:
        features: (train samples, width).
        labels: (train samples,) int64.
        validation: (features, labels) of the validation split, or None.
        l2_grid: penalties to try.
        num_classes: by default the largest train label + 1.
        seed: of the held-out draw.
    """
    check_features(features, labels, name="train features")
    if not l2_grid:
        raise InputError("l2_grid is empty: name at least one penalty")
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if validation is None:
        kept, held = hold_out(labels.cpu(), seed=seed)
        train, check = (features[kept], labels[kept]), (features[held], labels[held])
    else:
        check_features(*validation, name="validation features")
        train, check = (features, labels), validation
    best: LinearProbe | None = None
    previous: LinearProbe | None = None
    accuracy: dict[float, float] = {}
    for l2 in sorted(l2_grid, reverse=True):
        previous = fit_linear_probe(*train, l2=l2, num_classes=classes, initial=previous)
        accuracy[l2] = top_k_accuracy(previous.logits(check[0]), check[1].to(previous.weight.device))
        if best is None or accuracy[l2] > accuracy[best.l2]:
            best = previous
    assert best is not None
    if validation is None:
        best = fit_linear_probe(features, labels, l2=best.l2, num_classes=classes)
    return LinearProbe(best.weight, best.bias, best.mean, best.scale, best.l2, accuracy)
