"""What ILA takes over from a CLIP checkpoint besides its sizes: weights and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel

from ...errors import CheckpointError, ConfigurationError
from .text_ila import saved_tokenizer
from .vision_ila import resize_position_table

__all__ = [
    "clip_model",
    "clip_state_dict",
    "clip_tokenizer",
    "load_clip_weights",
]


def clip_model(source: Any) -> CLIPModel:
    """The CLIP model itself, or the one of a folder or Hub id, with float32 weights.

    Raises:
        CheckpointError: it is none.
    """
    if isinstance(source, CLIPModel):
        return source
    if not isinstance(source, (str, Path)):
        raise CheckpointError(f"give a CLIPModel, or the folder or id of one, not {type(source).__name__}")
    model, info = CLIPModel.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(f"{source} is no CLIP checkpoint; missing: {', '.join(missing[:6])}")
    return model


def clip_state_dict(clip: CLIPModel) -> dict[str, Tensor]:
    """A CLIP model's weights under the names of `ILAModel`."""
    state = clip.state_dict()
    return {name.replace("pre_layrnorm", "pre_layernorm"): value for name, value in state.items()}


@torch.no_grad()
def load_clip_weights(model: Any, clip: CLIPModel) -> None:
    """Copy CLIP's weights into an `ILAModel`; every one of them must find its place.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    own, state = dict(model.named_parameters()), clip_state_dict(clip)
    if model.config.head == "linear":
        state = {name: value for name, value in state.items() if not name.startswith(("text_", "logit_"))}
    positions = "vision_model.embeddings.position_embedding.weight"
    if state[positions].shape != own[positions].shape:
        state[positions] = resize_position_table(state[positions], model.config.vision_config.grid_size)
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        raise CheckpointError(
            f"the CLIP model does not fit the configuration: {', '.join(sorted(wrong)[:6])}"
        )
    for name, value in state.items():
        own[name].copy_(value)


def clip_tokenizer(source: Any, tokenizer: Any = None) -> Any:
    """The tokenizer given (itself, or its folder or Hub id), or the one beside a CLIP checkpoint.

    Raises:
        ConfigurationError: there is none.
    """
    if tokenizer is None and isinstance(source, (str, Path)):
        tokenizer = source
    if isinstance(tokenizer, (str, Path)):
        tokenizer = saved_tokenizer(tokenizer, {})
    if tokenizer is None:
        raise ConfigurationError("the text head needs the tokenizer of the CLIP checkpoint: pass tokenizer=")
    return tokenizer
