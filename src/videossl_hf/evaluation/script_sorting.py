"""Can a model put the scripts of a video into their order? They come shuffled; the clip alone tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.seeds import mix_seeds, seeded_generator
from ..errors import DataError, InputError
from .clips import PreparedClips, PreparedSample

__all__ = ["shuffled_places", "sort_scripts"]


def shuffled_places(videos: int, scripts: int, seed: int) -> Tensor:
    """The true place of the script in each slot, `(videos, scripts)` int64: another order for each video."""
    rows = [
        torch.randperm(scripts, generator=seeded_generator(mix_seeds(seed, row))) for row in range(videos)
    ]
    return torch.stack(rows)


@torch.no_grad()
def sort_scripts(
    model: nn.Module,
    processor: Any,
    clips: PreparedClips,
    scripts: Sequence[Sequence[str]],
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """What a pre-training model with a sorting head says of shuffled scripts.

    Args:
        model: in evaluation mode; its output has `sorting_logits`.
        processor: of that model.
        clips: of one view each.
        scripts: of each clip, in their true order.
        batch_size: clips at a time.
        seed: of the order in which the model gets them.

    Returns:
        (clips, scripts) int64 twice: the place that the model gives to the script in each slot, and its true
        place.

    Raises:
        InputError: the model sorts no scripts, or the clips have several views.
        DataError: no scripts.
        DecodeError: a clip cannot be decoded.
    """
    if clips.views.count != 1:
        raise InputError(f"scripts are sorted by one view of a clip: give views 1x1 instead of {clips.views}")
    if not scripts or len(scripts) != len(clips):
        raise DataError(f"{len(scripts)} lists of scripts for {len(clips)} clips")
    device = next(model.parameters()).device
    places = shuffled_places(len(clips), len(scripts[0]), seed)
    found = []
    for first in range(0, len(clips), batch_size):
        rows = range(first, min(first + batch_size, len(clips)))
        shuffled = [[scripts[row][place] for place in places[row].tolist()] for row in rows]
        tokens = processor(text=shuffled, return_tensors="pt")
        pixels = torch.cat([_inputs(clips, row) for row in rows])
        inputs = {"pixel_values_videos": pixels, **tokens, "script_positions": places[first : rows.stop]}
        output = model(**{name: value.to(device) for name, value in inputs.items()})
        if output.get("sorting_logits") is None:
            raise InputError(f"{type(model).__name__} has no sorting head for scripts")
        found.append(output["sorting_logits"].argmax(dim=-1).cpu())
    return torch.cat(found), places


def _inputs(clips: PreparedClips, row: int) -> Tensor:
    sample = clips[row]
    if not isinstance(sample, PreparedSample):
        raise sample.error
    return sample.inputs
