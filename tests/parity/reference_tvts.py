"""TVTS's video tower once more, plainly: functions of official weights, one token after the other where it
helps.

Written from the paper's description alone, to check the package's code against something that shares none of
it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def attention(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    size = x.shape[-1]
    query, key, value = F.linear(x, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"]).split(
        size, dim=-1
    )
    mixed = []
    for part in range(heads):
        own = slice(part * size // heads, (part + 1) * size // heads)
        scores = query[..., own] @ key[..., own].transpose(-1, -2) / math.sqrt(size // heads)
        mixed.append(scores.softmax(-1) @ value[..., own])
    return F.linear(torch.cat(mixed, -1), state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def block(x: Tensor, state: State, name: str, heads: int) -> Tensor:
    x = x + attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", heads)
    hidden = F.linear(
        norm(x, state, f"{name}.norm2"), state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"]
    )
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + F.linear(hidden, state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])


def encode(video: Tensor, kept: Tensor, state: State, heads: int, depth: int) -> Tensor:
    """Tokens `(batch, 1 + tubelets * kept, hidden)` of clips `(batch, frames, channels, height, width)`."""
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    steps, side = kernel.shape[2], kernel.shape[3]
    columns = video.shape[-1] // side
    clips = []
    for clip, places in zip(video, kept, strict=True):
        tokens = [state["cls_token"][0, 0] + state["pos_embed"][0, 0]]
        for tubelet in range(len(clip) // steps):
            for place in places[tubelet].tolist():
                top, left = place // columns * side, place % columns * side
                cube = clip[tubelet * steps : (tubelet + 1) * steps, :, top : top + side, left : left + side]
                patch = (kernel * cube.transpose(0, 1)).sum((1, 2, 3, 4)) + bias
                tokens.append(patch + state["pos_embed"][0, 1 + place] + state["temporal_embed"][0, tubelet])
        clips.append(torch.stack(tokens))
    x = torch.stack(clips)
    for index in range(depth):
        x = block(x, state, f"blocks.{index}", heads)
    return norm(x, state, "norm")
