"""Models and processors of every method through the Hub: pushed by their own methods and by `videossl push`,
loaded by id in other processes. A few processes do the work of all methods: each takes seconds to start."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server import LoopbackHub

from videossl_hf.registry import METHODS

ROOT = Path(__file__).parents[2]
README, CARDS = ROOT / "README.md", ROOT / "model_cards"
ALL = (*METHODS, "dvae")
READERS = ("tvts", "ila")  # of texts
COMMON = """
import os, torch
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification, AutoProcessor
from transformers import pipeline
torch.set_num_threads(1)

def compute(repository, **options):
    # Features of the clip, or codes.
    processor = AutoProcessor.from_pretrained(repository, **options)
    model = AutoModel.from_pretrained(repository, **options).eval()
    with torch.no_grad():
        output = model(**processor(videos=os.environ["CLIP"], return_tensors="pt"))
    return output["codes" if "codes" in output else "pooler_output"].tolist()

def pipes(method, **options):
    # What every pipeline of the method says of the clip, by repositories that `videossl push` made.
    said = {}
    extract = pipeline("video-feature-extraction", f"alice/{method}", **options)
    said["features"] = extract(os.environ["CLIP"])["features"]
    hears = {"audio": True} if method == "stica" else {}
    said["windows"] = extract([os.environ["CLIP"]] * 2, window_seconds=1, batch_size=3, **hears)[1]
    if method in ("tvts", "ila"):
        classify = pipeline("zero-shot-video-classification", f"alice/{method}", **options)
        said["named"] = classify(os.environ["CLIP"], candidate_labels=["left", "right"])
    repository = f"alice/{method}-classifier"
    said["classes"] = pipeline("video-classification", repository, **options)(os.environ["CLIP"])
    windowed = pipeline("windowed-video-classification", repository, **options)
    said["same classes"] = windowed(os.environ["CLIP"])
    said["timed"] = windowed(os.environ["CLIP"], window_seconds=1, top_k=2)
    return said
"""
PUSH = f"""
{COMMON}
import contextlib, io, re, shutil
from pathlib import Path
from huggingface_hub import HfApi
import videossl_hf
from common.tiny import tiny
from models.tiny_vimpac import make_tokenizer
from videossl_hf import DVAEProcessor, cli
from videossl_hf.evaluation.fingerprint import model_identity
from videossl_hf.evaluation.loading import load_model
from videossl_hf.registry import METHODS, find_class, has_class

def parts(method):
    # The model that a training leaves, and its processor.
    torch.manual_seed(0)
    if method == "dvae":
        model = make_tokenizer()
        return model, DVAEProcessor.from_config(model.config, size=32, crop_size=32)
    suffix = "ForPreTraining" if has_class(method, "ForPreTraining") else "ForVideoClassification"
    model = find_class(method, suffix)(tiny(method).make_config()).eval()
    return model, tiny(method).make_processor()

def push(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["push", *arguments, "--license", "cc-by-4.0"]) == 0
    return out.getvalue()

shutil.copy(os.environ["CLIP"], "clip.mp4")
for method in (*METHODS, "dvae"):
    found = answer[method] = {{}}
    own = f"videossl/{{method}}"
    model, processor = parts(method)
    model.push_to_hub(own)
    found["first"] = processor.push_to_hub(own).oid
    found["computed"] = compute(own)
    model.save_pretrained(method)
    processor.save_pretrained(method)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter.data)
    model.push_to_hub(own)
    found["changed"] = compute(own)
    found["pinned"] = compute(own, revision=found["first"])
    identities = [model_identity(load_model(own, revision=revision)) for revision in (found["first"], None)]
    found["revisions"] = [identity["revision"] for identity in identities]
    found["newest"] = HfApi().model_info(own).sha
    found["module"] = type(AutoModel.from_pretrained(own)).__module__
    found["pushed"] = push(method, f"alice/{{method}}")
    if method in METHODS:
        torch.manual_seed(1)
        names = dict(enumerate(tiny("ila").LABELS))
        classifier = AutoModelForVideoClassification.from_pretrained(method, id2label=names)
        for name, parameter in classifier.named_parameters():  # some start from zeros, where all classes tie
            if not name.startswith(classifier.base_model_prefix) and parameter.ndim > 1:
                torch.nn.init.normal_(parameter.data)
        classifier.save_pretrained(f"{{method}}-classifier")
        processor.save_pretrained(f"{{method}}-classifier")
        push(f"{{method}}-classifier", f"alice/{{method}}-classifier")
        found["pipes"] = pipes(method)
    found["examples"] = 0
    for kind in ("", "-classifier") if method in METHODS else ("",):
        card = Path(HfApi().hf_hub_download(f"alice/{{method}}{{kind}}", "README.md")).read_text()
        example = {{}}
        for block in re.findall("```python\\n(.*?)```", card, re.DOTALL):
            exec(block.replace('["walk", "run"]', '["left", "right"]'), example)
            found["examples"] += 1
        result = example.get("features", example.get("codes"))
        found[f"example{{kind}}"] = list(result.shape)

