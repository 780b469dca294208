"""VIMPAC once more, as plainly as its description reads: rows of tokens in loops, official key names.

An independent reference for the cases that this repository carries; `make_vimpac.py` writes them with it. It
is not used by the package.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
Case = dict[str, Any]


def linear(state: State, key: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{key}.weight"], state.get(f"{key}.bias"))


def layer_norm(state: State, key: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-12)


def position_embedding(state: State, case: Case, grid: tuple[int, int, int]) -> Tensor:
    """(1 + places, hidden), CLS first."""
    tables = {
        key.removeprefix("backbone.positional_embedding."): value
        for key, value in state.items()
        if "positional_embedding." in key
    }
    if case["pos"] == "default":
        return tables["positional_embedding"]
    rows = [tables["cls_pos_embedding"][0]]
    for t in range(grid[0]):
        for h in range(grid[1]):
            for w in range(grid[2]):
                place = tables["temporal_pos_embedding"][t]
                if case["pos"] == "hw_separation":
                    place = place + tables["height_pos_embedding"][h] + tables["width_pos_embedding"][w]
                else:
                    place = place + tables["spatial_pos_embedding"][h * grid[2] + w]
                rows.append(place)
    return torch.stack(rows)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, is_padding: Tensor) -> Tensor:
    """One sequence (tokens, width), its first token CLS."""
    size = q.shape[1] // heads
    parts = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = q[:, own] @ k[:, own].T / math.sqrt(size)
        scores = scores.masked_fill(F.pad(is_padding, (1, 0))[None], -torch.inf)
        parts.append(scores.softmax(-1) @ v[:, own])
    return torch.cat(parts, dim=1)


def branch(
    state: State, key: str, axis: int, cls: Tensor, x: Tensor, heads: int, padded: Tensor
) -> tuple[Tensor, Tensor]:
    """One clip along one axis: CLS (hidden), tokens (frames, rows, columns, hidden)."""
    rows = x.movedim(axis, 2)
    pads = padded.movedim(axis, 2)
    cls_outputs, lines = [], []
    for i in range(rows.shape[0]):
        line = []
        for j in range(rows.shape[1]):
            sequence = torch.cat([cls[None], rows[i, j]])
            q, k, v = (
                linear(state, f"{key}.attention.{part}", sequence) for part in ("query", "key", "value")
            )
            mixed = attend(q, k, v, heads, pads[i, j])
            cls_outputs.append(mixed[0])
            line.append(mixed[1:])
        lines.append(torch.stack(line))
    return torch.stack(cls_outputs).mean(0), torch.stack(lines).movedim(2, axis)


def step(
    state: State, key: str, axes: list[str], case: Case, cls: Tensor, x: Tensor, padded: Tensor
) -> tuple[Tensor, Tensor]:
    norm = f"{key}.LayerNorm" if case["pre"] else f"{key}.output.LayerNorm"
    dense = f"{key}.dense" if case["pre"] else f"{key}.output.dense"
    seen = (layer_norm(state, norm, cls), layer_norm(state, norm, x)) if case["pre"] else (cls, x)
    outputs = [
        branch(
            state,
            f"{key}.attentions.{place}",
            "THW".index(axis),
            *seen,
            case["heads"] // len(axes),
            padded,
        )
        for place, axis in enumerate(axes)
    ]
    results = []
    for place, before in enumerate((cls, x)):
        mixed = linear(state, dense, torch.cat([output[place] for output in outputs], dim=-1))
        results.append(before + mixed if case["pre"] else layer_norm(state, norm, mixed + before))
    return results[0], results[1]


def mlp(state: State, key: str, case: Case, x: Tensor) -> Tensor:
    seen = layer_norm(state, f"{key}.ln", x) if case["pre"] else x
    out = linear(state, f"{key}.mlp.c_proj", F.gelu(linear(state, f"{key}.mlp.c_fc", seen)))
    return x + out if case["pre"] else layer_norm(state, f"{key}.ln", x + out)


def backbone(state: State, case: Case, codes: Tensor, pad_code: int) -> dict[str, Tensor]:
    """All that the cases record of a batch of clips (clips, frames, rows, columns)."""
    grid = (codes.shape[1], codes.shape[2], codes.shape[3])
    positions = position_embedding(state, case, grid)
    found: dict[str, list[Tensor]] = {}

    def record(name: str, cls: Tensor, x: Tensor) -> None:
        found.setdefault(f"{name}_cls", []).append(cls)
        found.setdefault(f"{name}_tokens", []).append(x)

    for clip in codes:
        x = state["backbone.embedding.weight"][clip] + positions[1:].view(*grid, -1)
        cls = state["backbone.cls_param"] + positions[0]
        if not case["pre"]:
            x, cls = layer_norm(state, "backbone.ln_pre", x), layer_norm(state, "backbone.ln_pre", cls)
        record("embed", cls, x)
        padded = clip == pad_code
        for layer in range(case["layers"]):
            key = f"backbone.transformer.resblocks.{layer}"
            for number, axes in enumerate(case["layout"].split(",")):
                cls, x = step(
                    state, f"{key}.attention_blocks.{number}", axes.split("|"), case, cls, x, padded
                )
                if layer == number == 0:
                    record("block0_attn0", cls, x)
            cls, x = mlp(state, key, case, cls), mlp(state, key, case, x)
            if layer == 0:
                record("block0", cls, x)
        if case["pre"]:
            x, cls = layer_norm(state, "backbone.ln_post", x), layer_norm(state, "backbone.ln_post", cls)
        record("last", cls, x)
    output = {name: torch.stack(values) for name, values in found.items()}
    output |= {"cls": output.pop("last_cls"), "hiddens": output.pop("last_tokens")}
    return output | {"pooling": output["hiddens"].mean((1, 2, 3)), "position_embedding": positions}


def token_logits(state: State, hidden: Tensor) -> Tensor:
    x = layer_norm(state, "mlm_head.transform.2", F.gelu(linear(state, "mlm_head.transform.0", hidden)))
    return x @ state["backbone.embedding.weight"].T + state["mlm_head.bias"]


def projection(state: State, case: Case, cls: Tensor, training: bool) -> Tensor:
    x, last = cls, case["nce_layers"] - 1

    def batch_norm(layer: int, y: Tensor) -> Tensor:
        key = f"cls_head.mlp.bn_{layer}"
        statistics = (state[f"{key}.running_mean"], state[f"{key}.running_var"])
        return F.batch_norm(y, *statistics, state[f"{key}.weight"], state[f"{key}.bias"], training, 0.1, 1e-5)

    for layer in range(last):
        x = batch_norm(layer, linear(state, f"cls_head.mlp.linear_{layer}", x)).relu()
    x = linear(state, f"cls_head.mlp.linear_{last}", x)
    return batch_norm(last, x) if case["bn_after"] else x


def contrastive_loss(hidden: Tensor, temperature: float = 0.2) -> Tensor:
    """First clips, then second clips of the same videos, `(2 * videos, dim)`."""
    z = hidden / hidden.norm(dim=1, keepdim=True)
    first, second = z.chunk(2)
    total = z.new_zeros(())
    for queries, positives in ((first, second), (second, first)):
        for i in range(len(queries)):
            others = [positives[k] for k in range(len(positives))]
            others += [queries[k] for k in range(len(queries)) if k != i]
            scores = torch.stack([queries[i] @ other for other in others]) / temperature
            total = total - scores.log_softmax(0)[i] / len(queries)
    return temperature * total
