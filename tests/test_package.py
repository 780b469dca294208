"""What `import videossl_hf` costs, brings and registers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

import videossl_hf
from videossl_hf.registry import METHODS, class_prefix, find_class, has_class
from videossl_hf.remote_code import AUTO_CLASSES

HEAVY = ("av", "datasets", "matplotlib", "gradio", "sklearn", "evaluate")

MAPPINGS = {
    "AutoProcessor": PROCESSOR_MAPPING,
    "AutoFeatureExtractor": FEATURE_EXTRACTOR_MAPPING,
    "AutoVideoProcessor": VIDEO_PROCESSOR_MAPPING,
}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_import_adds_little_time_and_nothing_heavy() -> None:
    """0.3 s of CPU beyond transformers' own classes; the best of three, as other programs run beside it."""
    code = (
        "import sys, time; from transformers import AutoModel, AutoProcessor, PreTrainedModel;"
        "before = time.process_time(); import videossl_hf; print(time.process_time() - before);"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        done = python(code)
        assert done.returncode == 0, done.stderr
        time, heavy = done.stdout.split("\n", 1)
        assert heavy.strip() == "[]"
        seconds.append(float(time))
        if min(seconds) <= 0.3:
            return
    pytest.fail(f"importing the package takes {seconds} s of CPU beyond transformers")


def test_import_works_first_without_transformers_having_been_imported() -> None:
    done = python(
        "import videossl_hf; from transformers import AutoVideoProcessor; AutoVideoProcessor.register"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_every_class_of_every_method_is_registered(method: str) -> None:
    config_class = find_class(method, "Config")
    assert transformers.CONFIG_MAPPING[config_class.model_type] is config_class
    for name, (_, suffix) in AUTO_CLASSES.items():
        if name == "AutoConfig" or not has_class(method, suffix):
            continue
        mapping = MAPPINGS.get(name) or getattr(transformers, name)._model_mapping
        found = mapping[config_class]
        classes = found.values() if isinstance(found, dict) else [found]
        assert list(classes) == [find_class(method, suffix)]


def test_registering_twice_is_harmless() -> None:
    videossl_hf._register_methods()
    videossl_hf._register_methods()


@pytest.mark.parametrize("method", METHODS)
def test_prefix_is_the_folder_name_in_another_spelling(method: str) -> None:
    assert class_prefix(method).lower() == method


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="stica"):
        find_class("sitca", "Config")
    with pytest.raises(ValueError, match="STiCAForDreaming"):
        find_class("stica", "ForDreaming")
    assert not has_class("stica", "ForDreaming")


def test_every_public_class_can_be_imported_from_the_package() -> None:
    root = Path(videossl_hf.__file__).parent
    owners: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        if path.name == "__init__.py" or path.parent.name == "templates":  # those are parts of repositories
            continue
        module = importlib.import_module(
            ".".join(("videossl_hf", *path.relative_to(root).with_suffix("").parts))
        )
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, type) and value.__module__ == module.__name__:
                assert name not in owners, f"{name} in {owners.get(name)} and {module.__name__}"
                owners[name] = module.__name__
                assert getattr(videossl_hf, name) is value
    assert set(owners) <= set(videossl_hf.__all__)
    assert set(owners) <= set(dir(videossl_hf))
    assert {"STiCAModel", "VideoReader", "VideoSSLError"} <= set(owners)


def test_an_absent_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonesuch"):
        _ = videossl_hf.Nonesuch
    assert not hasattr(videossl_hf, "nonesuch")


def test_a_broken_torchvision_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    information = tmp_path / "torchvision-0.28.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0+cu130\n")
    done = python("import videossl_hf", PYTHONPATH=str(tmp_path))
    last = done.stderr.strip().splitlines()[-1]
    assert "DependencyError" in last
    assert "torchvision 0.28.0+cu130" in last
    assert "pip uninstall torchvision" in last


def test_two_versions_agree() -> None:
    from importlib.metadata import version

    assert videossl_hf.__version__ == version("videossl-hf")
