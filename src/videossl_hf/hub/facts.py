"""What is known of a method beside its code: paper, limits, official files, planned checkpoints.

They lie beside the method, in `models/<method>/facts_<method>.yaml`; without that file a method has a card
without them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..registry import COMPANIONS, METHODS, class_prefix, find_class

__all__ = ["MethodFacts", "method_facts", "official_source", "planned_checkpoint"]


@dataclass(frozen=True)
class MethodFacts:
    """Facts for cards.

    Attributes:
        name: the method's name as its authors write it.
        title, arxiv, year, citation: of the paper, if there is one; the citation is BibTeX.
        summary: the idea in a few sentences.
        modalities, tags: for the card's metadata.
        limits: sentences.
        official: "repository" and "license" of the authors' release and the file names of its "checkpoints".
        planned: name of a checkpoint that is not published yet -> "data" it was or will be trained on,
            "model" (configuration fields), and how to make it: "recipe", or "convert" with the authors'
            "file" and the "arguments" of `videossl convert`, or both; for the card's metadata "datasets" and
            "base_model".
    """

    name: str
    title: str = ""
    arxiv: str = ""
    year: int | None = None
    summary: str = ""
    citation: str = ""
    modalities: list[str] = field(default_factory=lambda: ["video"])
    tags: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    official: dict[str, Any] = field(default_factory=dict)
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def method_facts(method: str) -> MethodFacts:
    """The facts of a method of the registry, or of a companion."""
    folder = Path(inspect.getfile(find_class(method, "Config"))).parent
    path = folder / f"facts_{method}.yaml"
    if not path.exists():
        return MethodFacts(name=class_prefix(method))
    return MethodFacts(**yaml.safe_load(path.read_text(encoding="utf-8")))


def official_source(method: str, file_name: str) -> dict[str, str | None]:
    """`source` and `license` of an official checkpoint, by its file's name; empty for any other file.

    The licence is None where the authors state none.
    """
    official = method_facts(method).official
    if file_name not in official.get("checkpoints", ()):
        return {}
    return {"source": official["repository"], "license": official.get("license")}


def planned_checkpoint(name: str) -> tuple[str, dict[str, Any]]:
    """Method and details of a planned checkpoint.

    Raises:
        InputError: for a name that no method plans; the message lists those that are planned.
    """
    known = {}
    for method in (*METHODS, *COMPANIONS):
        for planned, details in method_facts(method).planned.items():
            known[planned] = (method, details)
    if name not in known:
        raise InputError(f"no checkpoint {name!r} is planned; planned are {', '.join(sorted(known))}")
    return known[name]
