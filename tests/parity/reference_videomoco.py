"""VideoMoCo once more, as plainly as its description reads: loops, two backward passes, official key names.

An independent reference for the cases that this repository carries; `make_videomoco.py` writes them with it.
It is not used by the package.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def batch_norm(state: State, key: str, x: Tensor, training: bool, eps: float = 1e-5) -> Tensor:
    if training:
        state[f"{key}.num_batches_tracked"] += 1
    mean, variance = state[f"{key}.running_mean"], state[f"{key}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{key}.weight"], state[f"{key}.bias"], training, 0.1, eps)


def tiny_features(state: State, prefix: str, x: Tensor, training: bool) -> Tensor:
    x = F.conv3d(x, state[f"{prefix}conv1.weight"], stride=(1, 2, 2), padding=1)
    x = batch_norm(state, f"{prefix}bn1", x, training).relu()
    x = F.conv3d(x, state[f"{prefix}conv2.weight"], stride=2, padding=1)
    return batch_norm(state, f"{prefix}bn2", x, training).relu().mean((2, 3, 4))


def embed(state: State, prefix: str, x: Tensor, training: bool) -> Tensor:
    x = tiny_features(state, prefix, x, training)
    if f"{prefix}fc.0.weight" in state:
        x = F.linear(x, state[f"{prefix}fc.0.weight"], state[f"{prefix}fc.0.bias"]).relu()
        x = F.linear(x, state[f"{prefix}fc.2.weight"], state[f"{prefix}fc.2.bias"])
    else:
        x = F.linear(x, state[f"{prefix}fc.weight"], state[f"{prefix}fc.bias"])
    return x / x.norm(dim=1, keepdim=True)


def residual_network(state: State, x: Tensor, training: bool) -> dict[str, Tensor]:
    """R3D or MC3: the maps of the stem and of every layer, and `fc`."""
    x = F.conv3d(x, state["stem.0.weight"], stride=(1, 2, 2), padding=(1, 3, 3))
    maps = {"stem": batch_norm(state, "stem.1", x, training).relu()}
    x, layer = maps["stem"], 1
    while f"layer{layer}.0.conv1.0.weight" in state:
        block = 0
        while f"layer{layer}.{block}.conv1.0.weight" in state:
            prefix, shortcut = f"layer{layer}.{block}.", x
            for number in (1, 2):
                weight = state[f"{prefix}conv{number}.0.weight"]
                step = 2 if layer > 1 and block == 0 and number == 1 else 1
                has_time = weight.shape[2] == 3
                stride, padding = (step if has_time else 1, step, step), (int(has_time), 1, 1)
                x = F.conv3d(x, weight, stride=stride, padding=padding)
                x = batch_norm(state, f"{prefix}conv{number}.1", x, training)
                if number == 1:
                    first_stride, x = stride, x.relu()
            if f"{prefix}downsample.0.weight" in state:
                shortcut = F.conv3d(shortcut, state[f"{prefix}downsample.0.weight"], stride=first_stride)
                shortcut = batch_norm(state, f"{prefix}downsample.1", shortcut, training)
            x, block = (x + shortcut).relu(), block + 1
        maps[f"layer{layer}"], layer = x, layer + 1
    maps["pooled"] = x.mean((2, 3, 4))
    maps["fc"] = F.linear(maps["pooled"], state["fc.weight"], state["fc.bias"])
    return maps


def score(state: State, clips: Tensor, training: bool) -> dict[str, Tensor]:
    """The generator's stages for clips `(batch, channels, frames, height, width)`."""
    g = "mask_generator."
    x = clips.flatten(1, 2)
    for _ in range(3):
        x = F.conv2d(x, state[f"{g}Conv_BN.0.weight"], dilation=2, padding=1)
        x = batch_norm(state, f"{g}Conv_BN.1", x, training, 1e-3).relu()
        x = F.max_pool2d(x, 2, stride=1, padding=1)
    stages = {"stem": x}
    image = F.conv2d(x.mean((2, 3), keepdim=True), state[f"{g}conv.weight"], state[f"{g}conv.bias"])
    parts = [image.expand_as(x)]
    for rate in (1, 6, 12, 18):
        name = f"{g}atrous_block{rate}"
        padding = 0 if rate == 1 else rate
        parts.append(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 1, padding, rate))
    name = f"{g}conv_1x1_output"
    x = stages["aspp"] = F.conv2d(torch.cat(parts, 1), state[f"{name}.weight"], state[f"{name}.bias"])
    x = F.conv2d(x, state[f"{g}conv2.0.weight"], state[f"{g}conv2.0.bias"], padding=1)
    x = batch_norm(state, f"{g}conv2.1", x, training).relu()
    for _ in range(3):
        for _ in range(2):
            x = F.conv2d(x, state[f"{g}conv1.0.weight"], state[f"{g}conv1.0.bias"], padding=1)
            x = batch_norm(state, f"{g}conv1.1", x, training).relu()
        x = F.avg_pool2d(x, 2)
    stages["lstm_in"] = x.flatten(2)
    forward = lstm(state, f"{g}rnn.", stages["lstm_in"], "")
    backward = lstm(state, f"{g}rnn.", stages["lstm_in"][:, -1:], "_reverse")
    stages["lstm_last"] = torch.cat([forward, backward], 1)
    logits = F.linear(stages["lstm_last"], state[f"{g}fc.0.weight"], state[f"{g}fc.0.bias"])
    stages["scores"] = logits.exp() / logits.exp().sum(1, keepdim=True)
    return stages


