"""STiCA once more, as plainly as its description reads: loops, no batching, official key names.

An independent reference for the cases that this repository carries; `make_stica.py` writes them with it. It
is not used by the package.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Crops = dict[str, Tensor]


def batch_norm(state: State, key: str, x: Tensor, training: bool) -> Tensor:
    if training:
        state[f"{key}.num_batches_tracked"] += 1
    return F.batch_norm(
        x,
        state[f"{key}.running_mean"],
        state[f"{key}.running_var"],
        state[f"{key}.weight"],
        state[f"{key}.bias"],
        training,
        0.1,
        1e-5,
    )


def blocks(state: State, prefix: str) -> Iterator[tuple[str, int]]:
    """Prefix and stride of every residual block, in order."""
    stage = 1
    while any(key.startswith(f"{prefix}layer{stage}.") for key in state):
        block = 0
        while any(key.startswith(f"{prefix}layer{stage}.{block}.") for key in state):
            yield f"{prefix}layer{stage}.{block}.", 2 if stage > 1 and block == 0 else 1
            block += 1
        stage += 1


def video_network(state: State, prefix: str, x: Tensor, training: bool) -> Tensor:
    x = F.conv3d(x, state[f"{prefix}stem.0.weight"], stride=(1, 2, 2), padding=(0, 3, 3))
    x = batch_norm(state, f"{prefix}stem.1", x, training).relu()
    x = F.conv3d(x, state[f"{prefix}stem.3.weight"], padding=(1, 0, 0))
    x = batch_norm(state, f"{prefix}stem.4", x, training).relu()
    for block, stride in blocks(state, prefix):
        shortcut = x
        for number in (1, 2):
            s = stride if number == 1 else 1
            key = f"{block}conv{number}"
            x = F.conv3d(x, state[f"{key}.0.0.weight"], stride=(1, s, s), padding=(0, 1, 1))
            x = batch_norm(state, f"{key}.0.1", x, training).relu()
            x = F.conv3d(x, state[f"{key}.0.3.weight"], stride=(s, 1, 1), padding=(1, 0, 0))
            x = batch_norm(state, f"{key}.1", x, training)
            if number == 1:
                x = x.relu()
        if f"{block}downsample.0.weight" in state:
            shortcut = F.conv3d(shortcut, state[f"{block}downsample.0.weight"], stride=stride)
            shortcut = batch_norm(state, f"{block}downsample.1", shortcut, training)
        x = (x + shortcut).relu()
    return x


def audio_network(state: State, prefix: str, x: Tensor, training: bool) -> Tensor:
    x = F.conv2d(x, state[f"{prefix}conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(batch_norm(state, f"{prefix}bn1", x, training).relu(), 3, 2, 1)
    for block, stride in blocks(state, prefix):
        shortcut = x
        x = F.conv2d(x, state[f"{block}conv1.weight"], stride=stride, padding=1)
        x = batch_norm(state, f"{block}bn1", x, training).relu()
        x = F.conv2d(x, state[f"{block}conv2.weight"], padding=1)
        x = batch_norm(state, f"{block}bn2", x, training)
        if f"{block}downsample.0.weight" in state:
            shortcut = F.conv2d(shortcut, state[f"{block}downsample.0.weight"], stride=stride)
            shortcut = batch_norm(state, f"{block}downsample.1", shortcut, training)
        x = (x + shortcut).relu()
    return x.mean((2, 3))


def linear(state: State, key: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{key}.weight"], state.get(f"{key}.bias"))


def pooling(state: State, prefix: str, feature_map: Tensor, tokens: int, heads: int) -> Tensor:
    """The output at token 0; without layers the mean of the map."""
    if f"{prefix}transformer.0.norm1.weight" not in state:
        return feature_map.mean((2, 3, 4))
    x = torch.stack(
        [
            feature_map[:, :, start:end].mean((2, 3, 4))
            for start, end in windows(feature_map.shape[2], tokens)
        ],
        dim=1,
    )
    if f"{prefix}pos_embs.0.weight" in state:
        x = x + state[f"{prefix}pos_embs.0.weight"][:tokens]
    size = x.shape[-1] // heads
    layer = 0
    while f"{prefix}transformer.{layer}.norm1.weight" in state:
        key = f"{prefix}transformer.{layer}."
        query, keys = linear(state, f"{key}mha.q_lin", x), linear(state, f"{key}mha.k_lin", x)
        is_full = f"{key}mha.v_lin.weight" in state
        values = linear(state, f"{key}mha.v_lin", x) if is_full else x
        mixed = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = query[..., own] @ keys[..., own].transpose(1, 2) / size**0.5
            mixed.append(scores.float().softmax(-1).to(x.dtype) @ values[..., own])
        attended = torch.cat(mixed, dim=-1)
        attended = linear(state, f"{key}mha.out_lin", attended) if is_full else attended
        x = layer_norm(state, f"{key}norm1", x + attended)
        x = layer_norm(
            state,
            f"{key}norm2",
            x + linear(state, f"{key}ffn.lin2", F.gelu(linear(state, f"{key}ffn.lin1", x))),
        )
        layer += 1
    return x[:, 0]


def windows(length: int, tokens: int) -> list[tuple[int, int]]:
    """Adaptive average pooling of `length` steps to `tokens`."""
    return [(index * length // tokens, -(-(index + 1) * length // tokens)) for index in range(tokens)]


def layer_norm(state: State, key: str, x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + 1e-12).sqrt() * state[f"{key}.weight"] + state[f"{key}.bias"]


def head(state: State, key: str, x: Tensor, training: bool) -> Tensor:
    """Projection to the unit sphere, without dropout."""
    x = linear(state, f"{key}.block_forward.2", x)
    x = batch_norm(state, f"{key}.block_forward.4", x, training).relu()
    x = linear(state, f"{key}.block_forward.8", x)
    return x / x.norm(dim=1, keepdim=True)


def crop(feature_map: Tensor, box: Tensor) -> Tensor:
    """A space crop (top, bottom, left, right) or a time crop (start, end)."""
    edges = box.tolist()
    if len(edges) == 2:
        return feature_map[:, :, edges[0] : edges[1]]
    return feature_map[..., edges[0] : edges[1], edges[2] : edges[3]]


def ell(query: Tensor, keys: Tensor, temperature: float, first: int = 0) -> Tensor:
    """Mean cross-entropy of finding row `first + i` of the keys for row i of the queries."""
    terms = []
    for row, vector in enumerate(query):
        scores = keys.detach() @ vector / temperature
        terms.append(scores.exp().sum().log() - scores[first + row])
    return torch.stack(terms).mean()


def objective(
    ranks: list[dict[str, Tensor]],
    rank: int,
    counts: dict[str, int],
    alpha: float,
    cross: float,
    within: float,
) -> dict[str, Tensor]:
    """One process's losses, when the keys of all processes are known.

    Args:
        ranks: of each process, `video0`, `video1`, `audio0`, `audio1` `(batch, dim)` and `view0.space_large`
            `(crops, batch, dim)` and so on.
    """
    own = ranks[rank]
    first = rank * len(own["video0"])

    def directed(query: Tensor, name: str, index: int | None, temperature: float) -> Tensor:
        keys = [other[name] if index is None else other[name][index] for other in ranks]
        return ell(query, torch.cat(keys), temperature, first)

    def both(a: str, b: str, index: int | None, temperature: float) -> Tensor:
        x, y = (own[a], own[b]) if index is None else (own[a][index], own[b][index])
        return 0.5 * (directed(x, b, index, temperature) + directed(y, a, index, temperature))

    sums, numbers = [], []
    for axis in ("space", "time"):
        large, small = f"{axis}_large", f"{axis}_small"
        pairs = counts[large] == 2
        sums.append(both(f"view1.{large}", f"view0.{large}", 1, within) if pairs else torch.zeros(()))
        numbers.append(int(pairs))
        terms = [
            directed(own[f"view1.{small}"][j], f"view0.{large}", i, within)
            for i in range(counts[large])
            for j in range(counts[small])
        ]
        sums.append(torch.stack(terms).sum() if terms else torch.zeros(()))
        numbers.append(len(terms))
    crops = torch.stack([value.to(own["video0"].dtype) for value in sums])
    cross_modal = 0.5 * sum(both(f"video{view}", f"audio{view}", None, cross) for view in (0, 1))
    loss_crops = crops.sum() / sum(numbers)
    return {
        "loss": (1 - alpha) * loss_crops + alpha * cross_modal,
        "loss_av": cross_modal,
        "loss_crops": loss_crops,
        "crop_loss_sums": crops,
        "crop_loss_counts": torch.tensor(numbers),
    }
