"""Models and processors through the Hub: pushed by their own methods, loaded by id in other processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server import LoopbackHub

from models.tiny_stica import make_config

ID = "videossl/stica-k400"
ROOT = Path(__file__).parents[2]
README, CARDS = ROOT / "README.md", ROOT / "model_cards"
FEATURES = """
def features(model, processor):
    import torch
    inputs = processor(os.environ["CLIP"], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).pooler_output.tolist()
"""
PUSH = f"""
import os, re, shutil, torch, videossl_hf
from pathlib import Path
from huggingface_hub import HfApi
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification, AutoProcessor
from transformers import pipeline
from models.tiny_stica import make_config, make_processor
from videossl_hf import STiCAForPreTraining
from videossl_hf.evaluation.fingerprint import model_identity
from videossl_hf.evaluation.loading import load_model
{FEATURES}
model, processor = STiCAForPreTraining(make_config()).eval(), make_processor()
model.push_to_hub("{ID}")
first = processor.push_to_hub("{ID}").oid
answer["first"], answer["features"] = first, features(model.base_model, processor)
torch.nn.init.zeros_(model.base_model.video_model.backbone.stem.norm.weight)
model.push_to_hub("{ID}")
answer["changed"] = features(model.base_model, processor)

processor = AutoProcessor.from_pretrained("{ID}")
answer["by_id"] = features(AutoModel.from_pretrained("{ID}"), processor)
answer["pinned"] = features(AutoModel.from_pretrained("{ID}", revision=first), processor)
identities = [model_identity(load_model("{ID}", revision=revision)) for revision in (first, None)]
answer["revisions"] = [identity["revision"] for identity in identities]
answer["newest"] = HfApi().model_info("{ID}").sha
answer["pretraining"] = type(AutoModelForPreTraining.from_pretrained("{ID}")).__module__
classifier = AutoModelForVideoClassification.from_pretrained("{ID}", num_labels=3)
classifier.push_to_hub("videossl/classifier")
processor.push_to_hub("videossl/classifier")
classify = pipeline("video-classification", "videossl/classifier")
answer["labels"] = [row["label"] for row in classify(os.environ["CLIP"])]

HfApi().create_repo("alice/hidden", private=True)
HfApi().upload_file(path_or_fileobj=b"{{}}", path_in_repo="config.json", repo_id="alice/hidden")
try:
    AutoModel.from_pretrained("alice/hidden", token=False)
except OSError as error:
    answer["hidden"] = str(error)

shutil.copy(os.environ["CLIP"], "clip.mp4")
example = {{}}
exec(re.search("```python\\n(.*?)```", Path(os.environ["CARD"]).read_text(), re.DOTALL)[1], example)
answer["example"] = list(example["features"].shape)
"""
# What a process without the package does; `first` is put before it.
REMOTE = f"""
import os, sys
from transformers import AutoModel, AutoProcessor, AutoModelForPreTraining, pipeline
{FEATURES}
try:
    AutoModel.from_pretrained("{ID}", trust_remote_code=False)
except ValueError as error:
    answer["refused"] = str(error)
options = {{"trust_remote_code": True, "revision": first}}
model = AutoModel.from_pretrained("{ID}", **options)
processor = AutoProcessor.from_pretrained("{ID}", **options)
answer["features"] = features(model, processor)
answer["pretraining"] = type(AutoModelForPreTraining.from_pretrained("{ID}", **options)).__name__
classify = pipeline("video-classification", "videossl/classifier", trust_remote_code=True)
answer["labels"] = [row["label"] for row in classify(os.environ["CLIP"])]
model.push_to_hub("alice/again")
processor.push_to_hub("alice/again")
parts = [auto.from_pretrained("alice/again", trust_remote_code=True) for auto in (AutoModel, AutoProcessor)]
answer["again"] = features(*parts)
answer["imported"] = "videossl_hf" in sys.modules
"""
OFFLINE = f"""
import os
from transformers import AutoModel, AutoProcessor
{FEATURES}
options = {{"trust_remote_code": True, "revision": first}}
parts = [auto.from_pretrained("{ID}", **options) for auto in (AutoModel, AutoProcessor)]
answer["features"] = features(*parts)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pushed(client: Callable[..., Any], clip_with_sound: Path) -> dict:
    return client(PUSH, CLIP=str(clip_with_sound), CARD=str(CARDS / "stica-k400.md"))


@pytest.fixture(scope="module")
def remote(client: Callable[..., Any], pushed: dict, clip_with_sound: Path, home: Path) -> dict:
    script = f"first = {pushed['first']!r}\n{REMOTE}"
    return client(script, package=False, home=home, CLIP=str(clip_with_sound))


def equal(one: list, other: list) -> bool:
    """Whether features are the same; kernels may round differently from one process to the next."""
    return np.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_pushed_repository_holds_weights_settings_and_code(pushed: dict, hub: LoopbackHub) -> None:
    files = set(hub.repository(ID).files())
    assert {"config.json", "model.safetensors", "processor_config.json"} < files
    assert {"configuration_stica.py", "modeling_stica.py", "processing_stica.py"} < files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_model_loads_by_id_once_the_package_is_imported(pushed: dict) -> None:
    assert equal(pushed["by_id"], pushed["changed"])
    assert pushed["pretraining"] == "videossl_hf.models.stica.modeling_stica"
    assert sorted(pushed["labels"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_a_pinned_revision_stays_what_it_was(pushed: dict) -> None:
    assert equal(pushed["pinned"], pushed["features"])
    assert not equal(pushed["pinned"], pushed["changed"])


def test_results_name_the_commit_that_was_loaded(pushed: dict) -> None:
    assert pushed["revisions"] == [pushed["first"], pushed["newest"]]
    assert pushed["first"] != pushed["newest"]


def test_a_process_without_the_package_gets_the_same_features_from_the_repository(
    pushed: dict, remote: dict
) -> None:
    assert equal(remote["features"], pushed["features"])
    assert remote["pretraining"] == "STiCAForPreTraining"
    assert sorted(remote["labels"]) == sorted(pushed["labels"])
    assert not remote["imported"]


def test_code_of_a_repository_runs_only_with_the_callers_flag(remote: dict) -> None:
    assert "trust_remote_code" in remote["refused"]


def test_a_model_loaded_from_a_repository_can_be_pushed_again(
    pushed: dict, remote: dict, hub: LoopbackHub
) -> None:
    assert equal(remote["again"], pushed["features"])
    code = [name for name in hub.repository(ID).files() if name.endswith(".py")]
    assert [name for name in hub.repository("alice/again").files() if name.endswith(".py")] == code


def test_a_downloaded_model_loads_offline(
    client: Callable[..., Any], pushed: dict, remote: dict, clip_with_sound: Path, home: Path
) -> None:
    script = f"first = {pushed['first']!r}\n{OFFLINE}"
    answer = client(script, package=False, home=home, CLIP=str(clip_with_sound), HF_HUB_OFFLINE="1")
    assert equal(answer["features"], pushed["features"])


def test_a_private_model_is_a_clear_error_without_a_token(pushed: dict) -> None:
    assert "private" in pushed["hidden"]


def test_the_usage_example_of_the_card_runs(pushed: dict) -> None:
    assert pushed["example"] == [1, make_config().hidden_size]


def test_every_id_that_the_readme_names_has_a_card() -> None:
    named = set(re.findall(r"\bvideossl/([\w.-]*\w)", README.read_text(encoding="utf-8")))
    assert named <= {path.stem for path in CARDS.glob("*.md")}
