"""The repositories of the loopback Hub: immutable commits with parents, branches, tags, and who may read and write."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

CARD = "README.md"
_LFS_BYTES = 10_000_000
_ATTRIBUTES = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n"
    for ending in ("arrow", "bin", "gz", "npy", "npz", "parquet", "pt", "pth", "safetensors", "zip", "zst")
).encode()
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """What the Hub answers instead of serving a request."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


@dataclass(frozen=True)
class File:
    """One version of a file.

    Attributes:
        path: Where its content lies on this machine.
        size: In bytes.
        sha256: Digest of the content.
        oid: Git's digest of the content, or of the pointer where the content is in LFS.
        lfs: Whether it is.
    """

    path: Path
    size: int
    sha256: str
    oid: str
    lfs: bool

    @property
    def etag(self) -> str:
        """What a client knows the content by."""
        return self.sha256 if self.lfs else self.oid

    def pointer(self) -> dict[str, Any]:
        """Return what the Hub tells of an LFS file."""
        return {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": len(_pointer(self.sha256, self.size))}}


@dataclass(frozen=True)
class Commit:
    """A state of a repository that never changes."""

    oid: str
    parent: str | None
    title: str
    message: str
    date: str
    files: Mapping[str, File]


class Objects:
    """The contents of all files of all repositories, in a folder by their digests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where a content lies, or would."""
        return self._folder / sha256

    def add(self, content: bytes) -> str:
        """Keep a content; return its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.path(sha256).write_bytes(content)
        return sha256

    def file(self, content: bytes) -> File:
        """Return a file that git keeps itself."""
        sha256 = self.add(content)
        return File(self.path(sha256), len(content), sha256, _git_oid(content), lfs=False)

    def lfs_file(self, sha256: str) -> File:
        """Return a file of which git keeps a pointer.

        Raises:
            Refused: Its content was never uploaded.
        """
        path = self.path(sha256)
        if not path.exists():
            raise Refused(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = path.stat().st_size
        return File(path, size, sha256, _git_oid(_pointer(sha256, size)), lfs=True)


@dataclass
class Repository:
    """A dataset or a model on the loopback Hub.

    Attributes:
        kind: `dataset` or `model`.
        repo_id: `owner/name`.
        private: Only its owner's people see it.
        gated: Everybody sees it; files go only to the owner's people.
        branches: Commit by the name of the branch.
        tags: Commit by the name of the tag.
    """

    kind: str
    repo_id: str
    private: bool
    objects: Objects
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    _commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": self.objects.file(_ATTRIBUTES)}, "initial commit")

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, a tag, a full ref name or a commit's hash, abbreviated or not.

        Raises:
            Refused: There is none.
        """
        name = re.sub(r"refs/(heads|tags)/", "", revision)
        oid = self.branches.get(name) or self.tags.get(name)
        if oid is None and re.fullmatch("[0-9a-f]{7,40}", revision):
            oid = next((known for known in self._commits if known.startswith(revision)), None)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self._commits[oid]

    def commit(
        self, branch: str, changes: Mapping[str, File | None], title: str, message: str = "", parent: str | None = None
    ) -> Commit:
        """Add a commit to a branch: all of its changes, or none.

        Args:
            branch: Its name; `main` may be new.
            changes: The new file by its path; None where it goes.
            title: First line of the message.
            message: The rest.
            parent: The commit that the branch must be at, if any.

        Raises:
            Refused: The branch is elsewhere (412), or there is none (404).
        """
        before = self.at(self.branches[branch]) if self._commits and branch in self.branches else None
        if before is None and self._commits:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if parent is not None and before is not None and not before.oid.startswith(parent):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = {**(before.files if before else {}), **changes}
        kept = {path: file for path, file in sorted(files.items()) if file is not None}
        date = (_EPOCH + timedelta(seconds=len(self._commits))).isoformat().replace("+00:00", ".000Z")
        told = [before and before.oid, title, message, date, [(path, file.oid) for path, file in kept.items()]]
        oid = hashlib.sha1(json.dumps([self.kind, self.repo_id, *told]).encode()).hexdigest()
        self._commits[oid] = Commit(oid, before.oid if before else None, title, message, date, kept)
        self.branches[branch] = oid
        return self._commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """Return a revision and all that came before it, the newest first."""
        commits = [self.at(revision)]
        while commits[-1].parent:
            commits.append(self._commits[commits[-1].parent])
        return commits

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the commit that wrote a path as it is."""
        state = _below(commit, path)
        last = commit
        for before in self.history(commit.oid)[1:]:
            if _below(before, path) != state:
                break
            last = before
        return last

    def upload_mode(self, path: str, size: int, sample: bytes) -> str:
        """Return `lfs` or `regular` for a file to come."""
        head = self.at("main").files.get(".gitattributes")
        patterns = (
            [line.split()[0] for line in head.path.read_text().splitlines() if "filter=lfs" in line] if head else []
        )
        is_lfs = size > _LFS_BYTES or b"\0" in sample or any(fnmatch(Path(path).name, pattern) for pattern in patterns)
        return "lfs" if is_lfs else "regular"

    def entries(self, commit: Commit, under: str, recursive: bool) -> Iterator[dict[str, Any]]:
        """Yield what the tree endpoint lists of a folder, or of one file.

        Raises:
            Refused: There is nothing by that name.
        """
        prefix = f"{under}/" if under else ""
        if under in commit.files:
            yield self.entry(commit, under)
            return
        inside = [path for path in commit.files if path.startswith(prefix)]
        if not inside:
            raise Refused(404, f"{under} does not exist on {commit.oid}", "EntryNotFound")
        told: set[str] = set()
        for path in inside:
            parts = path.removeprefix(prefix).split("/")
            names = [prefix + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
            for name in names if recursive else names[:1]:
                if name not in told:
                    told.add(name)
                    yield self.entry(commit, name)

    def entry(self, commit: Commit, path: str) -> dict[str, Any]:
        """Return what the Hub tells of a file or folder that is there."""
        file = commit.files.get(path)
        if file is None:
            tree = json.dumps([(name, below.oid) for name, below in _below(commit, path).items()])
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(tree.encode()).hexdigest()}
        told = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
        return {**told, **file.pointer()} if file.lfs else told


@dataclass
class Collection:
    """A list of repositories."""

    slug: str
    title: str
    owner: str
    description: str | None
    private: bool
    items: list[dict[str, Any]] = field(default_factory=list)


def _below(commit: Commit, path: str) -> dict[str, File]:
    return {name: file for name, file in commit.files.items() if name == path or name.startswith(f"{path}/")}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
