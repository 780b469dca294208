"""The names of the methods, and how to find the classes of one by naming convention.

A method is one folder `models/<name>/` and one line here. Everything else follows from the names:
`models/stica/` holds `configuration_stica.py`, `modeling_stica.py`, `processing_stica.py`,
`collation_stica.py` and `conversion_stica.py`, and their classes are `STiCAConfig`, `STiCAModel`,
`STiCAForPreTraining`, `STiCAProcessor`, `STiCACollator` and so on.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

__all__ = ["COMPANIONS", "METHODS", "class_prefix", "find_class", "has_class"]

METHODS: dict[str, str] = {
    "stica": "STiCA",
    "videomoco": "VideoMoCo",
    "vimpac": "VIMPAC",
    "tvts": "TVTS",
    "ila": "ILA",
}
"""Folder under `models/` -> prefix of its class names (the same name in the paper's spelling)."""

COMPANIONS: dict[str, tuple[str, str]] = {"dvae": ("vimpac", "DVAE")}
"""Models that serve a method and are none themselves -> their folder, and the prefix of their class names."""

_FILE_OF_SUFFIX = {
    "Config": "configuration",
    "ImageProcessor": "processing",
    "VideoProcessor": "processing",
    "FeatureExtractor": "processing",
    "Processor": "processing",
    "Collator": "collation",
    "Augmentation": "collation",
    "LabelledClipCollator": "labelled",
    "LabelledClipAugmentation": "labelled",
}


def class_prefix(method: str) -> str:
    """The prefix of a method's class names ("stica" -> "STiCA").

    Raises:
        ValueError: for a name that is not in `METHODS`; the message lists those that are.
    """
    if method in COMPANIONS:
        return COMPANIONS[method][1]
    try:
        return METHODS[method]
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise ValueError(f"unknown method {method!r}: the methods are {known}") from None


def _module_name(method: str, suffix: str) -> str:
    folder = COMPANIONS[method][0] if method in COMPANIONS else method
    return f"{__package__}.models.{folder}.{_FILE_OF_SUFFIX.get(suffix, 'modeling')}_{method}"


def find_class(method: str, suffix: str) -> Any:
    """Import and return one class of a method: `find_class("stica", "Collator")` is `STiCACollator`.

    Args:
        method: a key of `METHODS`, or of `COMPANIONS`.
        suffix: what follows the prefix in the class name, such as "Config", "Model", "ForPreTraining",
            "ForVideoClassification", "Processor", "VideoProcessor", "FeatureExtractor", "Collator",
            "Augmentation"; "LabelledClipCollator" and "LabelledClipAugmentation" of a method that does not
            fine-tune on clips as `data.labelled_clips` makes them.

    Raises:
        ValueError: for an unknown method, or for a class that the method does not have
            (a supervised method has no `ForPreTraining`).
    """
    name = class_prefix(method) + suffix
    module_name = _module_name(method, suffix)
    if find_spec(module_name) is not None:
        module = importlib.import_module(module_name)
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(f"method {method!r} has no class {name}: looked for it in {module_name}")


def has_class(method: str, suffix: str) -> bool:
    """Whether a method has this class; imports its file if that exists."""
    class_prefix(method)
    try:
        find_class(method, suffix)
    except ValueError:
        return False
    return True
