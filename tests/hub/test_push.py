"""`videossl push`: what it chooses, what it refuses, what arrives."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from server import LoopbackHub

from models.tiny_stica import make_config
from videossl_hf import STiCAForPreTraining, cli
from videossl_hf.errors import CheckpointError, ConfigurationError, DataError, InputError, OutputError
from videossl_hf.hub import push, verify
from videossl_hf.hub.origin import Origin, write_origin

ID = "alice/shapes"


def converted_from(license: str | None) -> Origin:
    return Origin("stica", "gdt_K400.pth", "0" * 64, license, None, "videossl-hf 0")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_only_what_a_model_consists_of_is_published(run_folder: Path) -> None:
    upload = push.plan_upload(run_folder, ID)
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md"} <= upload.files.keys()
    assert "modeling_stica.py" in upload.files
    assert upload.left_out == ["checkpoint-10/", "metrics.jsonl", "training_args.bin"]
    assert not (run_folder / "README.md").exists()


def test_the_tokeniser_of_a_model_goes_with_it_but_is_no_model(run_folder: Path) -> None:
    (run_folder / "model.safetensors").rename(run_folder / "dvae.safetensors")
    with pytest.raises(DataError, match="no weights"):
        push.plan_upload(run_folder, ID)
    shutil.copy(run_folder / "dvae.safetensors", run_folder / "model.safetensors")
    assert "dvae.safetensors" in push.plan_upload(run_folder, ID).files


def test_a_card_is_made_that_names_the_repository(run_folder: Path) -> None:
    card = push.plan_upload(run_folder, ID, license="cc-by-4.0").content("README.md").decode()
    assert f'AutoModel.from_pretrained("{ID}")' in card
    assert "license: cc-by-4.0" in card


def test_absolute_paths_are_cut_and_comments_of_other_files_stay(run_folder: Path) -> None:
    change_json(
        run_folder / "processor_config.json", source="/data/me/model", url="https://a.b/c", ratio="1/255"
    )
    (run_folder / "recipe.yaml").write_text(
        "data:\n  train: /data/me/clips\n  test: C:\\me\\clips\n  ok: a/b\n"
    )
    upload = push.plan_upload(run_folder, ID)
    settings = json.loads(upload.content("processor_config.json"))
    assert (settings["source"], settings["url"], settings["ratio"]) == ("model", "https://a.b/c", "1/255")
    assert upload.content("recipe.yaml") == b"data:\n  train: clips\n  test: clips\n  ok: a/b\n"
    assert sorted(upload.cut_paths) == ["/data/me/clips", "/data/me/model", "C:\\me\\clips"]
    assert "/data/me/model" in (run_folder / "processor_config.json").read_text()


def test_text_that_names_folders_of_this_machine_is_refused(run_folder: Path) -> None:
    (run_folder / "README.md").write_text(f"Trained in {run_folder.resolve()}.")
    with pytest.raises(ConfigurationError, match="a folder of this machine"):
        push.plan_upload(run_folder, ID)


@pytest.mark.parametrize("name", ["config.json", "README.md", "modeling_stica.py"])
def test_symbolic_links_are_refused(name: str, run_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (run_folder / name).unlink(missing_ok=True)
    (run_folder / name).symlink_to(secret)
    with pytest.raises(InputError, match="symbolic link"):
        push.plan_upload(run_folder, ID)


def test_weights_that_are_not_safetensors_are_refused(run_folder: Path) -> None:
    (run_folder / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file"):
        push.plan_upload(run_folder, ID)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "processor_config.json", "modeling_stica.py", "config.json"]
)
def test_an_incomplete_folder_is_refused(name: str, run_folder: Path) -> None:
    (run_folder / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        push.plan_upload(run_folder, ID)


def test_wrong_ids_and_absent_folders_are_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no id of a repository"):
        push.plan_upload(run_folder, "a//b")
    with pytest.raises(DataError, match="no folder"):
        push.plan_upload(tmp_path / "absent", ID)


def test_converted_weights_need_a_licence_and_carry_it(run_folder: Path) -> None:
    write_origin(converted_from(None), run_folder)
    with pytest.raises(ConfigurationError, match="--license"):
        push.plan_upload(run_folder, ID)
    assert b"license: mit" in push.plan_upload(run_folder, ID, license="mit").content("README.md")
    write_origin(converted_from("cc-by-nc-4.0"), run_folder)
    assert b"license: cc-by-nc-4.0" in push.plan_upload(run_folder, ID).content("README.md")
    with pytest.raises(ConfigurationError, match="cannot say"):
        push.plan_upload(run_folder, ID, license="apache-2.0")


def test_a_card_of_ones_own_must_not_contradict_the_origin(run_folder: Path) -> None:
    write_origin(converted_from("cc-by-nc-4.0"), run_folder)
    (run_folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nMine.\n")
    with pytest.raises(ConfigurationError, match="says licence apache"):
        push.plan_upload(run_folder, ID)


def test_a_card_of_ones_own_must_not_claim_unmeasured_figures(run_folder: Path) -> None:
    (run_folder / "README.md").write_text("It reaches 93.1 % on UCF-101.\n")
    with pytest.raises(ConfigurationError, match=r"93\.1"):
        push.plan_upload(run_folder, ID)
    (run_folder / "README.md").write_text("It is fine.\n")
    assert push.plan_upload(run_folder, ID).content("README.md") == b"It is fine.\n"


def test_a_dry_run_lists_every_file_and_sends_nothing(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "push", lambda *args, **options: pytest.fail("sent something"))
    assert cli.main(["push", str(run_folder), ID, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
    assert listed == push.plan_upload(run_folder, ID).files.keys()
    assert "left out: checkpoint-10/, metrics.jsonl, training_args.bin" in shown
    assert "nothing was sent" in shown


def test_a_file_that_arrives_changed_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    class Liar:
        def hf_hub_download(self, repository: str, name: str, **options: object) -> str:
            path = tmp_path / "arrived"
            path.write_bytes(b"something else")
            return str(path)

    with pytest.raises(OutputError, match="differs from what was sent"):
        verify.check_arrived(Liar(), push.plan_upload(run_folder, ID).files, ID, "0" * 40)


PUSH_AND_LOAD = f"""
import contextlib, io
from transformers import AutoModel
from videossl_hf import cli