HfApi().create_repo("alice/hidden", private=True)
HfApi().upload_file(path_or_fileobj=b"{{}}", path_in_repo="config.json", repo_id="alice/hidden")
try:
    AutoModel.from_pretrained("alice/hidden", token=False)
except OSError as error:
    answer["hidden"] = str(error)
"""
# What a process without the package does; `first`, the commits to pin by method, is put before it.
REMOTE = f"""
{COMMON}
import sys
answer["refused"] = []
for repository, auto in (("videossl/stica", AutoModel), ("alice/tvts", AutoProcessor)):
    try:
        auto.from_pretrained(repository, trust_remote_code=False)
    except ValueError as error:
        answer["refused"].append(str(error))
try:
    pipeline("video-feature-extraction", "alice/stica", trust_remote_code=False)
except ValueError as error:
    answer["refused"].append(str(error))
for method, commit in first.items():
    found = answer[method] = {{}}
    options = {{"trust_remote_code": True, "revision": commit}}
    found["computed"] = compute(f"videossl/{{method}}", **options)
    if method in {METHODS!r}:
        found["pipes"] = pipes(method, trust_remote_code=True)
    model = AutoModel.from_pretrained(f"alice/{{method}}", trust_remote_code=True)
    found["custom"] = sorted(getattr(model.config, "custom_pipelines", {{}}))
    model.push_to_hub(f"alice/{{method}}-again")
    processor = AutoProcessor.from_pretrained(f"alice/{{method}}", trust_remote_code=True)
    processor.push_to_hub(f"alice/{{method}}-again")
    found["again"] = compute(f"alice/{{method}}-again", trust_remote_code=True)
    if method not in ("ila", "dvae"):
        found["pretraining"] = type(AutoModelForPreTraining.from_pretrained(
            f"videossl/{{method}}", **options)).__name__
answer["imported"] = "videossl_hf" in sys.modules
"""
DOWNLOAD = """
from huggingface_hub import snapshot_download
answer["folders"] = {method: snapshot_download(f"alice/{method}") for method in methods}
"""
OFFLINE = f"""
{COMMON}
for method, folder in folders.items():
    answer[method] = [compute(name, trust_remote_code=True) for name in (folder, f"alice/{{method}}")]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pushed(client: Callable[..., Any], clip_with_sound: Path) -> dict:
    return client(PUSH, CLIP=str(clip_with_sound))


@pytest.fixture(scope="module")
def remote(client: Callable[..., Any], pushed: dict, clip_with_sound: Path) -> dict:
    first = {method: pushed[method]["first"] for method in ALL}
    return client(f"first = {first!r}\n{REMOTE}", package=False, CLIP=str(clip_with_sound))


@pytest.fixture(scope="module")
def offline(client: Callable[..., Any], pushed: dict, clip_with_sound: Path, home: Path) -> dict:
    folders = client(f"methods = {ALL!r}\n{DOWNLOAD}", package=False, home=home)["folders"]
    script = f"folders = {folders!r}\n{OFFLINE}"
    return client(script, package=False, home=home, CLIP=str(clip_with_sound), HF_HUB_OFFLINE="1")


