"""Configurations from strangers: a ValueError at once or a harmless attribute; nothing imported or built."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.tiny import tiny
from models.tiny_vimpac import make_dvae_config
from videossl_hf.errors import ConfigurationError
from videossl_hf.hub.description import method_of
from videossl_hf.registry import METHODS, find_class


def number_fields(config: Any) -> list[str]:
    """Our own fields whose value is a whole number or a list of them."""
    base = {field.name for field in fields(type(config).__mro__[1])}
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        items = value if isinstance(value, (list, tuple)) else [value]
        if field.name not in base and items and all(type(item) is int for item in items):
            found.append(field.name)
    return found


@pytest.fixture(params=[*METHODS, "dvae"])
def config(request: pytest.FixtureRequest) -> Any:
    return make_dvae_config() if request.param == "dvae" else tiny(request.param).make_config()


def load(config: Any, folder: Path, change: dict[str, Any]) -> Any:
    """Load config.json after a change, and watch the clock and the imported modules."""
    values = json.loads(config.to_json_string()) | change
    (folder / "config.json").write_text(json.dumps(values))
    before, started = set(sys.modules), time.process_time()
    try:
        return type(config).from_pretrained(folder)
    finally:
        assert time.process_time() - started < 1
        assert set(sys.modules) - before == set()


def test_wrong_types_are_refused(config: Any, tmp_path: Path) -> None:
    load(config, tmp_path, {})
    for name in number_fields(config):
        for wrong in ("eight", {"a": 1}, [["x"]], "os.system"):
            with pytest.raises(ConfigurationError, match=name):
                load(config, tmp_path, {name: wrong})


def test_absurd_sizes_are_refused_before_anything_is_built(config: Any, tmp_path: Path) -> None:
    model_class = find_class(method_of(config), "Model")
    for name in number_fields(config):
        for size in (10**9, -(10**9), 10**30):
            value = getattr(config, name)
            change = {name: [size] * len(value) if isinstance(value, (list, tuple)) else size}
            if name.endswith(("seed", "_steps")) and size == 10**9:
                model_class(load(config, tmp_path, change))  # what is only counted may be large
                continue
            with pytest.raises(ValueError, match=name):
                load(config, tmp_path, change)


def test_unknown_keys_are_kept_and_do_nothing(config: Any, tmp_path: Path) -> None:
    names = {
        "future_option": 3,
        "backbone_module": "os.system",
        "code": "__import__('os').getpid()",
        "path": "/etc/passwd",
        "__class__x": "videossl_hf.data",
    }
    loaded = load(config, tmp_path, names)
    assert {name: getattr(loaded, name) for name in names} == names
    model_class = find_class(method_of(config), "Model")
    expected, found = model_class(config).state_dict(), model_class(loaded).state_dict()
    assert {name: tensor.shape for name, tensor in expected.items()} == {n: t.shape for n, t in found.items()}


@pytest.mark.parametrize(
    "name", ["to_dict", "save_pretrained", "validate", "__init__", "from_dict", "__class__"]
)
def test_keys_that_would_hide_a_method_are_refused(config: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load(config, tmp_path, {name: "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attn_implementation", "someone/kernel:function"),
        ("_attn_implementation", "someone/kernel"),
        ("_attn_implementation_internal", "someone/kernel"),
        ("transformers_weights", "/etc/passwd"),
        ("num_labels", 10**9),
        ("num_labels", "five"),
        ("id2label", "five"),
        ("id2label", {"one": "one"}),
        ("label2id", 7),
        ("dtype", "os"),
        ("dtype", "nonsense"),
        ("torch_dtype", 5),
    ],
)
def test_settings_of_transformers_that_would_run_read_or_fill_memory_are_refused(
    config: Any, tmp_path: Path, name: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError):
        load(config, tmp_path, {name: value})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}}", "\x00\x01"])
def test_what_is_no_configuration_is_refused(config: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((ValueError, OSError)):
        type(config).from_pretrained(tmp_path)


def test_changing_a_field_to_a_wrong_type_is_refused(config: Any) -> None:
    for name in number_fields(config):
        with pytest.raises(ConfigurationError, match=name):
            setattr(config, name, "eight")


@pytest.mark.parametrize("value", [{"video-classification": {"impl": "evil/repo--code.P", "pt": []}}, 5, "x"])
def test_pipelines_that_a_file_names_are_not_those_that_run(config: Any, tmp_path: Path, value: Any) -> None:
    assert not hasattr(load(config, tmp_path, {"custom_pipelines": value}), "custom_pipelines")
