"""The alignment of ILA written plainly, pair by pair and cell by cell, under the official names.

Nothing is shared with the package: frames are copied into pairs, masks are filled in loops, all nine of them.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def batch_norm(x: Tensor, state: State, name: str, training: bool) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], training)


def convolution(x: Tensor, state: State, name: str, padding: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def pair_features(pairs: Tensor, state: State, training: bool) -> Tensor:
    """Dense block on `(pairs, 2 * hidden, side, side)`."""
    x = convolution(pairs, state, "interactive_block.0", 1)
    x = F.relu(batch_norm(x, state, "interactive_block.1", training))
    x = convolution(x, state, "interactive_block.3", 1)
    return F.relu(batch_norm(x, state, "interactive_block.4", training))


def predict_points(features: Tensor, state: State, pairs: int, training: bool) -> Tensor:
    """`(batch, pairs, 4)`."""
    x = batch_norm(
        convolution(features, state, "prediction_block.0", 1), state, "prediction_block.1", training
    )
    x = F.relu(F.max_pool2d(x, 2))
    x = batch_norm(convolution(x, state, "prediction_block.4", 1), state, "prediction_block.5", training)
    x = F.relu(F.max_pool2d(x, 2)).amax((2, 3))
    x = x.unflatten(0, (-1, pairs)).transpose(1, 2)
    x = F.relu(F.conv1d(x, state["prediction_block.10.weight"], state["prediction_block.10.bias"], groups=2))
    x = F.conv1d(x, state["prediction_block.12.weight"], state["prediction_block.12.bias"], groups=2)
    return 0.75 * x.tanh().transpose(1, 2)


def mask_at(point: Tensor, side: int) -> Tensor:
    """One mask `(side, side)`, cell by cell."""

    def profile(distance: Tensor) -> Tensor:
        one, fall = torch.ones(()), 1 - 1.5 * (distance - 0.25)
        return one if distance <= 0.25 else torch.clamp(fall, min=0)

    places = [2 * index / (side - 1) - 1 for index in range(side)]
    rows = [
        torch.stack([profile((y - point[1]).abs()) * profile((x - point[0]).abs()) for x in places])
        for y in places
    ]
    return torch.stack(rows)


def disturbed_mask(point: Tensor, side: int, shift: float) -> Tensor:
    """Mean of the nine masks around a point, or the mask itself without a shift."""
    steps = itertools.product((-shift, 0.0, shift), repeat=2) if shift else [(0.0, 0.0)]
    return torch.stack([mask_at(point + torch.tensor(step), side) for step in steps]).mean(0)


def align(tokens: Tensor, state: State, shift: float, training: bool) -> dict[str, Tensor]:
    """Everything that the official module gives for tokens `(batch, frames, 1 + side * side, hidden)`."""
    batch, frames, count, hidden = tokens.shape
    side, pairs = round((count - 1) ** 0.5), frames - 1
    maps = tokens[:, :, 1:].transpose(2, 3).unflatten(3, (side, side))
    joined = torch.cat([maps[:, :-1], maps[:, 1:]], dim=2).flatten(0, 1)
    features = pair_features(joined, state, training)
    points = predict_points(features, state, pairs, training)
    half = features.shape[1] // 2
    by_pair = features.unflatten(0, (batch, pairs))

    aligned = [[[] for _ in range(frames)] for _ in range(batch)]
    mixed = [[[] for _ in range(frames)] for _ in range(batch)]
    pooled = torch.zeros(batch, pairs, 2 * hidden)
    for clip, pair, later in itertools.product(range(batch), range(pairs), (0, 1)):
        mask = disturbed_mask(points[clip, pair, 2 * later : 2 * later + 2], side, shift)
        frame = maps[clip, pair + later] * mask
        aligned[clip][pair + later].append(frame)
        mixed[clip][pair + later].append(by_pair[clip, pair, half * later : half * (later + 1)])
        pooled = pooled.clone()
        pooled[clip, pair, hidden * later : hidden * (later + 1)] = frame.sum((1, 2))
    own = tokens[:, :, :1]
    frames_of = [torch.stack([torch.stack(each).mean(0) for each in clip]) for clip in aligned]
    patches = torch.stack(frames_of).flatten(3).transpose(2, 3)
    mixed_maps = torch.stack([torch.stack([torch.stack(each).mean(0) for each in clip]) for clip in mixed])
    volume = F.conv3d(mixed_maps.transpose(1, 2), state["conv.weight"], state["conv.bias"], padding=(1, 0, 0))
    projected = F.linear(volume.permute(0, 2, 3, 4, 1), state["fc.weight"], state["fc.bias"]).flatten(2, 3)
    interactive = torch.cat([own, projected], dim=2)
    losses = 1 - F.cosine_similarity(pooled[..., :hidden], pooled[..., hidden:], dim=-1)
    return {
        "points": points,
        "pair": pooled[None],
        "aligned_frame": torch.cat([own, patches], dim=2),
        "interactive_feature": interactive.flatten(0, 1).transpose(0, 1),
        "cos_loss": losses.mean(),
    }
