"""The smallest ILA that has all its parts, with inputs, a tokenizer and a processor for it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from videossl_hf import ILAConfig, ILAProcessor

FRAMES, SIDE = 4, 32
LABELS = ["walk", "run", "jump", "swim", "fly"]
START, END = 58, 59
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 12,
}


def tokens_of(label: str) -> list[int]:
    """What `make_tokenizer` makes of a word of small letters."""
    return [START, *(LETTERS.index(letter) for letter in label[:-1]), 26 + LETTERS.index(label[-1]), END]


def make_config(**overrides: Any) -> ILAConfig:
    settings: dict[str, Any] = {
        "vision_config": VISION,
        "text_config": TEXT,
        "projection_dim": 16,
        "head_dim": 8,
        "num_frames": FRAMES,
        "align_hidden": 16,
        "classifier_dropout": 0.0,
    }
    if "num_labels" not in overrides:
        settings["id2label"] = dict(enumerate(LABELS))
        settings["label2id"] = {label: index for index, label in enumerate(LABELS)}
        settings["label_tokens"] = {label: tokens_of(label) for label in LABELS}
    return ILAConfig(**(settings | overrides))


def make_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with letters for words: no merges, so every letter is a token."""
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    special = {"<|startoftext|>": START, "<|endoftext|>": END}
    return CLIPTokenizer(vocab=vocabulary | special, merges=[])


def make_processor() -> ILAProcessor:
    return ILAProcessor.from_config(make_config(), make_tokenizer())


def make_clip(**vision: Any) -> CLIPModel:
    """A CLIP of transformers with the same towers."""
    torch.manual_seed(3)
    sizes = {"intermediate_size": 48, "hidden_act": "quick_gelu"}
    text = {"bos_token_id": START, "eos_token_id": 2, "pad_token_id": 0}  # 2 as in older configurations
    config = CLIPConfig(
        text_config=TEXT | sizes | text, vision_config=VISION | sizes | vision, projection_dim=16
    )
    return CLIPModel(config).eval()


def clips(batch: int, frames: int = FRAMES, side: int = SIDE) -> torch.Tensor:
    """(batch, frames, 3, side, side); the first samples do not depend on how many there are."""
    return torch.stack(
        [
            torch.randn(frames, 3, side, side, generator=torch.Generator().manual_seed(100 + index))
            for index in range(batch)
        ]
    )


def texts(batch: int) -> torch.Tensor:
    """Token ids (batch, length), some padded."""
    words = [LABELS[index % len(LABELS)] for index in range(batch)]
    rows = [tokens_of(word) for word in words]
    return torch.tensor([row + [0] * (6 - len(row)) for row in rows])


def make_inputs(suffix: str, batch: int = 2) -> dict[str, torch.Tensor]:
    """Arguments of the model with this suffix ("Model", "ForVideoClassification")."""
    inputs = {"pixel_values_videos": clips(batch)}
    return inputs | ({"input_ids": texts(batch)} if suffix == "Model" else {})


def processor_arguments(clip: str) -> dict[str, Any]:
    """Arguments of a processor call that uses all of it."""
    return {"videos": clip, "text": LABELS}
