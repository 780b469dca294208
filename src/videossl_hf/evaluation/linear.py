"""Linear probe: multinomial logistic regression on frozen, standardised features, by L-BFGS to convergence.

The objective is that of scikit-learn's `LogisticRegression(C=1 / (l2 * samples))`, divided by the number of
samples:

    mean cross-entropy + l2 / 2 * ||weight||^2        (the bias is free)

It is strictly convex, so the probe depends on nothing but the features: no learning rate, no schedule, no
seed. The strength of the penalty is chosen on validation samples only, never on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    max_iterations: int = 2000,
    tolerance: float = 1e-7,
) -> LinearProbe:
    """Fit a probe with a given penalty, on the device where the features lie.

    Args:
        features: (samples, width).
        labels: (samples,) int64.
        l2: strength of the penalty, positive.
        num_classes: by default the largest label + 1.
        max_iterations: of L-BFGS.
        tolerance: largest gradient entry at which the fit counts as converged.

    Raises:
        InputError: NaN features, labels that do not fit, l2 that is not positive.
        DataError: fewer than two classes among the labels.
    """
    return _Fit(features, labels, num_classes).probe(l2, max_iterations, tolerance)


class _Fit:
    """Training samples in the coordinates in which the problem is easy.

    The penalty does not change under rotations, and weights outside the span of the samples would only cost.
    So the samples are rotated onto their principal axes, found in the smaller of the spaces of features and
    of samples, and each axis is scaled by the curvature that the objective has along it. L-BFGS then needs
    some ten times fewer steps, and wide features cost hardly more than narrow ones.
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int | None = None) -> None:
        check_features(features, labels, name="train features")
        if len(labels.unique()) < 2:
            raise DataError("a linear probe needs at least two classes in the train split, got one")
        self.classes = int(labels.max()) + 1 if num_classes is None else num_classes
        if int(labels.max()) >= self.classes:
            raise InputError(f"label {int(labels.max())} with num_classes={self.classes}")
        inputs = features.double()
        self.targets = labels.to(inputs.device)
        self.mean = inputs.mean(dim=0)
        scale = inputs.std(dim=0, correction=0)
        constant = scale <= 1e-12 * self.mean.abs().clamp(min=1.0)
        self.scale = scale.masked_fill(constant, 1.0)
        self.samples = (inputs - self.mean) / self.scale
        count, width = self.samples.shape
        if width <= count:
            self.variance, self.axes = torch.linalg.eigh(self.samples.T @ self.samples / count)
            self.inputs = self.samples @ self.axes
        else:
            variance, axes = torch.linalg.eigh(self.samples @ self.samples.T / count)
            kept = variance > 1e-11 * variance[-1]
            self.variance = variance[kept]
            self.inputs = axes[:, kept] * (count * self.variance).sqrt()
            self.axes = None

    def probe(self, l2: float, max_iterations: int = 2000, tolerance: float = 1e-7) -> LinearProbe:
        """The minimum of the module's objective."""
        if l2 <= 0:
            raise InputError(
                f"l2 must be positive (without a penalty a separable problem has no solution), got {l2}"
            )
        curvature = (1 - 1 / self.classes) / self.classes
        step = (self.variance.clamp(min=0) * curvature + l2).rsqrt()
        inputs = torch.cat([self.inputs * step, torch.full_like(self.inputs[:, :1], curvature**-0.5)], dim=1)
        penalty = torch.cat([l2 * step.square(), torch.zeros_like(step[:1])])
        solution = _minimise(inputs, self.targets, self.classes, penalty, max_iterations, tolerance)
        rotated = solution[:, :-1] * step
        if self.axes is not None:
            weight = rotated @ self.axes.T
        else:  # the axes are samples.T @ inputs / (count * variance), which is too large to write down
            weight = (rotated / (len(self.samples) * self.variance)) @ self.inputs.T @ self.samples
        return LinearProbe(weight, solution[:, -1] * curvature**-0.5, self.mean, self.scale, l2, {})


def _minimise(
    inputs: Tensor, targets: Tensor, classes: int, penalty: Tensor, max_iterations: int, tolerance: float
) -> Tensor:
    """Minimum over weights (classes, inputs) of mean cross-entropy + sum(penalty * weights^2) / 2."""
    weights = torch.zeros(
        classes, inputs.shape[1], dtype=inputs.dtype, device=inputs.device, requires_grad=True
    )
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weights.T, targets) + (penalty * weights.square()).sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


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
        raise DataError("no class has a second sample to choose settings on: give a validation split")
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
    fit = _Fit(*train, classes)
    probes = {l2: fit.probe(l2) for l2 in sorted(l2_grid, reverse=True)}
    accuracy = {l2: top_k_accuracy(probe.logits(check[0]), check[1]) for l2, probe in probes.items()}
    chosen = max(accuracy, key=lambda l2: accuracy[l2])  # of equal ones the first: the strongest penalty
    best = probes[chosen] if validation is not None else _Fit(features, labels, classes).probe(chosen)
    return replace(best, validation=accuracy)