def equal(one: Any, other: Any) -> bool:
    """Whether two results are the same; kernels may round differently from one process to the next."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and one and isinstance(one[0], dict):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other if isinstance(one, str) else np.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ALL)
def test_a_pushed_repository_holds_weights_settings_and_code(
    method: str, pushed: dict, hub: LoopbackHub
) -> None:
    files = set(hub.repository(f"videossl/{method}").files())
    assert {"config.json", "model.safetensors", "processor_config.json"} < files
    assert {f"configuration_{method}.py", f"modeling_{method}.py", f"processing_{method}.py"} < files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("method", ALL)
def test_a_model_loads_by_id_and_a_pinned_revision_stays_what_it_was(method: str, pushed: dict) -> None:
    found = pushed[method]
    assert found["module"].startswith("videossl_hf.models.")
    assert equal(found["pinned"], found["computed"])
    assert not equal(found["changed"], found["computed"])


@pytest.mark.parametrize("method", ALL)
def test_results_name_the_commit_that_was_loaded(method: str, pushed: dict) -> None:
    found = pushed[method]
    assert found["revisions"] == [found["first"], found["newest"]]
    assert found["first"] != found["newest"]


@pytest.mark.parametrize("method", ALL)
def test_a_process_without_the_package_gets_the_same_from_the_repository(
    method: str, pushed: dict, remote: dict
) -> None:
    assert equal(remote[method]["computed"], pushed[method]["computed"])
    assert not remote["imported"]
    if method not in ("ila", "dvae"):
        assert remote[method]["pretraining"].endswith("ForPreTraining")


@pytest.mark.parametrize("method", METHODS)
def test_every_pipeline_says_the_same_with_the_package_and_without(
    method: str, pushed: dict, remote: dict
) -> None:
    said = pushed[method]["pipes"]
    assert equal(remote[method]["pipes"], said)
    assert equal([said["features"]], pushed[method]["computed"])
    assert equal(said["classes"], said["same classes"])
    spans = [(window["start"], window["end"]) for window in said["windows"]]
    assert spans == [(window["start"], window["end"]) for window in said["timed"]]
    assert len(spans) > 1
    assert all(len(window["classes"]) == 2 for window in said["timed"])
    assert ("audio_features" in said["windows"][0]) == (method == "stica")
    assert ("named" in said) == (method in READERS)


def test_code_of_a_repository_runs_only_with_the_callers_flag(remote: dict) -> None:
    assert len(remote["refused"]) == 3
    assert all("trust_remote_code" in message for message in remote["refused"])


@pytest.mark.parametrize("method", ALL)
def test_a_model_loaded_from_a_repository_can_be_pushed_again(
    method: str, pushed: dict, remote: dict, hub: LoopbackHub
) -> None:
    assert equal(remote[method]["again"], pushed[method]["computed"])
    code = [name for name in hub.repository(f"videossl/{method}").files() if name.endswith(".py")]
    again = hub.repository(f"alice/{method}-again")
    assert [name for name in again.files() if name.endswith(".py")] == code
    assert bool(remote[method]["custom"]) == (method in METHODS)
    assert b"custom_pipelines" not in again.read("config.json"), "they would name files that are not there"


@pytest.mark.parametrize("method", ALL)
def test_a_downloaded_model_loads_offline(method: str, pushed: dict, offline: dict) -> None:
    assert all(equal(computed, pushed[method]["computed"]) for computed in offline[method])


def test_a_private_model_is_a_clear_error_without_a_token(pushed: dict) -> None:
    assert "private" in pushed["hidden"]


@pytest.mark.parametrize("method", ALL)
def test_the_command_publishes_and_verifies(method: str, pushed: dict, hub: LoopbackHub) -> None:
    repository = hub.repository(f"alice/{method}")
    assert (
        f"published and verified: alice/{method} at revision {repository.branches['main']}"
        in (pushed[method]["pushed"])
    )
    listed = set(re.findall(r"^  (\S+)  [\d,]+$", pushed[method]["pushed"], re.MULTILINE))
    files = set(repository.files())
    assert listed | {".gitattributes"} == files
    assert {"README.md", "example.mp4"} < files
    assert ({"handler.py", "requirements.txt", "pipeline_features.py"} <= files) == (method in METHODS)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".jsonl"))]
    for name in files - {"model.safetensors", "dvae.safetensors", "example.mp4"}:
        assert not re.search(rb"[\"' ](/tmp/|/home/|/root/|/work/)", repository.read(name)), name


@pytest.mark.parametrize("method", ALL)
def test_every_usage_example_of_the_cards_runs(method: str, pushed: dict) -> None:
    found = pushed[method]
    assert found["example"][0] == 1
    assert found["examples"] == (1 if method == "dvae" else 4 + 2 * (method == "ila") + (method == "tvts"))


def test_every_id_that_the_readme_names_has_a_card() -> None:
    named = set(re.findall(r"\bvideossl/([\w.-]*\w)", README.read_text(encoding="utf-8")))
    assert named <= {path.stem for path in CARDS.glob("*.md")}
