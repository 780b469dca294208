"""The loopback Hub itself, asked by the unpatched `huggingface_hub` client, by `hf` and by plain HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from repositories import git_sha1
from server import LoopbackHub, parse_target, ranged

UPLOAD = """
from pathlib import Path
from huggingface_hub import HfApi
api = HfApi()
folder = Path("folder"); (folder / "data").mkdir(parents=True)
(folder / "a.txt").write_text("first")
(folder / "data" / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
answer["user"] = api.whoami()["name"]
answer["url"] = api.create_repo("alice/one", exist_ok=True)
api.create_repo("alice/one", exist_ok=True)
answer["first"] = api.upload_folder(repo_id="alice/one", folder_path=folder).oid
(folder / "a.txt").write_text("second")
answer["second"] = api.upload_folder(repo_id="alice/one", folder_path=folder).oid
answer["again"] = api.upload_folder(repo_id="alice/one", folder_path=folder).oid
"""


@pytest.fixture(scope="module")
def uploaded(client) -> dict:
    return client(UPLOAD)


def fetch(
    url: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict, bytes]:
    request = urllib.request.Request(url, method=method, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_upload_makes_immutable_commits_and_equal_content_makes_none(
    hub: LoopbackHub, uploaded: dict
) -> None:
    repository = hub.repository("alice/one")
    assert uploaded["user"] == "alice"
    assert uploaded["first"] != uploaded["second"] == uploaded["again"]
    assert repository.read("a.txt", uploaded["first"]) == b"first"
    assert repository.read("a.txt") == b"second"
    assert repository.files() == [".gitattributes", "a.txt", "data/weights.safetensors"]


def test_large_files_are_stored_once_under_their_sha256(hub: LoopbackHub, uploaded: dict) -> None:
    content = bytes(range(256)) * 100
    _, entry = hub.repository("alice/one").entry("main", "data/weights.safetensors")
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert hub.repository("alice/one").blobs[entry.sha256] == content
    links = [path.split("/")[2] for method, path, _ in hub.requests if method == "PUT"]
    assert [hub.signatures[link][1] for link in links].count(entry.sha256) == 1


def test_client_reads_what_was_uploaded(uploaded: dict, client, hub: LoopbackHub) -> None:
    answer = client(
        f"""
        from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
        from huggingface_hub import errors
        from pathlib import Path
        api, first = HfApi(), {uploaded["first"]!r}
        info = api.model_info("alice/one")
        answer["sha"], answer["siblings"] = info.sha, [s.rfilename for s in info.siblings]
        tree = list(api.list_repo_tree("alice/one", recursive=True, expand=True))
        answer["tree"] = [[type(row).__name__, row.path] for row in tree]
        answer["titles"] = [row.last_commit.title for row in tree if hasattr(row, "size")]
        answer["top"] = [row.path for row in api.list_repo_tree("alice/one")]
        answer["paths"] = [row.path for row in api.get_paths_info("alice/one", ["a.txt", "data", "absent"])]
        answer["exists"] = [api.file_exists("alice/one", "a.txt"), api.file_exists("alice/one", "b.txt")]
        pinned = hf_hub_download("alice/one", "a.txt", revision=first)
        answer["pinned"] = [Path(pinned).read_text(), Path(pinned).parent.name == first]
        folder = Path(snapshot_download("alice/one"))
        files = [file for file in folder.rglob("*") if file.is_file()]
        answer["snapshot"] = {{str(file.relative_to(folder)): file.stat().st_size for file in files}}
        with HfFileSystem().open("alice/one/data/weights.safetensors", block_size=64) as file:
            file.seek(300)
            answer["slice"] = list(file.read(3))
        api.create_branch("alice/one", branch="try")
        api.create_tag("alice/one", tag="v1", revision=first)
        refs = api.list_repo_refs("alice/one")
        answer["refs"] = [b.name for b in refs.branches] + [t.name for t in refs.tags]
        api.upload_file(path_or_fileobj=b"x", path_in_repo="b.txt", repo_id="alice/one", revision="try")
        answer["branch"] = [api.file_exists("alice/one", "b.txt", revision=r) for r in ("main", "try", "v1")]
        api.delete_file("b.txt", "alice/one", revision="try")
        answer["commits"] = [c.title for c in api.list_repo_commits("alice/one", revision="try")]
        def refused(call):
            try: call()
            except Exception as error: return type(error).__name__
        answer["errors"] = [
            refused(lambda: api.model_info("alice/absent")),
            refused(lambda: hf_hub_download("alice/one", "absent.txt")),
            refused(lambda: hf_hub_download("alice/one", "a.txt", revision="absent")),
            refused(lambda: hf_hub_download("bert", "a.txt")),
            refused(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id="bob/one")),
            refused(lambda: api.create_repo("bob/one")),
        ]
        """
    )
    files = [".gitattributes", "a.txt", "data/weights.safetensors"]
    assert answer["sha"] == uploaded["second"]
    assert answer["siblings"] == files
    assert sorted(answer["tree"]) == [["RepoFile", path] for path in files] + [["RepoFolder", "data"]]
    assert "initial commit" in answer["titles"]
    assert sorted(answer["top"]) == [".gitattributes", "a.txt", "data"]
    assert sorted(answer["paths"]) == ["a.txt", "data"]
    assert answer["exists"] == [True, False]
    assert answer["pinned"] == ["first", True]
    repository = hub.repository("alice/one")
    assert answer["snapshot"] == {path: len(repository.read(path)) for path in files}
    assert answer["slice"] == [44, 45, 46]
    assert answer["refs"] == ["main", "try", "v1"]
    assert answer["branch"] == [False, True, False]
    assert len(answer["commits"]) == 5
    assert answer["errors"] == [
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
        "HfHubHTTPError",
    ]


def test_private_repository_is_hidden_from_others_and_writes_need_a_token(hub: LoopbackHub, client) -> None:
    script = """
    from huggingface_hub import HfApi
    def refused(call):
        try: call()
        except Exception as error: return type(error).__name__
    api = HfApi()
    answer["read"] = refused(lambda: api.model_info("alice/secret"))
    file = {"path_or_fileobj": b"x", "path_in_repo": "a"}
    answer["write"] = refused(lambda: api.upload_file(repo_id="alice/open", **file))
    answer["create"] = refused(lambda: api.create_repo("alice/new"))
    """
    client(
        "from huggingface_hub import HfApi\n"
        "HfApi().create_repo('alice/secret', private=True)\n"
        "HfApi().create_repo('alice/open')\n"
    )
    refusals = {"read": "RepositoryNotFoundError", "write": "HfHubHTTPError", "create": "HfHubHTTPError"}
    assert client(script, token=None) == refusals
    assert client(script, token="hf_bob")["read"] == "RepositoryNotFoundError"
    assert "a" not in hub.repository("alice/open").files()
    assert ("model", "alice/new") not in hub.repositories


def test_hf_command_uploads_and_downloads(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("hello")
    environment = os.environ | hub.environment(tmp_path / "home")
    hf = Path(sys.executable).with_name("hf")
    for command in (
        ["upload", "alice/cli", "card.md"],
        ["download", "alice/cli", "card.md", "--local-dir", "down"],
    ):
        subprocess.run(
            [hf, *command], env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=60
        )
    assert (tmp_path / "down" / "card.md").read_text() == "hello"
    assert hub.repository("alice/cli").read("card.md") == b"hello"


def test_listing_in_pages_gives_every_entry_once(tmp_path: Path) -> None:
    with LoopbackHub(page_size=2) as hub:
        headers = {"Authorization": "Bearer hf_alice"}
        fetch(f"{hub.url}/api/repos/create", method="POST", body=b'{"name": "pages"}', **headers)
        operations = [("header", {"summary": "many"})]
        operations += [("file", {"path": f"d/{n}", "content": b"x"}) for n in range(4)]
        hub.repository("alice/pages").commit("main", operations, "alice")
        url, seen = f"{hub.url}/api/models/alice/pages/tree/main?recursive=true", []
        while url:
            _, reply_headers, body = fetch(url)
            seen += [row["path"] for row in json.loads(body)]
            url = reply_headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert sorted(seen) == [".gitattributes", "d", "d/0", "d/1", "d/2", "d/3"]


@pytest.mark.parametrize(
    ("span", "status", "expected"),
    [
        (None, 200, b"abcdef"),
        ("bytes=1-2", 206, b"bc"),
        ("bytes=4-", 206, b"ef"),
        ("bytes=-2", 206, b"ef"),
        ("bytes=2-99", 206, b"cdef"),
        ("bytes=6-8", 416, b""),
    ],
)
def test_ranges(span: str | None, status: int, expected: bytes) -> None:
    response = ranged(b"abcdef", span, {})
    assert (response.status, response.body) == (status, expected)


def test_lying_or_unsafe_uploads_are_refused(hub: LoopbackHub) -> None:
    headers = {"Authorization": "Bearer hf_alice"}
    fetch(f"{hub.url}/api/repos/create", method="POST", body=b'{"name": "liar"}', **headers)
    batch = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}], "hash_algo": "sha256"}
    batch_url = f"{hub.url}/alice/liar.git/info/lfs/objects/batch"
    _, _, reply = fetch(batch_url, method="POST", body=json.dumps(batch).encode(), **headers)
    link = json.loads(reply)["objects"][0]["actions"]["upload"]["href"]
    assert fetch(link, method="PUT", body=b"not zeros")[0] == 400
    assert fetch(f"{hub.url}/upload/forged", method="PUT", body=b"x")[0] == 403

    def commit(*lines: dict) -> int:
        body = "\n".join(json.dumps(line) for line in ({"key": "header", "value": {"summary": "s"}}, *lines))
        return fetch(
            f"{hub.url}/api/models/alice/liar/commit/main", method="POST", body=body.encode(), **headers
        )[0]

    absent = {"path": "w.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}
    assert commit({"key": "lfsFile", "value": absent}) == 400
    assert commit({"key": "file", "value": {"path": "../up", "content": "", "encoding": "base64"}}) == 400
    assert commit({"key": "deletedFile", "value": {"path": "absent"}}) == 404
    assert commit({"key": "header", "value": {"summary": "late", "parentCommit": "0" * 40}}) == 412
    assert hub.repository("alice/liar").files() == [".gitattributes"]


def test_wrong_token_and_unknown_route_are_loud() -> None:
    with LoopbackHub() as hub:
        assert fetch(f"{hub.url}/api/whoami-v2", Authorization="Bearer hf_wrong")[0] == 401
        status, _, body = fetch(f"{hub.url}/api/models/alice/one/xet-write-token/main")
        assert status == 404
        assert "no route" in json.loads(body)["error"]
        assert hub.unknown_requests == ["GET /api/models/alice/one/xet-write-token/main"]


def test_git_names_and_paths_follow_the_hub() -> None:
    assert git_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert parse_target(["bert", "resolve", "main", "a"], {"resolve"}) == (
        "model",
        "bert",
        "resolve",
        ["main", "a"],
    )
    assert parse_target(["datasets", "a", "b"], set()) == ("dataset", "a/b", "", [])
