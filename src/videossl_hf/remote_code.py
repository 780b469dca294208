"""Saved folders that carry their own code, as `trust_remote_code=True` needs it.

The source of this package lies in folders (`models/stica/`, `nn/`, `data/`), the code that transformers
loads from a saved folder or a Hub repository must lie flat beside the weights. `bundle` walks the relative
imports of a method's entry files (`configuration_`, `modeling_` and `processing_<method>.py`), rewrites
each to `from .name import ...` and lists the classes for the Auto classes in one `auto_map`. The result is
the same whichever class is saved, and a bundle of a bundle is that bundle: a model loaded by
`trust_remote_code` can be saved and pushed again.

Works on files and syntax trees only and imports nothing of ours, so that every room may use it and it can
itself travel.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "AUTO_CLASSES",
    "Bundle",
    "RemoteCodeError",
    "SavesItsCode",
    "auto_map",
    "bundle",
    "flatten_closure",
    "write_code",
]

AUTO_CLASSES = {
    "AutoConfig": ("configuration", "Config"),
    "AutoModel": ("modeling", "Model"),
    "AutoModelForPreTraining": ("modeling", "ForPreTraining"),
    "AutoModelForVideoClassification": ("modeling", "ForVideoClassification"),
    "AutoProcessor": ("processing", "Processor"),
    "AutoVideoProcessor": ("processing", "VideoProcessor"),
    "AutoFeatureExtractor": ("processing", "FeatureExtractor"),
}
"""Auto class -> (entry file, what follows the method's prefix in the class name)."""

_ENTRY_FILES = ("configuration", "modeling", "processing")
_ENTRY_MODULE = re.compile(rf"({'|'.join(_ENTRY_FILES)})_(\w+)$")
_FROM_LINE = re.compile(r"^(\s*)from\s+\.[\w.]*\s+import\b")
# How transformers finds what to copy, wherever in the text it matches (dynamic_module_utils.py).
_SEEN_BY_TRANSFORMERS = re.compile(r"^\s*from\s+\.(\S+)\s+import", flags=re.MULTILINE)

_TRAVEL_TOGETHER = "\n".join(
    [
        "",
        "",
        "# The other files of this model. transformers copies into its cache of modules what a file",
        "# imports, and only that: named here, they travel together, and what was loaded can be saved again.",
        "from typing import TYPE_CHECKING  # noqa: E402",
        "",
        "if TYPE_CHECKING:",
        "",
    ]
)


class RemoteCodeError(ValueError):
    """Code that cannot be flattened into one folder; the message says which line of which file, and why."""


@dataclass(frozen=True)
class Bundle:
    """All code of one method, flat.

    Attributes:
        files: file name -> source text.
        auto_map: Auto class -> "module.Class", as `config.json` and the processors' JSON files hold it.
    """

    files: dict[str, str]
    auto_map: dict[str, str]


def bundle(cls: type) -> Bundle | None:
    """Flatten the code of the method that a configuration, model or processor class belongs to.

    A subclass that a user derives elsewhere belongs to the method of its nearest ancestor in an entry file.

    Returns:
        The bundle, or None for a class of no method (a shared base class).

    Raises:
        RemoteCodeError: when the import closure cannot lie in one folder.
    """
    method = _method_of(cls)
    return Bundle(_flat_files(method), dict(method.auto_map)) if method else None


def auto_map(cls: type) -> dict[str, str]:
    """The method's complete `auto_map`; {} for a class that neither is named in it nor derives from one."""
    method = _method_of(cls)
    if method is None:
        return {}
    names = {f"{ancestor.__module__.rsplit('.', 1)[-1]}.{ancestor.__name__}" for ancestor in cls.__mro__}
    found = dict(method.auto_map)
    return found if names & set(found.values()) else {}


def write_code(cls: type, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the flattened code of a class's method into a folder, over older copies; returns the paths."""
    found = bundle(cls) if auto_map(cls) else None
    paths = []
    for name, source in found.files.items() if found else ():
        path = Path(folder) / name
        path.write_bytes(source.encode())
        paths.append(path)
    return paths


class SavesItsCode:
    """Mixin for configurations and processors: their JSON comes with an `auto_map` and the code it names.

    `to_json_file` is the step that every way of saving passes through (`save_pretrained`, `push_to_hub`, a
    model's or the Trainer's save), in the main process only and before anything is uploaded.
    """

    def to_dict(self) -> dict[str, Any]:
        """The settings as transformers lists them, with the method's complete `auto_map`."""
        output: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        output.pop("auto_map", None)  # one that was read from a Hub repository names that repository
        output.pop("custom_pipelines", None)  # `videossl push` adds them, with the files that they name
        if names := auto_map(type(self)):
            output["auto_map"] = names
        return output

    def to_json_file(self, json_file_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write the settings as JSON, and the code that its `auto_map` names beside it."""
        super().to_json_file(json_file_path, *args, **kwargs)  # type: ignore[misc]
        write_code(type(self), Path(json_file_path).parent)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing to do: every saved folder names all classes of the method and holds their code."""


@dataclass(frozen=True)
class _Method:
    """Where a method's code lies: entry files by kind, the package they belong to, and their auto_map."""

    entries: tuple[tuple[str, Path], ...]
    package: str
    auto_map: tuple[tuple[str, str], ...]


@functools.cache
def _method_of(cls: type) -> _Method | None:
    for ancestor in cls.__mro__:
        match = _ENTRY_MODULE.search(ancestor.__module__)
        if match is None or ancestor.__module__.startswith("transformers."):
            continue
        folder = Path(inspect.getfile(ancestor)).parent.resolve()
        method = _method_in(folder, match[2], ancestor.__module__.split(".")[0])
        if method is not None:
            return method
    return None


@functools.cache
def _method_in(folder: Path, name: str, package: str) -> _Method | None:
    """The method whose `configuration_<name>.py` lies in `folder` and defines `<Prefix>Config`, if any."""
    paths = ((kind, folder / f"{kind}_{name}.py") for kind in _ENTRY_FILES)
    entries = {kind: path for kind, path in paths if path.is_file()}
    classes = {kind: _class_names(path) for kind, path in entries.items()}
    prefixes = (found.removesuffix("Config") for found in sorted(classes.get("configuration", ())))
    prefix = next((prefix for prefix in prefixes if prefix.lower() == name), None)
    if prefix is None:
        return None
    names = tuple(
        (auto_class, f"{kind}_{name}.{prefix}{suffix}")
        for auto_class, (kind, suffix) in AUTO_CLASSES.items()
        if prefix + suffix in classes.get(kind, ())
    )
    return _Method(tuple(entries.items()), package, names)


def flatten_closure(paths: Sequence[Path], package: str) -> dict[str, str]:
    """File name -> flattened source of some files and of all that they import, step by step.

    Args:
        paths: files of the package.
        package: its name, which no file may import absolutely.

    Raises:
        RemoteCodeError: when they cannot lie in one folder.
    """
    files: dict[str, str] = {}
    origin: dict[str, Path] = {}
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if origin.setdefault(path.name, path) != path:
            raise RemoteCodeError(
                f"{origin[path.name]} and {path} have one name: files that a method imports end up "
                "in one folder, rename one of them"
            )
        if path.name not in files:
            files[path.name], imported = _flatten(path, package)
            waiting.extend(imported)
    return dict(sorted(files.items()))


@functools.cache
def _flat_files(method: _Method) -> dict[str, str]:
    """The closure of a method's entry files, each of which also names the others."""
    entries = [path for _, path in method.entries]
    files = flatten_closure(entries, method.package)
    for path in entries:
        others = [other.stem for other in entries if other != path]
        files[path.name] = _name_companions(files[path.name], others)
    return files


def _class_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def _flatten(path: Path, package: str) -> tuple[str, list[Path]]:
    """The source of one file with flat relative imports, and the files that they name."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    imported = []
    for node in ast.walk(ast.parse(source, str(path))):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        where = f"{path}, line {node.lineno}"
        absolute = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
        if isinstance(node, ast.Import) or node.level == 0:
            if any(name.split(".")[0] == package for name in absolute):
                raise RemoteCodeError(f"{where}: import {package} relatively (`from ..nn.name import ...`)")
            continue
        if node.module is None:
            raise RemoteCodeError(
                f"{where}: name a module, `from .name import ...` instead of `from . import name`"
            )
        parts = node.module.split(".")
        target = path.parents[node.level - 1].joinpath(*parts).with_suffix(".py")
        if not target.is_file():
            raise RemoteCodeError(
                f"{where}: there is no file {target}; import from the module, not from a package"
            )
        line = lines[node.lineno - 1]
        if _FROM_LINE.match(line) is None:
            raise RemoteCodeError(f"{where}: write `from .name import` at the start of one line")
        lines[node.lineno - 1] = _FROM_LINE.sub(rf"\1from .{target.stem} import", line)
        imported.append(target)
    flat = "".join(lines)
    unknown = set(_SEEN_BY_TRANSFORMERS.findall(flat)) - {target.stem for target in imported}
    if unknown:
        raise RemoteCodeError(
            f"{path}: a text holds what looks like a relative import of {', '.join(sorted(unknown))}, which "
            "transformers would try to copy; word it differently"
        )
    return flat, imported


def _name_companions(source: str, others: list[str]) -> str:
    """Append imports, for type checkers only, of the entry files that `source` does not import already."""
    missing = [name for name in others if name not in _SEEN_BY_TRANSFORMERS.findall(source)]
    if not missing:
        return source
    return (
        source + _TRAVEL_TOGETHER + "".join(f"    from .{name} import *  # noqa: F403\n" for name in missing)
    )
