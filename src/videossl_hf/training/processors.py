"""The processor of a run: made for its configuration, changed where the recipe says so."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..registry import find_class
from .typed import convert, unknown_key

__all__ = ["convert_processor_settings", "make_processor"]

_NOT_SETTINGS = {
    "auto_map",
    "feature_extractor_type",
    "video_processor_type",
    "processor_class",
    "data_format",
}


def make_processor(method: str, config: Any, settings: Mapping[str, Any]) -> Any:
    """The method's processor for a configuration, with the recipe's settings.

    Raises:
        RecipeError: the processor refuses a setting; the message is its own.
    """
    try:
        return find_class(method, "Processor").from_config(config, **settings)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"processor: {error}") from error


def convert_processor_settings(method: str, config: Any, settings: Any) -> dict[str, Any]:
    """Check the recipe's section `processor` against the settings that the method's processor has.

    Raises:
        RecipeError: not a mapping, an unknown setting (with the nearest known one), a wrong type.
    """
    if not settings:
        return {}
    if not isinstance(settings, Mapping):
        raise RecipeError(f"processor must be a mapping of keys to values, got {settings!r}")
    processor = make_processor(method, config, {})
    # What `from_config` names itself, such as a tokenizer, and the settings of the parts.
    own = list(inspect.signature(type(processor).from_config).parameters.values())[1:]
    known: dict[str, Any] = {item.name: Any for item in own if item.kind is not item.VAR_KEYWORD}
    for part in processor.get_attributes():
        component = getattr(processor, part)
        if not hasattr(component, "to_dict"):  # a tokenizer
            continue
        try:
            annotations = typing.get_type_hints(type(component).__init__)
        except NameError:  # a hint of transformers that only type checkers can resolve
            annotations = {}
        names = component.to_dict().keys() - _NOT_SETTINGS
        known |= {name: annotations.get(name, Any) for name in names}
    for name in settings:
        if name not in known:
            raise unknown_key(f"processor.{name}", (f"processor.{other}" for other in known))
    values = {name: convert(value, known[name], f"processor.{name}") for name, value in settings.items()}
    # What has to be loaded is not, before the run starts.
    make_processor(
        method, config, {name: values[name] for name in values.keys() - {item.name for item in own}}
    )
    return values