def lstm(state: State, prefix: str, steps: Tensor, suffix: str) -> Tensor:
    """State after the last of `(batch, steps, values)`."""
    weights = [
        state[f"{prefix}{name}_l0{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    hidden = cell = steps.new_zeros(len(steps), weights[1].shape[1])
    for x in steps.unbind(1):
        gates = F.linear(x, weights[0], weights[2]) + F.linear(hidden, weights[1], weights[3])
        i, f, g, o = gates.chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
    return hidden


def drop(clips: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Clips `(batch, channels, frames, ...)` without their lowest frames, and which these are. The scores are
    added and taken away again, so that their gradient is what the method says."""
    chosen = torch.stack([torch.tensor(sorted(row.argsort()[:count].tolist())) for row in scores])
    fake = clips.detach().clone()
    for sample, frames in enumerate(chosen.tolist()):
        for frame in frames:
            fake[sample, :, frame] = clips[sample, :, frame].mean()
    moved = (scores - scores.detach())[:, None, :, None, None]
    return fake + moved, chosen


class Queue:
    """The queue with its ages, and the official order of one forward pass."""

    def __init__(self, state: State, ages: Tensor, args: dict[str, Any]) -> None:
        self.keys, self.ages, self.pointer = state["queue"], ages, int(state["queue_ptr"])
        self.args = args

    def forward(
        self, states: list[State], fake: Tensor, real: Tensor, keys: Tensor, decay: float, order: Tensor
    ) -> dict[str, list[Tensor]]:
        """Every process's results; `states` has each process's own weights and statistics."""
        args, results = self.args, {"q_real": [], "q_fake": [], "logits": [], "loss_d": [], "loss_g": []}
        training, world = args.get("train", True), len(states)
        batch = len(fake) // world
        encoded = torch.zeros(len(keys), args["dim"], dtype=keys.dtype)
        for rank, state in enumerate(states):
            rows = slice(rank * batch, (rank + 1) * batch)
            results["q_real"].append(embed(state, "encoder_q.", real[rows], training))
            results["q_fake"].append(embed(state, "encoder_q.", fake[rows], training))
            with torch.no_grad():
                for key, value in state.items():
                    if key.startswith("encoder_k.") and "running" not in key and "num_" not in key:
                        query = state[key.replace("encoder_k.", "encoder_q.")]
                        value.copy_(args["m"] * value + (1 - args["m"]) * query)
                own = order[rows]
                encoded[own] = embed(state, "encoder_k.", keys[own], training)
        for rank in range(world):
            q = results["q_fake"][rank]
            columns = [(q * encoded[rank * batch : (rank + 1) * batch]).sum(1)]
            for column, age in enumerate(self.ages.tolist()):
                columns.append(q @ (self.keys[:, column] * decay**age).clone())
            logits = torch.stack(columns, 1) / args["T"]
            results["logits"].append(logits)
            results["loss_d"].append((logits.logsumexp(1) - logits[:, 0]).mean())
            results["loss_g"].append(-100 * (q - results["q_real"][rank]).abs().mean())
        self.ages += 1
        for key in encoded:
            self.keys[:, self.pointer], self.ages[self.pointer] = key, 1
            self.pointer = (self.pointer + 1) % args["K"]
        return results

    def outputs(self, step: int) -> dict[str, Tensor]:
        pointer = torch.tensor([self.pointer])
        state = {"queue": self.keys, "count": self.ages, "queue_ptr": pointer}
        return {f"{name}.{step}": value.clone() for name, value in state.items()}
