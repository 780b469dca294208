"""Nothing in the source runs code that it was only meant to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import videossl_hf

SOURCE = Path(videossl_hf.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py"))
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_IMPORTS = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def problems(source: str) -> Iterator[str]:
    """What a file does that it must not, as "line: what"."""
    nodes = list(ast.walk(ast.parse(source)))
    safe_loaders = {"yaml.SafeLoader"} | {
        node.name
        for node in nodes
        if isinstance(node, ast.ClassDef)
        and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
    }
    # An unpickler that decides itself what each name in a file stands for.
    closed_unpicklers = {
        base
        for node in nodes
        if isinstance(node, ast.ClassDef)
        and {part.name for part in node.body if isinstance(part, ast.FunctionDef)} >= {"find_class"}
        for base in node.bases
        if ast.unparse(base) == "pickle.Unpickler"
    }
    for node in nodes:
        # Beside those only the error that torch.load raises instead of running foreign code is used.
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name.startswith("pickle.") and name != "pickle.UnpicklingError" and node not in closed_unpicklers:
            yield f"{node.lineno}: uses {name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            for name in names:
                if name.split(".")[0] in FORBIDDEN_IMPORTS and name != "pickle":
                    yield f"{node.lineno}: imports {name}"
                if name == "pickle" and isinstance(node, ast.ImportFrom):
                    yield f"{node.lineno}: imports {name}"
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            yield f"{node.lineno}: calls {node.func.id}"
        called = ast.unparse(node.func)
        weights_only = keywords.get("weights_only")
        if called.endswith("torch.load") and not (
            isinstance(weights_only, ast.Constant) and weights_only.value is True
        ):
            yield f"{node.lineno}: torch.load without weights_only=True"
        loader = ast.unparse(keywords["Loader"]) if "Loader" in keywords else None
        if called in ("yaml.unsafe_load", "yaml.full_load") or (
            called == "yaml.load" and loader not in safe_loaders
        ):
            yield f"{node.lineno}: {called} can build any object"
        if called.endswith(("load", "np.load", "numpy.load")) and "allow_pickle" in keywords:
            yield f"{node.lineno}: {called} with allow_pickle"
        trusted = keywords.get("trust_remote_code")
        if isinstance(trusted, ast.Constant) and trusted.value is True:
            yield f"{node.lineno}: trusts remote code without being asked to"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_file_runs_no_foreign_code(path: Path) -> None:
    found = list(problems(path.read_text(encoding="utf-8")))
    if path.name == "handler.py":  # runs where someone has deployed the repository whose code it loads
        found = [problem for problem in found if "trusts remote code" not in problem]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.load(file)",
        "import dill",
        "from pickle import loads",
        "pickle.Unpickler(file)",
        "class Reader(pickle.Unpickler):\n    def persistent_load(self, pid): ...",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.full_load(text)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_scan_finds(line: str) -> None:
    assert len(list(problems(line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "pickle.UnpicklingError",
        "class Reader(pickle.Unpickler):\n    def find_class(self, module, name): ...",
        "yaml.safe_load(text)",
        "torch.load(path, weights_only=True)",
        "re.compile('a')",
    ],
)
def test_the_scan_accepts(line: str) -> None:
    assert list(problems(line)) == []
