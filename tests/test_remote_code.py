from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from common.tiny import tiny
from videossl_hf.registry import METHODS, find_class, has_class
from videossl_hf.remote_code import AUTO_CLASSES, RemoteCodeError, auto_map, bundle, write_code

# What a file may import outside `try`: transformers refuses to load it where one of these is missing.
ALWAYS_THERE = {"torch", "numpy", "transformers", "huggingface_hub", "safetensors"} | set(
    sys.stdlib_module_names
)

CONFIGURATION = """
from ...nn.shared import Base
class BoxConfig(Base):
    pass
"""
MODELING = """
from .configuration_box import BoxConfig
class BoxModel(BoxConfig):
    pass
"""


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a package `boxes` with a method "box" and return its classes by the name of their file."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(**changes: str) -> dict[str, Any]:
        files = {
            "nn/shared.py": "class Base:\n    pass\n",
            "models/box/configuration_box.py": CONFIGURATION,
            "models/box/modeling_box.py": MODELING,
        } | {name.replace("__", "/") + ".py": text for name, text in changes.items()}
        for name, text in files.items():
            path = tmp_path / "boxes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        configuration = importlib.import_module("boxes.models.box.configuration_box")
        modeling = importlib.import_module("boxes.models.box.modeling_box")
        return {"configuration": configuration.BoxConfig, "modeling": modeling.BoxModel}

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "boxes"]:
        del sys.modules[name]


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_one_bundle_whichever_class_is_saved(self, method: str) -> None:
        suffixes = [suffix for _, suffix in AUTO_CLASSES.values() if has_class(method, suffix)]
        bundles = [bundle(find_class(method, suffix)) for suffix in suffixes]
        assert len(bundles) >= 3
        assert all(found == bundles[0] for found in bundles)

    def test_auto_map_names_every_class_that_exists(self, method: str) -> None:
        found = auto_map(find_class(method, "Config"))
        expected = {name for name, (_, suffix) in AUTO_CLASSES.items() if has_class(method, suffix)}
        assert set(found) == expected
        for name, reference in found.items():
            module, class_name = reference.split(".")
            assert class_name == METHODS[method] + AUTO_CLASSES[name][1]
            assert module == f"{AUTO_CLASSES[name][0]}_{method}"

    def test_transformers_copies_the_whole_bundle_whichever_file_it_enters_by(
        self, method: str, tmp_path: Path
    ) -> None:
        paths = write_code(find_class(method, "Config"), tmp_path)
        for kind in ("configuration", "modeling", "processing"):
            entry = tmp_path / f"{kind}_{method}.py"
            copied = {entry, *map(Path, get_relative_import_files(entry))}
            assert copied == set(paths)

    def test_every_import_is_flat_or_of_what_is_always_there(self, method: str, tmp_path: Path) -> None:
        for path in write_code(find_class(method, "Config"), tmp_path):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    assert node.level == 1
                    assert (tmp_path / f"{node.module}.py").is_file()
            assert set(get_imports(path)) <= ALWAYS_THERE, path.name

    def test_every_kind_of_object_saves_the_same_code_and_auto_map(self, method: str, tmp_path: Path) -> None:
        config = tiny(method).make_config()
        tiny(method).make_processor().save_pretrained(tmp_path / "processor")
        tiny(method).make_processor().video_processor.save_pretrained(tmp_path / "video_processor")
        config.save_pretrained(tmp_path / "config")
        find_class(method, "Model")(config).save_pretrained(tmp_path / "model")
        expected = bundle(type(config))
        for folder in ("processor", "video_processor", "config", "model"):
            code = {path.name: path.read_text() for path in (tmp_path / folder).glob("*.py")}
            assert code == expected.files
            settings = (tmp_path / folder).glob("*config.json")
            json_file = next(path for path in settings if not path.name.startswith("tokenizer"))
            assert json.loads(json_file.read_text())["auto_map"] == expected.auto_map


def test_a_bundle_of_a_bundle_is_that_bundle(make_package: Any, tmp_path: Path) -> None:
    first = bundle(make_package()["modeling"])
    for name, source in first.files.items():
        path = tmp_path / "flat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    again = bundle(importlib.import_module("flat.modeling_box").BoxModel)
    assert again == first
    assert first.auto_map == {
        "AutoConfig": "configuration_box.BoxConfig",
        "AutoModel": "modeling_box.BoxModel",
    }
    assert "from .shared import Base" in first.files["configuration_box.py"]


def test_only_import_lines_change(make_package: Any) -> None:
    text = CONFIGURATION + 'TEXT = """import ..nn.shared from here"""\n'
    files = bundle(make_package(models__box__configuration_box=text)["configuration"]).files
    flat = files["configuration_box.py"]
    assert flat.startswith(text.replace("...nn.shared", ".shared"))
    assert files["shared.py"] == "class Base:\n    pass\n"


