"""CLIP's text tower, and what turns the names of classes into its input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.masking_utils import create_causal_mask
from transformers.utils import cached_file

from ...errors import ConfigurationError, InputError
from .configuration_ila import ILAConfig
from .layers_ila import ILATransformerLayer, started

__all__ = ["ILATextEncoder", "pad_tokens", "saved_tokenizer", "tokenize_labels"]


class ILATextEmbeddings(nn.Module):
    """Token plus position."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        text = config.text_config
        self.token_embedding = nn.Embedding(text.vocab_size, text.hidden_size)
        self.position_embedding = nn.Embedding(text.max_position_embeddings, text.hidden_size)
        started(self.token_embedding, std=0.02)
        started(self.position_embedding, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """`(texts, length)` to `(texts, length, hidden)`."""
        return self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]


class ILATextLayers(nn.Module):
    """The blocks."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        text = config.text_config
        self.layers = nn.ModuleList(
            ILATransformerLayer(
                config,
                text.hidden_size,
                text.num_attention_heads,
                text.intermediate_size,
                text.hidden_act,
                text.layer_norm_eps,
                is_causal=True,
                layers=text.num_hidden_layers,
            )
            for _ in range(text.num_hidden_layers)
        )

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`(texts, length, hidden)` to the same."""
        for layer in self.layers:
            x = layer(x, attention_mask=attention_mask)
        return x


class ILATextEncoder(nn.Module):
    """The tower: a text's feature is that of its first end-of-text token."""

    def __init__(self, config: ILAConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ILATextEmbeddings(config)
        self.encoder = ILATextLayers(config)
        self.final_layer_norm = nn.LayerNorm(
            config.text_config.hidden_size, eps=config.text_config.layer_norm_eps
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids `(texts, length)` to features `(texts, hidden)`.

        Raises:
            InputError: another shape, or texts longer than the context.
        """
        text = self.config.text_config
        if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= text.max_position_embeddings:
            raise InputError(
                f"input_ids has shape {tuple(input_ids.shape)}; give (texts, length) with at most"
                f" {text.max_position_embeddings} tokens"
            )
        x = self.embeddings(input_ids)
        mask = create_causal_mask(
            config=self.config, inputs_embeds=x, attention_mask=attention_mask, past_key_values=None
        )
        x = self.final_layer_norm(self.encoder(x, mask))
        ends = (input_ids == text.eos_token_id).int().argmax(-1)
        return x[torch.arange(x.shape[0], device=x.device), ends]


def tokenize_labels(labels: Iterable[str], tokenizer: Any, config: ILAConfig) -> dict[str, list[int]]:
    """Token ids of class names as they stand, without a sentence around them; an underscore is a space, as in
    names of folders.

    Args:
        labels: the names.
        tokenizer: CLIP's, or one like it.
        config: says how long a text may be.

    Returns:
        name -> ids, from the start of text to the end of text.

    Raises:
        ConfigurationError: two classes of one name or of the same tokens, a name that is empty or exceeds the
            text context, or a tokenizer whose end of text is another.
    """
    labels, text = list(labels), config.text_config
    tokens: dict[str, list[int]] = {}
    if doubled := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigurationError(f"two classes are called {doubled[0]!r}: give each a name of its own")
    for label in labels:
        ids = [int(index) for index in tokenizer(label.replace("_", " "))["input_ids"]]
        if text.eos_token_id not in ids or max(ids) >= text.vocab_size:
            raise ConfigurationError(
                f"the tokenizer turns {label!r} into {ids}, which does not end with token {text.eos_token_id}"
                f" of the text tower's {text.vocab_size}: take the tokenizer of the CLIP checkpoint"
            )
        ids = ids[: ids.index(text.eos_token_id) + 1]
        if len(ids) > text.max_position_embeddings:
            raise ConfigurationError(
                f"the label {label!r} has {len(ids)} tokens, but the text tower takes"
                f" {text.max_position_embeddings}: shorten it"
            )
        if len(ids) < 3:
            raise ConfigurationError(f"the label {label!r} has no word in it: the text head needs names")
        if twin := next((other for other, known in tokens.items() if known == ids), None):
            raise ConfigurationError(
                f"the tokenizer turns {twin!r} and {label!r} into the same tokens, so that no clip could tell"
                " them apart: give the classes names whose words it knows"
            )
        tokens[label] = ids
    return tokens


def pad_tokens(labels: Sequence[str], tokens: Mapping[str, list[int]], device: torch.device) -> Tensor:
    """`(labels, longest)` token ids, zeros behind the end of each text."""
    longest = max(len(tokens[label]) for label in labels)
    rows = [tokens[label] + [0] * (longest - len(tokens[label])) for label in labels]
    return torch.tensor(rows, device=device)


def saved_tokenizer(source: Any, settings: Mapping[str, Any]) -> Any:
    """The tokenizer beside a checkpoint, None where there is none.

    Args:
        source: folder or Hub id.
        settings: what `from_pretrained` was called with: revision, token and so on.
    """
    known = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")
    where = {name: settings[name] for name in known if name in settings}
    if cached_file(
        str(source), "tokenizer_config.json", _raise_exceptions_for_missing_entries=False, **where
    ):
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        for name in ("is_local", "local_files_only"):  # how it was read is none of its settings
            tokenizer.init_kwargs.pop(name, None)
        return tokenizer
    return None
