"""Which room may import which: read from the syntax trees of the source, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import videossl_hf

ROOT = Path(videossl_hf.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent.name != "templates")  # those run elsewhere

# Room -> what of ours it may import besides itself. Single files at the top are rooms of their own.
TOP = {"errors", "registry", "remote_code", "dependencies"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "registry": set(),
    "remote_code": set(),
    "dependencies": {"errors"},
    "nn": TOP,
    "data": TOP,
    "models": TOP | {"nn", "data"},
    "evaluation": TOP | {"models", "nn", "data"},
    "training": TOP | {"models", "nn", "data", "evaluation"},
    "hub": TOP | {"models", "nn", "data", "evaluation", "training"},
    "visualize": TOP | {"models", "nn", "data", "evaluation", "training"},
    "__init__": TOP | {"data"},
}
# Optional or slow: never imported by `import videossl_hf`, so only inside functions.
INSIDE_FUNCTIONS_ONLY = {"av", "datasets", "matplotlib", "sklearn", "gradio", "evaluate"}
# Rooms that `import videossl_hf` reads; the others may import these at their top.
READ_ON_IMPORT = {"errors", "registry", "remote_code", "dependencies", "nn", "data", "models", "__init__"}


def room(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement, and whether it runs when the module is imported (not inside a function)."""

    def walk(node: ast.AST, on_import: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child, on_import
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, on_import and not inside)

    return walk(ast.parse(path.read_text(encoding="utf-8")), True)


def target(path: Path, node: ast.ImportFrom) -> Path:
    """The file or folder that a relative import names."""
    return path.parents[node.level - 1].joinpath(*(node.module or "").split("."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryFile:
    def test_imports_only_rooms_below_its_own(self, path: Path) -> None:
        own = room(path)
        if own not in MAY_IMPORT:  # commands and their helpers lie at the top and may import every room
            assert path.parent == ROOT
            return
        allowed = MAY_IMPORT[own] | {own}
        for node, _ in imports(path):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                assert room(target(path, node)) in allowed, f"line {node.lineno} imports {node.module}"

    def test_imports_relatively_and_from_something_that_exists(self, path: Path) -> None:
        for node, _ in imports(path):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.module, f"line {node.lineno}: `from . import name`"
                found = target(path, node)
                module = found.with_suffix(".py").is_file() or (found / "__init__.py").is_file()
                assert module, f"line {node.lineno}: there is no {found}"
            else:
                assert not any(name.split(".")[0] == "videossl_hf" for name in names), f"line {node.lineno}"

    def test_imports_optional_packages_only_where_they_are_used(self, path: Path) -> None:
        if room(path) not in READ_ON_IMPORT:
            return
        read_later = {"datasets.py", "loading.py", "prepare.py"}  # of data/: what no processor needs
        for node, on_import in imports(path):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            absolute = isinstance(node, ast.Import) or not node.level
            if absolute and on_import and path.name not in read_later:
                assert not {name.split(".")[0] for name in names} & INSIDE_FUNCTIONS_ONLY, (
                    f"line {node.lineno}"
                )

    def test_methods_do_not_import_each_other(self, path: Path) -> None:
        parts = path.relative_to(ROOT).parts
        if parts[0] != "models" or len(parts) < 3:
            return
        for node, _ in imports(path):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                found = target(path, node).relative_to(ROOT).parts
                assert found[0] != "models" or found[1] == parts[1], f"line {node.lineno}"


def test_the_rules_know_every_room() -> None:
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= set(MAY_IMPORT)


def test_a_forbidden_import_would_be_found(tmp_path: Path) -> None:
    path = ROOT / "nn" / "imagined.py"
    node = ast.parse("from ..models.stica.modeling_stica import STiCAModel").body[0]
    assert isinstance(node, ast.ImportFrom)
    assert room(target(path, node)) == "models"
    assert "models" not in MAY_IMPORT["nn"]
