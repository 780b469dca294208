"""A small, honest Hub on the loopback interface, for tests with the unpatched Hugging Face clients.

It speaks the part of the Hub's HTTP interface that `huggingface_hub`, `transformers`, `datasets` and the
`hf` command use with Xet disabled. Commits are immutable, blobs are verified against their hashes, writes
need a token and the right namespace, and large files are answered by a signed redirect, as on the real Hub.
A route that it does not know is a 404 that is also recorded in `LoopbackHub.unknown_requests`, which the
fixture checks at the end.

    with LoopbackHub() as hub:
        subprocess.run([...], env=os.environ | hub.environment(home))
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from repositories import Commit, Entry, HubError, Repository, git_sha1, lfs_pointer, upload_mode

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
# First segment after the id of a repository, in API and in web paths.
API_ACTIONS = {
    "revision",
    "preupload",
    "commit",
    "tree",
    "paths-info",
    "refs",
    "commits",
    "branch",
    "tag",
    "settings",
}
WEB_ACTIONS = {"resolve", "raw", "blob"}


class Response(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content_type = {"Content-Type": "application/json; charset=utf-8"}
    return Response(status, json.dumps(value).encode(), content_type | (headers or {}))


class Target(NamedTuple):
    """What a path names: a repository and what is asked of it."""

    kind: str
    id: str
    action: str  # "" for the repository itself
    rest: list[str]


def parse_target(segments: list[str], actions: set[str]) -> Target:
    """Split `[kind/]owner/name[/action/rest]`; ids without an owner are understood (and never exist here)."""
    kind = "model"
    if segments and segments[0] in KINDS:
        kind, segments = KINDS[segments[0]], segments[1:]
    length = 1 if len(segments) == 1 or segments[1] in actions else 2
    action, rest = (segments[length], segments[length + 1 :]) if len(segments) > length else ("", [])
    return Target(kind, "/".join(segments[:length]), action, rest)


class LoopbackHub:
    """The server, its repositories and its users.

    Args:
        users: token -> user, who may write in the namespace of that name and in those of `orgs`.
        page_size: entries in one page of a listing.
    """

    def __init__(
        self, users: dict[str, str] | None = None, orgs: tuple[str, ...] = ("videossl",), page_size=1000
    ):
        self.users = users or {"hf_alice": "alice", "hf_bob": "bob"}
        self.orgs = orgs
        self.page_size = page_size
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.signatures: dict[
            str, tuple[Repository, str]
        ] = {}  # signed links to large files: repository, sha256
        self.requests: list[tuple[str, str, int]] = []
        self.unknown_requests: list[str] = []
        hub = self

        class Handler(RequestHandler):
            def respond(self, method: str, body: bytes) -> Response:
                return hub.respond(method, self.path, self.headers, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None = "hf_alice") -> dict[str, str]:
        """Variables that make a client process talk to this Hub and to nothing else."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def repository(self, id: str, kind: str = "model") -> Repository:
        """A repository by id, for tests that look behind the interface."""
        return self.repositories[kind, id]

    # Requests

    def respond(self, method: str, path: str, headers: Any, body: bytes) -> Response:
        """Answer one request and keep a record of it."""
        try:
            response = self.route(method, path, headers, body)
        except HubError as error:
            extra = {"X-Error-Message": str(error)}
            extra |= {"X-Error-Code": error.code} if error.code else {}
            extra |= {"X-Repo-Commit": error.commit} if error.commit else {}
            response = json_response({"error": str(error)}, error.status, extra)
        self.requests.append((method, path, response.status))
        return response

    def route(self, method: str, path: str, headers: Any, body: bytes) -> Response:
        url = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        segments = [unquote(segment) for segment in url.path.strip("/").split("/")]
        user = self.authenticate(headers.get("Authorization"))
        match (method, *segments):
            case ("GET", "api", "whoami-v2"):
                return json_response(self.whoami(user))
            case ("POST", "api", "repos", "create"):
                return self.create(json.loads(body), user)
            case ("DELETE", "api", "repos", "delete"):
                return self.delete(json.loads(body), user)
            case (
                "GET",
                "api",
                "agent-harnesses",
            ):  # the client looks here for a name to put in its user agent
                return json_response({"standardEnvVars": [], "harnesses": {}})
            case ("POST", "api", "validate-yaml"):
                return json_response({"errors": [], "warnings": []})
            case ("GET" | "HEAD", "cdn", signature):
                repository, sha256 = self.signed(signature)
                return ranged(repository.blobs[sha256], headers.get("Range"), {"ETag": f'"{sha256}"'})
            case ("PUT", "upload", signature):
                repository, sha256 = self.signed(signature)
                repository.store_large(sha256, body)
                return Response(200)
            case ("POST", *repository_path, "info", "lfs", "objects", "batch"):
                target = parse_target([segment.removesuffix(".git") for segment in repository_path], set())
                return self.large_file_batch(self.writable(target, user), json.loads(body))
            case (_, "api", "models" | "datasets" | "spaces", _, *_):
                target = parse_target(segments[1:], API_ACTIONS)
                return self.api(method, target, query, headers, body, user) or self.unknown(method, path)
        target = parse_target(segments, WEB_ACTIONS)
        if method in ("GET", "HEAD") and target.action == "resolve" and len(target.rest) > 1:
            repository = self.readable(target, user)
            return self.resolve(repository, target.rest[0], "/".join(target.rest[1:]), headers.get("Range"))
        return self.unknown(method, path)

    def api(
        self, method: str, target: Target, query: dict, headers: Any, body: bytes, user: str | None
    ) -> Response | None:
        """Answer a call of /api/{kind}s/ID; None if there is no such call."""
        match (method, target.action, *target.rest):
            case ("GET", ""):
                return json_response(self.info(self.readable(target, user), "main", query))
            case ("GET", "revision", revision):
                return json_response(self.info(self.readable(target, user), revision, query))
            case ("GET", "tree", revision, *directory):
                return self.tree(self.readable(target, user), revision, "/".join(directory), query)
            case ("POST", "paths-info", revision):
                return self.paths_info(self.readable(target, user), revision, parse_form(body, headers))
            case ("GET", "refs"):
                return json_response(self.refs(self.readable(target, user)))
            case ("GET", "commits", revision):
                history = self.readable(target, user).history(revision)
                return json_response([describe_commit(commit) for commit in history])
            case ("POST", "preupload", revision):
                return self.preupload(self.writable(target, user), revision, json.loads(body))
            case ("POST", "commit", branch):
                repository = self.writable(target, user)
                commit = repository.commit(branch, parse_operations(body), user or "")
                url = f"{self.web_url(repository)}/commit/{commit.oid}"
                reply = {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""}
                return json_response(reply)
            case ("POST", "branch", branch):
                repository = self.writable(target, user)
                if branch in repository.branches:
                    raise HubError(409, f"branch {branch} exists")
                start = repository.resolve(json.loads(body or b"{}").get("startingPoint", "main"))
                repository.branches[branch] = start.oid
                return json_response({})
            case ("POST", "tag", revision):
                repository = self.writable(target, user)
                tag = json.loads(body)["tag"]
                if tag in repository.tags:
                    raise HubError(409, f"tag {tag} exists")
                repository.tags[tag] = repository.resolve(revision).oid
                return json_response({})
            case ("PUT", "settings"):
                repository = self.writable(target, user)
                settings = json.loads(body)
                repository.private = settings.get("private", settings.get("visibility") == "private")
                return json_response({"private": repository.private})
        return None

    def unknown(self, method: str, path: str) -> Response:
        self.unknown_requests.append(f"{method} {path}")
        raise HubError(404, f"the loopback Hub has no route for {method} {path}")

    # Who may do what

    def authenticate(self, authorization: str | None) -> str | None:
        if authorization is None:
            return None
        user = self.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def may_write(self, id: str, user: str | None) -> bool:
        return user is not None and id.split("/")[0] in (user, *self.orgs)

    def readable(self, target: Target, user: str | None) -> Repository:
        """A repository that the user may read; absent and forbidden ones look alike."""
        repository = self.repositories.get((target.kind, target.id))
        if repository is None or (repository.private and not self.may_write(target.id, user)):
            if user is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, target: Target, user: str | None) -> Repository:
        repository = self.readable(target, user)
        if not self.may_write(target.id, user):
            raise HubError(403 if user else 401, "You don't have the rights to write to this repository")
        return repository

    def signed(self, signature: str) -> tuple[Repository, str]:
        if signature not in self.signatures:
            raise HubError(403, "invalid signature")
        return self.signatures[signature]

    def sign(self, repository: Repository, sha256: str) -> str:
        signature = secrets.token_hex(16)
        self.signatures[signature] = (repository, sha256)
        return signature

    # Answers

    def whoami(self, user: str | None) -> dict:
        if user is None:
            raise HubError(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name, "fullname": name} for name in self.orgs]
        access = {"displayName": "test", "role": "write", "createdAt": "2025-01-01T00:00:00.000Z"}
        auth = {"type": "access_token", "accessToken": access}
        return {"type": "user", "id": user, "name": user, "fullname": user, "orgs": orgs, "auth": auth}

    def create(self, request: dict, user: str | None) -> Response:
        if user is None:
            raise HubError(401, "Invalid username or password.")
        kind, id = request.get("type") or "model", f"{request.get('organization') or user}/{request['name']}"
        if not self.may_write(id, user):
            raise HubError(403, f"You don't have the rights to create a {kind} under this namespace")
        if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", id):
            raise HubError(400, f"invalid repository name {id!r}")
        existing = self.repositories.get((kind, id))
        private = bool(request.get("private")) or request.get("visibility") == "private"
        repository = existing or Repository(kind, id, private)
        self.repositories[kind, id] = repository
        url = self.web_url(repository)
        if existing:
            return json_response({"error": "You already created this repository", "url": url}, 409)
        return json_response({"url": url, "name": id, "id": id})

    def delete(self, request: dict, user: str | None) -> Response:
        name = f"{request.get('organization') or user}/{request['name']}"
        target = Target(request.get("type") or "model", name, "", [])
        self.writable(target, user)
        del self.repositories[target.kind, target.id]
        return Response(200)

    def web_url(self, repository: Repository) -> str:
        return f"{self.url}/{'' if repository.kind == 'model' else repository.kind + 's/'}{repository.id}"

    def info(self, repository: Repository, revision: str, query: dict) -> dict:
        commit = repository.resolve(revision)
        siblings: list[dict] = [{"rfilename": path} for path in sorted(commit.tree)]
        if query.get("blobs", "false").lower() == "true":
            for row in siblings:
                description = describe_file(row["rfilename"], commit.tree[row["rfilename"]])
                row |= {"size": description["size"], "blobId": description["oid"]}
                if "lfs" in description:
                    row["lfs"] = {"sha256": description["lfs"]["oid"]} | description["lfs"]
        created = [*repository.history("main")][-1].date
        return {
            "_id": git_sha1(repository.id.encode())[:24],
            "id": repository.id,
            "modelId": repository.id,
            "author": repository.id.split("/")[0],
            "sha": commit.oid,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
            "createdAt": timestamp(created),
            "lastModified": timestamp(commit.date),
        }

    def tree(self, repository: Repository, revision: str, directory: str, query: dict) -> Response:
        commit = repository.resolve(revision)
        prefix = f"{directory}/" if directory else ""
        inside = {path: entry for path, entry in sorted(commit.tree.items()) if path.startswith(prefix)}
        if not inside and directory:
            raise HubError(404, f"{directory} does not exist on {revision!r}", "EntryNotFound", commit.oid)
        rows = list_directories(inside, prefix) + [
            describe_file(path, entry) for path, entry in inside.items()
        ]
        if query.get("recursive", "false").lower() != "true":
            rows = [row for row in rows if "/" not in row["path"][len(prefix) :]]
        if query.get("expand", "false").lower() == "true":
            for row in rows:
                if row["type"] == "file":
                    row["lastCommit"] = describe_commit(repository.last_change(revision, row["path"]))
        start = int(query.get("cursor", 0))
        page, end = rows[start : start + self.page_size], start + self.page_size
        url = f"{self.url}/api/{repository.kind}s/{repository.id}/tree/{commit.oid}/{directory}".rstrip("/")
        more = "&".join(f"{name}={value}" for name, value in (query | {"cursor": str(end)}).items())
        return json_response(
            page, headers={"Link": f'<{url}?{more}>; rel="next"'} if end < len(rows) else None
        )

    def paths_info(self, repository: Repository, revision: str, paths: list[str]) -> Response:
        tree = repository.resolve(revision).tree
        rows = [row for row in list_directories(tree, "") if row["path"] in paths]
        return json_response(rows + [describe_file(path, tree[path]) for path in paths if path in tree])

    def refs(self, repository: Repository) -> dict:
        def rows(kind: str, references: dict[str, str]) -> list[dict]:
            return [
                {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in references.items()
            ]

        return {
            "branches": rows("heads", repository.branches),
            "converts": [],
            "tags": rows("tags", repository.tags),
        }

    def preupload(self, repository: Repository, revision: str, request: dict) -> Response:
        tree = repository.resolve(revision).tree
        rows = []
        for file in request["files"]:
            mode = upload_mode(file["path"], file["size"], base64.b64decode(file["sample"]))
            row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            rows.append(row | ({"oid": tree[file["path"]].etag} if file["path"] in tree else {}))
        return json_response({"files": rows})

    def large_file_batch(self, repository: Repository, request: dict) -> Response:
        if request["operation"] != "upload" or request.get("hash_algo", "sha256") != "sha256":
            raise HubError(422, "only uploads named by sha256 are served")
        objects = []
        for item in request["objects"]:
            row = {"oid": item["oid"], "size": item["size"], "authenticated": True}
            if item["oid"] not in repository.blobs:
                url = f"{self.url}/upload/{self.sign(repository, item['oid'])}"
                row["actions"] = {"upload": {"href": url, "header": {}}}
            objects.append(row)
        reply = {"transfer": "basic", "objects": objects}
        return json_response(reply, headers={"Content-Type": "application/vnd.git-lfs+json"})

    def resolve(self, repository: Repository, revision: str, path: str, span: str | None) -> Response:
        commit, entry = repository.entry(revision, path)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes"}
        if entry.sha256 is None:
            return ranged(repository.blobs[entry.oid], span, headers)
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        # Another origin in the client's eyes, to which it sends no token, like the real storage host.
        storage = f"http://localhost:{self.server.server_port}/cdn/{self.sign(repository, entry.sha256)}"
        return Response(302, headers=headers | {"Location": storage})


class RequestHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive; `respond` is given by the hub."""

    protocol_version = "HTTP/1.1"

    def respond(self, method: str, body: bytes) -> Response:
        raise NotImplementedError

    def handle_request(self) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(iter(self.read_chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        response = self.respond(self.command, body)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal quiet: the hub records its requests."""


def ranged(data: bytes, span: str | None, headers: dict[str, str]) -> Response:
    """All of `data`, or the part that a Range header asks for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", span or "")
    if match is None or match[0] == "bytes=-":
        return Response(200, data, headers)
    if match[1]:
        start, stop = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    else:
        start, stop = max(len(data) - int(match[2]), 0), len(data) - 1
    if start > stop:
        return Response(416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
    return Response(
        206, data[start : stop + 1], headers | {"Content-Range": f"bytes {start}-{stop}/{len(data)}"}
    )


def parse_operations(body: bytes) -> list[tuple[str, dict]]:
    """Lines of a commit request, with file contents decoded."""
    operations = []
    for line in body.splitlines():
        if line.strip():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                encoded = value.get("encoding") == "base64"
                content = base64.b64decode(value["content"]) if encoded else value["content"].encode()
                value = value | {"content": content}
            operations.append((operation["key"], value))
    return operations


def parse_form(body: bytes, headers: Any) -> list[str]:
    """The `paths` of a paths-info request, which clients send as a form or as JSON."""
    if "json" in headers.get("Content-Type", ""):
        return json.loads(body)["paths"]
    return parse_qs(body.decode()).get("paths", [])


def list_directories(tree: dict[str, Entry], prefix: str) -> list[dict]:
    """Entries for the directories below `prefix` (empty, or a directory with its slash)."""
    parents = {path[: position.start()] for path in tree for position in re.finditer("/", path)}
    below = sorted(parent for parent in parents if parent.startswith(prefix))
    return [{"type": "directory", "path": path, "oid": git_sha1(path.encode()), "size": 0} for path in below]


def describe_file(path: str, entry: Entry) -> dict:
    row: dict[str, Any] = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
    if entry.sha256:
        pointer_size = len(lfs_pointer(entry.sha256, entry.size))
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    return row


def describe_commit(commit: Commit) -> dict:
    authors = [{"user": commit.author}]
    return {
        "id": commit.oid,
        "title": commit.title,
        "message": "",
        "date": timestamp(commit.date),
        "authors": authors,
    }


def timestamp(date: Any) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
