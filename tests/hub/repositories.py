"""Repositories of the loopback Hub: immutable commits over hashed blobs, kept in memory.

Nothing here knows HTTP. A commit's tree maps paths to blobs; a regular file is named by its git blob sha1,
a large one by the sha256 of its content, and its tree entry then holds the git sha1 of its LFS pointer, as
on the real Hub.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

# What a new repository of the real Hub holds as .gitattributes, cut to the kinds that occur here.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".mp4", ".webm", ".npy", ".npz")
GIT_ATTRIBUTES = "".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES
).encode()
MAX_REGULAR_SIZE = 10 * 1024**2


class HubError(Exception):
    """A refusal, with the status and the X-Error-Code that the real Hub answers."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.commit = commit


def git_sha1(data: bytes) -> str:
    """Name of a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git stores in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """One file of a commit: `oid` is a git sha1; `sha256` is None for a regular file."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    tree: dict[str, Entry]
    parent: str | None
    title: str
    author: str
    date: datetime


@dataclass(eq=False)
class Repository:
    kind: str  # "model", "dataset" or "space"
    id: str
    private: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)  # by etag
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.branches["main"] = self._record(
            {".gitattributes": self._regular(GIT_ATTRIBUTES)}, None, "initial commit"
        )

    def resolve(self, revision: str) -> Commit:
        """Commit of a branch, a tag or a full or abbreviated (7 digits and more) hash."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid in self.commits:
            return self.commits[oid]
        matches = [commit for name, commit in self.commits.items() if len(oid) >= 7 and name.startswith(oid)]
        if len(matches) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return matches[0]

    def entry(self, revision: str, path: str) -> tuple[Commit, Entry]:
        commit = self.resolve(revision)
        if path not in commit.tree:
            raise HubError(404, f"{path} does not exist on {revision!r}", "EntryNotFound", commit.oid)
        return commit, commit.tree[path]

    def read(self, path: str, revision: str = "main") -> bytes:
        """Content of a file, for tests that look behind the HTTP interface."""
        return self.blobs[self.entry(revision, path)[1].etag]

    def files(self, revision: str = "main") -> list[str]:
        return sorted(self.resolve(revision).tree)

    def history(self, revision: str) -> Iterator[Commit]:
        """Commits from the newest back to the first."""
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def last_change(self, revision: str, path: str) -> Commit:
        """Newest commit that wrote `path`."""
        entry = self.resolve(revision).tree.get(path)
        last = self.resolve(revision)
        for commit in self.history(revision):
            if commit.tree.get(path) != entry:
                break
            last = commit
        return last

    def store_large(self, sha256: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != sha256:
            raise HubError(400, f"the uploaded bytes do not hash to {sha256}")
        self.blobs[sha256] = data

    def commit(self, branch: str, operations: Iterable[tuple[str, dict]], author: str) -> Commit:
        """Apply a commit's operations (keys and values of the Hub's NDJSON lines) to the head of a branch."""
        with self.lock:
            if branch not in self.branches:
                raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            head = self.branches[branch]
            tree = dict(self.commits[head].tree)
            title = ""
            for key, value in operations:
                if key == "header":
                    title = value["summary"]
                    if value.get("parentCommit", head) != head:
                        raise HubError(412, "the branch has moved since parentCommit")
                elif key == "file":
                    tree[checked_path(value["path"])] = self._regular(value["content"])
                elif key == "lfsFile":
                    if value["algo"] != "sha256" or value["oid"] not in self.blobs:
                        raise HubError(400, f"large file {value['path']} was not uploaded")
                    size = len(self.blobs[value["oid"]])
                    pointer = git_sha1(lfs_pointer(value["oid"], size))
                    tree[checked_path(value["path"])] = Entry(pointer, size, value["oid"])
                elif key == "deletedFile":
                    if tree.pop(value["path"], None) is None:
                        raise HubError(404, f"cannot delete absent {value['path']}", "EntryNotFound", head)
                elif key == "deletedFolder":
                    prefix = value["path"].rstrip("/") + "/"
                    tree = {path: entry for path, entry in tree.items() if not path.startswith(prefix)}
                else:
                    raise HubError(400, f"unknown commit operation {key!r}")
            self.branches[branch] = self._record(tree, head, title, author)
            return self.commits[self.branches[branch]]

    def _regular(self, data: bytes) -> Entry:
        if len(data) > MAX_REGULAR_SIZE:
            raise HubError(413, "a regular file may hold 10 MB; upload it as a large file")
        oid = git_sha1(data)
        self.blobs[oid] = data
        return Entry(oid, len(data))

    def _record(self, tree: dict[str, Entry], parent: str | None, title: str, author: str = "hub") -> str:
        date = datetime.now(UTC)
        names = {path: entry.oid for path, entry in sorted(tree.items())}
        content = json.dumps([names, parent, title, author, date.isoformat(), len(self.commits)])
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = Commit(oid, tree, parent, title, author, date)
        return oid


def checked_path(path: str) -> str:
    """Refuse what git refuses: absolute paths, empty parts and steps upwards."""
    if any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(400, f"invalid path in commit: {path!r}")
    return path


def upload_mode(path: str, size: int, sample: bytes) -> str:
    """How a file must be uploaded: by its name, its size, or because its first bytes are not text."""
    large = path.endswith(LFS_SUFFIXES) or size > MAX_REGULAR_SIZE or b"\0" in sample
    return "lfs" if large else "regular"
