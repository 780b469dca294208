"""Base of every method's configuration: strictly typed, its errors ValueErrors, its code saved beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.hub import TRANSFORMERS_DYNAMIC_MODULE_NAME

from ..dependencies import check_torchvision
from ..errors import ConfigurationError
from ..remote_code import SavesItsCode

__all__ = ["VideoSSLConfig", "check_range"]

check_torchvision()  # the first file of ours that loading a model from the Hub imports


LARGEST_NUMBER_OF_LABELS = 65536  # transformers builds the names of all of them
# What a file may not choose: which code runs, or which other file is read. transformers would obey.
NEVER_FROM_FILES = (
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation_internal",
    "attn_implementation",
    "experts_implementation",
    "transformers_weights",
)


class VideoSSLConfig(SavesItsCode, PreTrainedConfig):
    """Base class of the configurations.

    A subclass is a list of typed fields with defaults and, last, a method `validate_architecture(self)` that
    raises ValueError for sizes that cannot work; no decorator and no `__init__` is needed. Wrong types and
    failed checks raise `ConfigurationError` (a ValueError) when the configuration is made, loaded or changed.
    Unknown keys are kept as plain attributes, so that older code reads newer files. No field may name a
    module, file or function. Files of subclasses must not use `from __future__ import annotations`: the types
    are read when the class is made.
    """

    def __init_subclass__(cls, *args: Any, **kwargs: Any) -> None:
        super().__init_subclass__(*args, **kwargs)  # transformers turns the class into a dataclass here
        strict(cls)
        for name in ("__init__", "__setattr__", "validate"):
            setattr(cls, name, _raising_configuration_error(cls.__name__, getattr(cls, name)))

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """The contents of a configuration file, as transformers reads it."""
        try:
            return super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except TypeError as error:
            raise ConfigurationError(
                f"{pretrained_model_name_or_path}: its config.json is no JSON object"
            ) from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration of what a file holds, as transformers does.

        Raises:
            ConfigurationError: also for keys that would hide a method, or choose code or files.
        """
        if not isinstance(config_dict, dict):
            raise ConfigurationError(
                f"{cls.__name__}: a configuration is a JSON object, got {config_dict!r:.80}"
            )
        if hiding := [key for key in config_dict if callable(getattr(cls, key, None))]:
            raise ConfigurationError(f"{cls.__name__}: {', '.join(hiding)} cannot be set: names of methods")
        if choosing := [key for key in NEVER_FROM_FILES if config_dict.get(key) is not None]:
            raise ConfigurationError(
                f"{cls.__name__}: a file may not set {', '.join(choosing)}: pass it to from_pretrained"
            )
        if not cls.__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            # The package's own pipelines serve these tasks; the file's would need trust_remote_code.
            config_dict = {key: value for key, value in config_dict.items() if key != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless a field lies within its range, both ends included."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value} is out of range; give {low} to {high}")


def _raising_configuration_error(class_name: str, method: Any) -> Any:
    """The method, with ConfigurationError for what its arguments make it raise."""
    is_init = method.__name__ == "__init__"

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            if is_init:
                _check_inherited(kwargs)
            return method(self, *args, **kwargs)
        except StrictDataclassError as error:
            raise ConfigurationError(f"{class_name}: {error.__cause__ or error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            if not is_init or isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{class_name}: {error}") from error

    return wrapped


def _check_inherited(settings: Mapping[str, Any]) -> None:
    """Check the settings of transformers' own that it takes as they come."""
    count = settings.get("num_labels", 1)
    if type(count) is not int or not 1 <= count <= LARGEST_NUMBER_OF_LABELS:
        raise ValueError(f"num_labels={count!r} is out of range; give 1 to {LARGEST_NUMBER_OF_LABELS}")
    for name in ("id2label", "label2id"):
        names = settings.get(name)
        if names is not None and (not isinstance(names, Mapping) or len(names) > LARGEST_NUMBER_OF_LABELS):
            raise TypeError(f"{name} must map up to {LARGEST_NUMBER_OF_LABELS} labels, got {names!r:.80}")
    for name in ("dtype", "torch_dtype"):
        dtype = settings.get(name)
        if isinstance(dtype, str) and dtype != "auto":
            dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
        if dtype is not None and dtype != "auto" and not isinstance(dtype, torch.dtype):
            raise TypeError(f"{name} must name a type of torch, got {settings[name]!r:.80}")