def test_a_class_derived_elsewhere_belongs_to_its_ancestors_method(make_package: Any) -> None:
    class Mine(make_package()["configuration"]):
        pass

    assert auto_map(Mine)["AutoConfig"] == "configuration_box.BoxConfig"


def test_classes_of_no_method_have_no_code(make_package: Any, tmp_path: Path) -> None:
    classes = make_package(models__box__configuration_box=CONFIGURATION + "class Part(Base):\n    pass\n")
    shared = classes["configuration"].__mro__[1]
    part = sys.modules["boxes.models.box.configuration_box"].Part
    assert bundle(shared) is None
    assert auto_map(shared) == auto_map(part) == auto_map(dict) == {}
    assert write_code(part, tmp_path) == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from . import helper", "from . import name"),
        ("import boxes.nn.shared", "relatively"),
        ("from boxes.nn.shared import Base", "relatively"),
        ("from ...nn import shared", "no file"),
        ("if True: from ...nn.shared import Base", "one line"),
        ("TEXT = '''\nfrom .absent import x\n'''", "absent"),
    ],
)
def test_says_which_line_cannot_be_flattened(make_package: Any, line: str, names: str) -> None:
    classes = make_package(models__box__configuration_box=CONFIGURATION + line + "\n", models__box__helper="")
    with pytest.raises(RemoteCodeError, match=names) as error:
        bundle(classes["modeling"])
    assert "configuration_box.py" in str(error.value)


def test_two_files_of_one_name_are_refused(make_package: Any) -> None:
    classes = make_package(
        models__box__modeling_box=MODELING + "from .shared import X\n", models__box__shared="X = 1\n"
    )
    with pytest.raises(RemoteCodeError, match="one name"):
        bundle(classes["modeling"])


class TestPushing:
    """Every way to push uploads the code; the Hub is replaced by a list of what is sent."""

    @pytest.fixture
    def uploaded(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        names: set[str] = set()

        class Api:
            def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
                return SimpleNamespace(repo_id=repo_id)

            def create_commit(self, operations: Any, **kwargs: Any) -> None:
                names.update(operation.path_in_repo for operation in operations)

            def repo_info(self, *args: Any, **kwargs: Any) -> Any:
                raise AssertionError("no network here")

        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("transformers.") and "hf_api" in vars(module):
                monkeypatch.setattr(module, "hf_api", Api)
        monkeypatch.setattr(
            "transformers.utils.hub.create_and_tag_model_card",
            lambda *a, **k: SimpleNamespace(save=lambda p: None),
        )
        return names

    @pytest.fixture
    def objects(self) -> dict[str, Any]:
        made = tiny("stica")
        config = made.make_config()
        return {
            "model": find_class("stica", "Model")(config),
            "config": config,
            "processor": made.make_processor(),
        }

    @pytest.mark.parametrize("kind", ["model", "config", "processor"])
    def test_push_to_hub(self, uploaded: set[str], objects: dict[str, Any], kind: str) -> None:
        objects[kind].push_to_hub("someone/tiny")
        assert set(bundle(type(objects[kind])).files) <= uploaded

    @pytest.mark.parametrize("kind", ["model", "config", "processor"])
    def test_save_pretrained_with_push_over_an_older_save(
        self, uploaded: set[str], objects: dict[str, Any], kind: str, tmp_path: Path
    ) -> None:
        folder = str(tmp_path / "tiny")
        objects[kind].save_pretrained(folder)
        for path in Path(folder).iterdir():  # older than any clock's resolution
            os.utime(path, (1, 1))
        objects[kind].save_pretrained(folder, push_to_hub=True, repo_id="someone/tiny")
        assert set(bundle(type(objects[kind])).files) <= uploaded


def test_an_auto_map_that_names_a_repository_is_not_passed_on(tmp_path: Path) -> None:
    config = tiny("stica").make_config(auto_map={"AutoModel": "someone/repo--modeling_stica.STiCAModel"})
    config.save_pretrained(tmp_path)
    assert "--" not in (tmp_path / "config.json").read_text()


def test_registering_for_an_auto_class_changes_nothing(tmp_path: Path) -> None:
    model_class = find_class("stica", "Model")
    for cls in (model_class, find_class("stica", "Config"), find_class("stica", "Processor")):
        cls.register_for_auto_class()
    model_class(tiny("stica").make_config()).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == set(bundle(model_class).files)


def test_the_trainer_saves_the_code_too(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = find_class("stica", "ForPreTraining")(tiny("stica").make_config())
    arguments = TrainingArguments(tmp_path / "run", report_to=[], use_cpu=True)
    trainer = Trainer(model, arguments, processing_class=tiny("stica").make_processor())
    trainer.save_model(str(tmp_path / "saved"))
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "processor_config.json", "model.safetensors"} | set(
        bundle(type(model)).files
    ) <= names
