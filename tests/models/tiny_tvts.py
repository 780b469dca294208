"""The smallest TVTS that has all its parts, with inputs and a processor for it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from videossl_hf.data.sounding_shapes.word_tokenizer import SPECIAL_TOKENS, word_tokenizer
from videossl_hf.models.tvts.configuration_tvts import TVTSConfig
from videossl_hf.models.tvts.processing_tvts import TVTSProcessor

FRAMES, SIZE, SCRIPTS, TOKENS = 8, 32, 3, 7
WORDS = ("it", "moves", "left", "right", "then", "and", "now", "grows", "shrinks", "up", "down", "rises")
VOCABULARY = len(SPECIAL_TOKENS) + len(WORDS)
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "initializer_range": 0.2,
}
CLIP = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def make_config(**overrides: Any) -> TVTSConfig:
    settings: dict[str, Any] = {
        "num_frames": FRAMES,
        "image_size": SIZE,
        "max_text_length": 12,
        "patch_size": 8,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "projection_dim": 8,
        "num_scripts": SCRIPTS,
        "sorting_heads": 2,
        "text_settings": DISTILBERT,
        "num_labels": 5,
    }
    return TVTSConfig(**(settings | overrides))


def make_v2_config(**overrides: Any) -> TVTSConfig:
    """A TVTSv2 of the same kind."""
    settings: dict[str, Any] = {
        "num_frames": FRAMES,
        "image_size": SIZE,
        "max_text_length": 12,
        "patch_size": 8,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "projection_dim": 16,
        "num_scripts": SCRIPTS,
        "sorting_heads": 2,
        "text_settings": CLIP,
        "trainable_text_layers": 1,
        "num_labels": 5,
    }
    return TVTSConfig.v2(**(settings | overrides))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words to numbers, between [CLS] and [SEP]."""
    tokenizer = word_tokenizer(WORDS)
    tokenizer.model_max_length = 12
    return tokenizer


def make_processor() -> TVTSProcessor:
    return TVTSProcessor.from_config(make_config(), make_tokenizer())


def clips(batch: int, frames: int = FRAMES) -> torch.Tensor:
    """(batch, frames, 3, height, width); the first samples do not depend on how many there are."""
    return torch.stack(
        [torch.randn(frames, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(i)) for i in range(batch)]
    )


def texts(batch: int, scripts: int = SCRIPTS) -> dict[str, torch.Tensor]:
    """Tokens and mask, (batch, scripts, tokens) each; lengths differ, the last token is [SEP]."""
    ids, mask = [], []
    for sample in range(batch):
        generator = torch.Generator().manual_seed(500 + sample)
        rows = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, (scripts, TOKENS), generator=generator)
        lengths = torch.randint(3, TOKENS + 1, (scripts, 1), generator=generator)
        places = torch.arange(TOKENS)
        rows[:, 0] = 2
        rows = torch.where(places == lengths - 1, 3, torch.where(places < lengths, rows, 0))
        ids.append(rows)
        mask.append((places < lengths).long())
    return {"input_ids": torch.stack(ids), "attention_mask": torch.stack(mask)}


def make_inputs(suffix: str, batch: int = 2) -> dict[str, torch.Tensor]:
    """Arguments of the model with this suffix ("Model", "ForPreTraining", "ForVideoClassification")."""
    inputs = {"pixel_values_videos": clips(batch)}
    if suffix == "Model":
        inputs |= {name: value[:, 0] for name, value in texts(batch).items()}
    if suffix == "ForPreTraining":
        inputs |= texts(batch)
        generator = torch.Generator().manual_seed(9)
        kept = [torch.rand(4, 16, generator=generator).argsort(-1)[:, :4] for _ in range(8)]
        inputs["keep_indices"] = torch.stack(kept[:batch])
    return inputs


def processor_arguments(clip: str) -> dict[str, Any]:
    """Arguments of a processor call that uses all of it."""
    return {"videos": clip, "text": [["it moves left", "now it grows", "then it rises up and right"]]}
