"""Plain mappings to typed dataclasses: every key known, every value of its declared type, every message with
its path.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

import yaml

from ..errors import RecipeError

__all__ = [
    "CommandLineText",
    "convert",
    "convert_fields",
    "from_mapping",
    "load_yaml",
    "resolved_annotations",
    "setting",
    "unknown_key",
]

T = TypeVar("T")


class CommandLineText(str):
    """A value as it was typed: a text field takes it as it stands, any other field reads it as YAML."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may stand only once and 2e-3 is a number (as in YAML 1.2; PyYAML reads
    1.1).
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """Parse YAML text without constructing anything but plain values.

    Raises:
        yaml.YAMLError: the text is not YAML, or a key stands twice in one mapping.
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with its explanation and, for numbers, the range that it must lie in."""
    metadata = {"help": help, "minimum": minimum, "maximum": maximum}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def unknown_key(path: str, known: Iterable[str]) -> RecipeError:
    """The error for a key that does not exist, with the most similar one that does."""
    known = sorted(known)
    nearest = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    if not nearest:  # the right name in the wrong section
        leaf = path.rsplit(".", 1)[-1]
        by_leaf = {key.rsplit(".", 1)[-1]: key for key in known}
        nearest = [by_leaf[name] for name in difflib.get_close_matches(leaf, by_leaf, n=1)]
    hint = f"did you mean {nearest[0]}?" if nearest else "the known keys are " + ", ".join(known)
    return RecipeError(f"unknown recipe key {path}: {hint}")


def _describe(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is not None and arguments:
        return f"{origin.__name__} of " + ", ".join(_describe(a) for a in arguments if a is not Ellipsis)
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def convert(value: Any, annotation: Any, path: str) -> Any:
    """Return `value` as the annotated type, without guessing (no text for a number, no number for a switch).

    Args:
        value: what YAML gave, or `CommandLineText`.
        annotation: int, float, str, bool, None, Literal, list, tuple, dict, a union of those, or anything
            else, which passes unchecked.
        path: the full dotted key, for the message.

    Raises:
        RecipeError: the value is of another type.
    """
    try:
        return _convert(value, annotation)
    except (TypeError, ValueError, yaml.YAMLError):
        given = f"{str(value)!r}" if isinstance(value, str) else f"{value!r} ({type(value).__name__})"
        raise RecipeError(f"{path} must be {_describe(annotation)}, got {given}") from None


def _convert(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        # None first and text last, so that the command line's "null" or "3" is not a text where more is
        # meant; the value's own type before the others, so that 2.0 stays a float where both kinds of number
        # may stand.
        plain = load_yaml(value) if isinstance(value, CommandLineText) else value
        for choice in sorted(arguments, key=lambda a: (a is str, type(plain) is not a, a is not type(None))):
            try:
                return _convert(value, choice)
            except (TypeError, ValueError, yaml.YAMLError):
                continue
        raise TypeError
    if annotation is str or (origin is Literal and all(isinstance(choice, str) for choice in arguments)):
        if not isinstance(value, str) or (origin is Literal and value not in arguments):
            raise TypeError
        return str(value)
    if isinstance(value, CommandLineText):
        value = load_yaml(value)
    if annotation is Any or annotation is dataclasses.MISSING:
        return value
    if annotation is type(None) and value is None:
        return None
    if origin is Literal and value in arguments:
        return value
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is int and not isinstance(value, bool):
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    elif annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif (origin or annotation) in (list, tuple) and isinstance(value, list | tuple):
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise TypeError
            return tuple(_convert(item, kind) for item, kind in zip(value, arguments, strict=True))
        kind = arguments[0] if arguments else Any
        return (origin or annotation)(_convert(item, kind) for item in value)
    elif (origin or annotation) is dict and isinstance(value, Mapping):
        key_kind, kind = arguments or (Any, Any)
        return {_convert(key, key_kind): _convert(item, kind) for key, item in value.items()}
    elif annotation not in (int, float, str, bool, list, tuple, dict, type(None)) and origin is None:
        return value  # a type of which we know nothing: its own class checks it
    raise TypeError


def resolved_annotations(cls: type) -> dict[str, Any]:
    """Type hints of a class and its bases; Any where a name in one cannot be resolved (imported for type
    checkers).
    """
    found = {}
    for base in reversed(cls.__mro__):
        for name, annotation in inspect.get_annotations(base).items():
            holder = type(
                base.__name__, (), {"__annotations__": {name: annotation}, "__module__": base.__module__}
            )
            try:
                found[name] = typing.get_type_hints(holder)[name]
            except NameError:
                found[name] = Any
    return found


def convert_fields(cls: type, mapping: Any, path: str) -> dict[str, Any]:
    """The entries of a mapping as the fields of a dataclass want them; keys that it lacks are refused.

    Args:
        cls: a dataclass (an instance is not made, so a class with further checks of its own can be used).
        mapping: what the recipe says; None counts as empty.
        path: dotted path of the section.

    Raises:
        RecipeError: not a mapping, an unknown key, a wrong type, a number out of its range.
    """
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise RecipeError(f"{path} must be a mapping of keys to values, got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    annotations = resolved_annotations(cls)
    values = {}
    for key, value in mapping.items():
        key_path = f"{path}.{key}"
        if key not in fields:
            raise unknown_key(key_path, (f"{path}.{name}" for name in fields))
        values[key] = convert(value, annotations[key], key_path)
        _check_range(values[key], fields[key].metadata, key_path)
    return values


def _check_range(value: Any, limits: Mapping[str, Any], path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    minimum, maximum = limits.get("minimum"), limits.get("maximum")
    if minimum is not None and value < minimum:
        raise RecipeError(f"{path} must be at least {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise RecipeError(f"{path} must be at most {maximum}, got {value}")


def from_mapping(cls: type[T], mapping: Any, path: str) -> T:
    """Make a dataclass of a mapping; `convert_fields` says how strictly.

    Raises:
        RecipeError: as `convert_fields`; a field without default is missing; the class's own checks fail.
    """
    values = convert_fields(cls, mapping, path)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise RecipeError(
                f"{path}.{field.name} is missing: {field.metadata.get('help') or 'it has no default'}"
            )
    try:
        return cls(**values)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
