"""The smallest VIMPAC that has all its parts, with a tokeniser, inputs and a processor for it."""

from __future__ import annotations

from typing import Any

import torch

from videossl_hf.models.vimpac.configuration_dvae import DVAEConfig
from videossl_hf.models.vimpac.configuration_vimpac import VIMPACConfig
from videossl_hf.models.vimpac.masking_vimpac import draw_mask_numbers, make_masks
from videossl_hf.models.vimpac.modeling_dvae import DVAEModel
from videossl_hf.models.vimpac.processing_vimpac import VIMPACProcessor

FRAMES, SIZE, CODES = 5, 32, 24
ROWS = SIZE // 8


def make_config(**overrides: Any) -> VIMPACConfig:
    settings: dict[str, Any] = {
        "num_frames": FRAMES,
        "fps": 12.0,
        "image_size": SIZE,
        "num_codes": CODES,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "projection_hidden": 12,
        "projection_dim": 8,
        "num_labels": 5,
    }
    return VIMPACConfig(**(settings | overrides))


def make_dvae_config(**overrides: Any) -> DVAEConfig:
    settings: dict[str, Any] = {
        "hidden_size": 8,
        "num_blocks_per_group": 1,
        "vocab_size": CODES,
        "decoder_stem_size": 8,
        "decoder_hidden_size": 4,
        "chunk_size": 4,
    }
    return DVAEConfig(**(settings | overrides))


def make_tokenizer(**overrides: Any) -> DVAEModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return DVAEModel(make_dvae_config(**overrides)).eval()


def make_processor() -> VIMPACProcessor:
    return VIMPACProcessor.from_config(make_config(), make_tokenizer())


def codes(batch: int, seed: int = 0, padded: bool = True) -> torch.Tensor:
    """(batch, frames, rows, columns); the first samples do not depend on how many there are.

    Of every second one, from the first on, the last two frames are padding.
    """
    clips = []
    for index in range(batch):
        generator = torch.Generator().manual_seed(100 * seed + index)
        clip = torch.randint(CODES, (FRAMES, ROWS, ROWS), generator=generator)
        if padded and index % 2 == 0:
            clip[-2:] = CODES + 1
        clips.append(clip)
    return torch.stack(clips)


def masks(batch: int, seed: int = 0, **settings: Any) -> torch.Tensor:
    config = make_config(**settings)
    drawn = [
        make_masks(config, draw_mask_numbers(config, 1, torch.Generator().manual_seed(900 * seed + index)))
        for index in range(batch)
    ]
    return torch.cat(drawn)


def make_inputs(suffix: str, batch: int = 2) -> dict[str, torch.Tensor]:
    """Arguments of the model with this suffix ("Model", "ForPreTraining", "ForVideoClassification")."""
    inputs = {"input_codes": codes(batch)}
    if suffix == "ForPreTraining":
        inputs["second_input_codes"] = codes(batch, seed=1)
        inputs["mask"], inputs["second_mask"] = masks(batch), masks(batch, seed=1)
    return inputs


def processor_arguments(clip: str) -> dict[str, Any]:
    """Arguments of a processor call that uses all of it."""
    return {"videos": clip}
