"""Weights of other code bases, renamed and loaded without a key left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn

from ..errors import CheckpointError

__all__ = ["check_keys", "count_layers", "load_exactly", "rename_strictly", "shape_of"]


def rename_strictly(
    state: Mapping[str, Tensor], table: Mapping[str, str], dropped: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Weights under the names that a table gives them.

    Args:
        table: official key -> our key, for all keys.
        dropped: patterns of official keys that are left out.

    Raises:
        CheckpointError: a key is missing, or neither in the table nor dropped.
    """
    patterns = list(dropped)
    kept = {key for key in state if not any(re.fullmatch(pattern, key) for pattern in patterns)}
    check_keys(kept, table)
    return {table[key]: state[key] for key in sorted(kept)}


def check_keys(found: Iterable[str], expected: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise CheckpointError unless the keys found are those expected; of these, `optional` ones may lack."""
    found, expected = set(found), set(expected)
    problems = [
        f"{what}: {', '.join(sorted(keys)[:6])}{' ...' if len(keys) > 6 else ''}"
        for what, keys in (("missing", expected - found - set(optional)), ("not known", found - expected))
        if keys
    ]
    if problems:
        raise CheckpointError(f"the checkpoint does not fit the configuration; {'; '.join(problems)}")


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], new: Collection[str] = ()) -> None:
    """Load weights into a model, all of whose tensors they must be.

    Args:
        state: weights under the model's keys.
        new: keys of the model that other code bases do not have; they stay as they are.

    Raises:
        CheckpointError: a shape differs, or a tensor of the model is left out.
    """
    own = model.state_dict()
    wrong = [
        f"{key} is {tuple(value.shape)}, expected {tuple(own[key].shape)}"
        for key, value in state.items()
        if own[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint does not fit the configuration; other shapes: {'; '.join(wrong[:6])}"
        )
    missing, _ = model.load_state_dict(state, strict=False)
    if left := [key for key in missing if key not in new]:
        raise CheckpointError(f"the key table lacks {', '.join(left)}; please report this")


def shape_of(state: Mapping[str, Tensor], key: str, dimensions: int | None = None) -> tuple[int, ...]:
    """Shape of a weight that must be there, and where `dimensions` are given have so many."""
    if key not in state:
        raise CheckpointError(f"the checkpoint does not fit; missing: {key}")
    shape = tuple(state[key].shape)
    if dimensions not in (None, len(shape)):
        raise CheckpointError(f"the checkpoint does not fit; {key} is {shape}, expected {dimensions} axes")
    return shape


def count_layers(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that the pattern's group finds at the start of a key; 0 if none."""
    found = (re.match(pattern, key) for key in keys)
    return max((int(match[1]) + 1 for match in found if match), default=0)
