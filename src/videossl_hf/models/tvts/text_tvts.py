"""The settings of the text tower, which is one of transformers' encoders."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

__all__ = ["TextTowerSettings"]

_LARGEST = {"vocab_size": 2**21, "max_position_embeddings": 2**17, "type_vocab_size": 1024}
_LARGEST_SIZE = 32768
_LARGEST_COUNT = 1024
_CLIP = "clip"


class TextTowerSettings:
    """Which encoder, and its configuration, checked.

    Args:
        tower: transformers' name of the encoder ("distilbert", ...); "clip" is CLIP's text tower with its
            projection.
        settings: what differs from transformers' defaults, under its names.
        projection_dim: size that CLIP's tower projects to.

    Raises:
        ValueError: a setting that the encoder lacks, of a wrong type or out of range.
    """

    def __init__(self, tower: str, settings: Mapping[str, Any], projection_dim: int) -> None:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        self.tower = tower
        config_class = CONFIG_MAPPING["clip_text_model" if tower == _CLIP else tower]
        own = {field.name for field in fields(config_class)} - {
            field.name for field in fields(PreTrainedConfig)
        }
        if unknown := settings.keys() - own:
            raise ValueError(
                f"text_settings: {tower} has no setting {', '.join(sorted(unknown))}; known are {sorted(own)}"
            )
        for name, value in settings.items():
            _check(name, value)
        values = dict(settings)
        if tower == _CLIP:
            values["projection_dim"] = projection_dim
        self.config = config_class(**values)
        if self.config.hidden_size % self.config.num_attention_heads:
            raise ValueError(
                f"text_settings: the width {self.config.hidden_size} is no multiple of the"
                f" {self.config.num_attention_heads} heads"
            )

    @property
    def vector_size(self) -> int:
        """Size of the vector of a text."""
        return self.config.projection_dim if self.tower == _CLIP else self.config.hidden_size

    def build(self, attn_implementation: str | None) -> PreTrainedModel:
        """The encoder with random weights."""
        from transformers import AutoModel, CLIPTextModelWithProjection

        self.config._attn_implementation = attn_implementation
        if self.tower == _CLIP:
            return CLIPTextModelWithProjection(self.config)
        return AutoModel.from_config(self.config)


def _check(name: str, value: Any) -> None:
    """Refuse what would build something absurd."""
    if isinstance(value, bool) or value is None or (isinstance(value, str) and len(value) < 64):
        return
    if not isinstance(value, (int, float)):
        raise ValueError(f"text_settings: {name} must be a number, a switch or a name, got {value!r:.80}")
    largest = _LARGEST.get(name, _LARGEST_COUNT if name.endswith(("layers", "heads")) else _LARGEST_SIZE)
    if name.endswith("token_id"):
        largest = _LARGEST["vocab_size"]
    if not 0 <= value <= largest:
        raise ValueError(f"text_settings: {name}={value} is out of range; give 0 to {largest}")
