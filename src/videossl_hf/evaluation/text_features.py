"""Texts in the space in which a model compares them with clips, and classes that are named by texts.

Works with every model whose `get_text_features` takes what its processor makes of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["class_features", "fill_prompts", "text_features"]

Text = str | list[str]
"""One text, or the scripts of one clip."""


@torch.no_grad()
def text_features(model: nn.Module, processor: Any, texts: Sequence[Text], batch_size: int = 64) -> Tensor:
    """Features of texts, `(texts, width)` float32 on the CPU, of any length.

    Args:
        model: in evaluation mode, with `get_text_features`.
        processor: of that model; called with `text=` a list of texts.
        texts: of each item one text, or equally many scripts where the model takes those.
        batch_size: items through the text tower at a time.

    Raises:
        InputError: the model has no text tower, or there are no texts.
    """
    embed: Any = getattr(model, "get_text_features", None)
    if embed is None:
        raise InputError(f"{type(model).__name__} has no get_text_features: it has no text tower")
    if not texts:
        raise InputError("there are no texts to embed")
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(texts), batch_size):
        tokens = processor(text=list(texts[first : first + batch_size]), padding=True, return_tensors="pt")
        found = embed(**{name: value.to(device) for name, value in tokens.items()})
        parts.append(getattr(found, "pooler_output", found).float().cpu())
    return torch.cat(parts)


def fill_prompts(names: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Every name in every prompt, prompt by prompt; underscores in names become spaces.

    Args:
        names: of classes.
        prompts: with `{}` for the name, such as "a video of a person {}".

    Raises:
        InputError: no names, no prompts, or a prompt without `{}`.
    """
    if not names or not prompts:
        raise InputError(f"need class names and prompts, got {list(names)} and {list(prompts)}")
    for prompt in prompts:
        if prompt.count("{}") != 1:
            raise InputError(f"a prompt must hold {{}} once, where the class name goes, got {prompt!r}")
    return [prompt.replace("{}", name.replace("_", " ")) for prompt in prompts for name in names]


def class_features(
    model: nn.Module, processor: Any, names: Sequence[str], prompts: Sequence[str] = ("{}",)
) -> Tensor:
    """One direction a class, `(classes, width)` of length 1: the mean of the directions of its prompts.

    Args:
        model, processor: see `text_features`.
        names, prompts: see `fill_prompts`.
    """
    texts = fill_prompts(names, prompts)
    directions = F.normalize(text_features(model, processor, texts), dim=1)
    return F.normalize(directions.unflatten(0, (len(prompts), len(names))).mean(0), dim=1)
