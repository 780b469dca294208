"""Base of every method's configuration: strictly typed, errors that are ValueErrors, code saved beside the
JSON."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig

from ..dependencies import check_torchvision
from ..errors import ConfigurationError
from ..remote_code import SavesItsCode

__all__ = ["VideoSSLConfig"]

check_torchvision()  # the first file of ours that loading a model from the Hub imports


@contextmanager
def _strict_errors_as_configuration_errors(name: str) -> Iterator[None]:
    try:
        yield
    except StrictDataclassError as error:
        raise ConfigurationError(f"{name}: {error.__cause__ or error}") from error


class VideoSSLConfig(SavesItsCode, PreTrainedConfig):
    """Base class of the configurations.

    A subclass is a list of typed fields with defaults and, last, a method `validate_architecture(self)`
    that raises ValueError for sizes that cannot work; no decorator and no `__init__` is needed. Wrong types
    and failed checks raise `ConfigurationError` (a ValueError) when the configuration is made, loaded or
    changed. Unknown keys are kept as plain attributes, so that older code reads newer files. No field may
    name a module, file or function.
    """

    def __init_subclass__(cls, *args: Any, **kwargs: Any) -> None:
        super().__init_subclass__(*args, **kwargs)  # transformers turns the class into a dataclass here
        strict(cls)
        for name in ("__init__", "__setattr__", "validate"):
            setattr(cls, name, cls._raising_configuration_error(getattr(cls, name)))

    @classmethod
    def _raising_configuration_error(cls, method: Any) -> Any:
        @functools.wraps(method)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            with _strict_errors_as_configuration_errors(cls.__name__):
                return method(self, *args, **kwargs)

        return wrapped

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration of a dictionary, as transformers does; keys that would hide a method are
        refused."""
        hiding = [key for key in config_dict if callable(getattr(cls, key, None))]
        if hiding:
            raise ConfigurationError(
                f"{cls.__name__}: {', '.join(hiding)} cannot be set, they are names of methods"
            )
        return super().from_dict(config_dict, **kwargs)
