"""The moments of Adam of an earlier run, for a second stage that goes on with other sizes of input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from ..errors import CheckpointError
from .checkpoints import list_checkpoints

__all__ = ["take_over_moments"]


def take_over_moments(optimizer: torch.optim.Optimizer, model: Any, folder: str | Path) -> None:
    """Fill a new optimiser with the state of the newest checkpoint of a finished run.

    What differs in shape goes through the model's `resize_moment(name, moment, stored_config)`, where it has
    that.

    Args:
        optimizer: of the model's parameters, grouped as in the earlier run.
        model: the bare model, with the weights of that run.
        folder: of that run.

    Raises:
        CheckpointError: there is no checkpoint, or one of other parameters.
    """
    checkpoints = list_checkpoints(Path(folder))
    if not checkpoints:
        raise CheckpointError(
            f"training.init_optimizer: {folder} holds no complete checkpoint whose optimiser could go on"
        )
    saved = torch.load(checkpoints[-1] / "optimizer.pt", weights_only=True, map_location="cpu")
    stored_config = type(model.config).from_pretrained(checkpoints[-1])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if [len(group["params"]) for group in saved["param_groups"]] != sizes:
        raise CheckpointError(
            f"training.init_optimizer: the optimiser in {checkpoints[-1]} has other groups of parameters:"
            " take the recipe's model and optimizer from that run"
        )
    for index, parameter in enumerate(parameters):
        state = saved["state"].get(index, {})
        optimizer.state[parameter] = {
            key: _fitting(model, names[id(parameter)], value, parameter, stored_config)
            for key, value in state.items()
        }


def _fitting(model: Any, name: str, value: Any, parameter: Tensor, stored_config: PreTrainedConfig) -> Any:
    """One entry of a parameter's state, in the parameter's shape."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != parameter.shape and hasattr(model, "resize_moment"):
        value = model.resize_moment(name, value, stored_config)
    if value.shape != parameter.shape:
        raise CheckpointError(
            f"training.init_optimizer: the moments of {name} are {tuple(value.shape)}, the parameter is"
            f" {tuple(parameter.shape)}"
        )
    return value.to(parameter.device, parameter.dtype)
