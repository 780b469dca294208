"""The tokeniser that a saved folder carries: one file beside the model's weights and the processor's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers.utils import cached_file

from ...errors import CheckpointError
from .configuration_dvae import DVAEConfig
from .modeling_dvae import DVAEModel

__all__ = ["HUB_ARGUMENTS", "TOKENIZER_FILE", "read_tokenizer", "write_tokenizer"]

TOKENIZER_FILE = "dvae.safetensors"
"""Its weights, with its configuration in the file's metadata."""

HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
"""What `from_pretrained` takes to find a file on the Hub."""


def write_tokenizer(model: DVAEModel | None, folder: Path) -> None:
    """Write a tokeniser into a folder; nothing for None."""
    if model is not None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        settings = model.config.to_dict()
        settings.pop("auto_map", None)  # names code that lies beside other files than this one
        metadata = {"config": json.dumps(settings, sort_keys=True)}
        save_file(state, folder / TOKENIZER_FILE, metadata=metadata)


def read_tokenizer(name: Any, hub: dict[str, Any]) -> DVAEModel | None:
    """The tokeniser in a folder or Hub repository; None where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    if Path(name).is_file():  # a processor's JSON by itself
        return None
    path = cached_file(
        name,
        TOKENIZER_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["config"])
        model = DVAEModel(DVAEConfig.from_dict(settings))
        model.load_state_dict(load_file(path))
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"the tokeniser {path} is damaged: {error}. Save it again") from error
    return model.eval()
