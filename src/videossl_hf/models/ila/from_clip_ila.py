"""What ILA takes over from a CLIP checkpoint besides its sizes: weights and tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from ...errors import CheckpointError, ConfigurationError
from ...nn.official_weights import count_layers, load_exactly, shape_of
from ...nn.pickled_module import read_pickled_module
from .text_ila import saved_tokenizer
from .vision_ila import resize_position_table

__all__ = [
    "clip_model",
    "clip_state_dict",
    "clip_tokenizer",
    "load_clip_weights",
    "openai_clip_model",
]


def clip_model(source: Any) -> CLIPModel:
    """The CLIP model itself, or the one of a folder, a Hub id, or a file of OpenAI, with float32 weights.

    Raises:
        CheckpointError: it is none.
    """
    if isinstance(source, CLIPModel):
        return source
    if not isinstance(source, (str, Path)):
        raise CheckpointError(f"give a CLIPModel, or the folder or id of one, not {type(source).__name__}")
    if Path(source).is_file():
        return openai_clip_model(source)
    model, info = CLIPModel.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise CheckpointError(f"{source} is no CLIP checkpoint; missing: {', '.join(missing[:6])}")
    return model


def openai_clip_model(path: str | Path) -> CLIPModel:
    """The model of a file such as `ViT-B-16.pt`: a TorchScript archive, of which only the weights are read.

    Raises:
        CheckpointError: the file is damaged, or holds no CLIP with a vision transformer.
    """
    state = read_pickled_module(path)
    if "visual.proj" not in state or "text_projection" not in state:
        raise CheckpointError(f"{path} holds no CLIP model with a vision transformer")
    model = CLIPModel(_openai_config(state))
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if re.fullmatch(_NO_WEIGHTS, key):
            continue
        ours = _clip_names(key)
        value = value.float().T if key in ("visual.proj", "text_projection") else value.float()
        parts = [value] if len(ours) == 1 else value.chunk(len(ours))
        converted |= {name: part.clone() for name, part in zip(ours, parts, strict=True)}
    load_exactly(model, converted)
    return model.eval()


_NO_WEIGHTS = r"input_resolution|context_length|vocab_size|(.*\.)?attn_mask"
_OPENAI_NAMES = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "logit_scale": "logit_scale",
}
_OPENAI_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _clip_names(key: str) -> list[str]:
    """The names that transformers' `CLIPModel` has for an official tensor; three for queries, keys, values.

    Raises:
        CheckpointError: CLIP has no such tensor.
    """
    start = next((start for start in sorted(_OPENAI_NAMES, reverse=True) if key.startswith(start)), None)
    if start is None or (not start.endswith(".") and key != start):
        raise CheckpointError(f"{key} is no tensor of CLIP")
    name, rest = _OPENAI_NAMES[start], key.removeprefix(start)
    if not start.endswith("resblocks."):
        return [name + rest]
    index, _, part = rest.partition(".")
    if match := re.fullmatch(r"attn\.in_proj_(weight|bias)", part):
        return [f"{name}{index}.self_attn.{letter}_proj.{match[1]}" for letter in "qkv"]
    part, _, leaf = part.rpartition(".")
    if part not in _OPENAI_PARTS:
        raise CheckpointError(f"{key} is no tensor of CLIP")
    return [f"{name}{index}.{_OPENAI_PARTS[part]}.{leaf}"]


def _openai_config(state: Mapping[str, Tensor]) -> CLIPConfig:
    """Sizes read off the shapes; heads are 64 wide and the activation is the fast GELU, as in every file."""
    width, _, patch, _ = shape_of(state, "visual.conv1.weight", 4)
    vocabulary, text_width = shape_of(state, "token_embedding.weight", 2)
    side = round((shape_of(state, "visual.positional_embedding", 2)[0] - 1) ** 0.5)
    towers = {}
    for name, start, size in (("vision", "visual.", width), ("text", "", text_width)):
        layers = rf"{re.escape(start)}transformer\.resblocks\.(\d+)\."
        towers[name] = {
            "hidden_size": size,
            "intermediate_size": shape_of(state, f"{start}transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            "num_hidden_layers": count_layers(state, layers),
            "num_attention_heads": max(1, size // 64),
            "hidden_act": "quick_gelu",
        }
    special = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0}
    return CLIPConfig(
        vision_config=towers["vision"] | {"patch_size": patch, "image_size": side * patch},
        text_config=towers["text"]
        | {"vocab_size": vocabulary}
        | {"max_position_embeddings": shape_of(state, "positional_embedding", 2)[0]}
        | special,
        projection_dim=shape_of(state, "text_projection", 2)[1],
    )


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