def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["push", os.environ["FOLDER"], *arguments])
    return [code, out.getvalue(), err.getvalue()]

answer["pushed"] = run("{ID}", "--private", "--revision", "first-try")
commit = answer["pushed"][1].split()[-1]
answer["class"] = type(AutoModel.from_pretrained("{ID}", revision=commit)).__name__
answer["forbidden"] = run("bob/not-mine")
answer["info"] = [cli.main(["info", "{ID}", "--revision", revision]) for revision in (commit, "absent")]
"""


def test_push_publishes_one_verified_commit_that_loads(
    run_folder: Path, hub: LoopbackHub, client: Callable[..., Any]
) -> None:
    answer = client("import os" + PUSH_AND_LOAD, FOLDER=str(run_folder))
    code, out, _ = answer["pushed"]
    assert code == 0
    commit = out.split()[-1]
    repository = hub.repository(ID)
    assert repository.private
    assert repository.branches["first-try"] == commit
    assert repository.files() == [".gitattributes"]
    sent = push.plan_upload(run_folder, ID)
    assert repository.files(commit) == sorted([".gitattributes", *sent.files])
    assert all(repository.read(name, commit) == sent.content(name) for name in sent.files)
    assert answer["class"] == "STiCAModel"
    assert answer["info"] == [0, 1]

    code, _, err = answer["forbidden"]
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_weights_that_an_index_names_elsewhere_are_refused(run_folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "../secret.safetensors"}}
    (run_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"do not lie beside it: \.\./secret\.safetensors"):
        push.plan_upload(run_folder, ID)


def test_pipelines_and_an_endpoint_go_with_a_model(run_folder: Path) -> None:
    upload = push.plan_upload(run_folder, ID)
    settings = json.loads(upload.content("config.json"))
    entry = settings["custom_pipelines"]["video-feature-extraction"]
    assert entry["impl"] == "pipeline_features.VideoFeatureExtractionPipeline"
    assert {"pipeline_features.py", "pipeline_windows.py", "handler.py", "example.mp4"} <= upload.files.keys()
    assert "transformers" in upload.content("requirements.txt").decode()
    assert upload.content("example.mp4")[4:8] == b"ftyp"
    assert "custom_pipelines" not in (run_folder / "config.json").read_text(), "the folder stays as it is"


def test_code_of_another_version_is_not_mixed_with_this_one(run_folder: Path) -> None:
    (run_folder / "errors.py").write_text("# older\n")
    with pytest.raises(ConfigurationError, match="of another version of this package"):
        push.plan_upload(run_folder, ID)


def test_a_handler_of_ones_own_is_kept(run_folder: Path) -> None:
    (run_folder / "handler.py").write_text("# mine\n")
    assert push.plan_upload(run_folder, ID).content("handler.py") == b"# mine\n"


def test_a_model_that_computes_something_else_is_an_error(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    monkeypatch.setattr(verify, "snapshot_download", lambda *args, **options: str(other))
    verify.check_outputs(run_folder, ID, "0" * 40)
    torch.manual_seed(5)
    STiCAForPreTraining(make_config()).save_pretrained(other)
    with pytest.raises(OutputError, match="does not compute what the one in"):
        verify.check_outputs(run_folder, ID, "0" * 40)


PUSH_SPACE = """
import contextlib, io, os
from huggingface_hub import HfApi
from videossl_hf import cli
out = io.StringIO()
with contextlib.redirect_stdout(out):
    dry = cli.main(["push", os.environ["FOLDER"], "alice/shown", "--space", "--dry-run"])
    before = HfApi().repo_exists("alice/shown", repo_type="space")
    code = cli.main(["push", os.environ["FOLDER"], "alice/shown", "--license", "mit", "--space"])
answer = {"codes": [dry, code], "out": out.getvalue(), "before": before}
"""


def test_a_space_is_published_beside_its_model(
    run_folder: Path, hub: LoopbackHub, client: Callable[..., Any]
) -> None:
    answer = client(PUSH_SPACE, FOLDER=str(run_folder))
    assert (answer["codes"], answer["before"]) == ([0, 0], False)
    space = hub.repository("alice/shown", "space")
    dry, real = answer["out"].split("nothing was sent (--dry-run)")
    listed = re.findall(r"^  (\S+)$", dry, re.MULTILINE)
    assert sorted([*listed, ".gitattributes"]) == space.files()
    assert f"the Space alice/shown at revision {space.branches['main']}" in real
    assert b"license: mit" in space.read("README.md")
    assert b'CHECKPOINTS = ["alice/shown"]' in space.read("app.py")
