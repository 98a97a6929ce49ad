"""Who sends a request to the loopback Hub, and which repository it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from tests.loopback_repositories import Refused, Repository

if TYPE_CHECKING:
    from tests.loopback_hub import LoopbackHub


@dataclass(frozen=True)
class User:
    """Whom a token stands for."""

    name: str
    orgs: tuple[str, ...]
    role: str

    def owns(self, namespace: str) -> bool:
        """Whether a namespace's repositories are theirs."""
        return namespace in (self.name, *self.orgs)


HUB: web.AppKey[LoopbackHub] = web.AppKey("hub")


def hub_of(request: web.Request) -> LoopbackHub:
    """Return the Hub that a request came to."""
    return request.app[HUB]


def user_of(request: web.Request) -> User | None:
    """Return whose token came, or None where there is none.

    Raises:
        Refused: It is nobody's.
    """
    header = request.headers.get("Authorization")
    if header is None:
        return None
    user = hub_of(request).users.get(header.removeprefix("Bearer "))
    if user is None:
        raise Refused(401, "Invalid credentials in Authorization header")
    return user


def writer_of(request: web.Request, namespace: str) -> User:
    """Return whose token came, who may write in a namespace.

    Raises:
        Refused: They may not, or nobody said who they are.
    """
    user = user_of(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    if not user.owns(namespace) or user.role != "write":
        raise Refused(403, f"you must use a write token to upload to a repository of {namespace}")
    return user


def repository_of(request: web.Request, *, write: bool = False, content: bool = False) -> Repository:
    """Return the repository that a path names.

    Args:
        request: What came.
        write: Its sender must have the right to write.
        content: Its sender must have the right to read files.

    Raises:
        Refused: There is none that the sender may see, or may use so.
    """
    told = request.match_info
    is_dataset = told.get("kind") in ("datasets", None) and (told.get("kind") or request.path.startswith("/datasets/"))
    user = user_of(request)
    repository = hub_of(request).repositories.get(f"{'datasets/' if is_dataset else ''}{told['owner']}/{told['name']}")
    is_owner = user is not None and user.owns(told["owner"])
    if repository is None or (repository.private and not is_owner):
        # Whoever has no token is told 401 of what is not there as well, so that names of private ones stay secret.
        raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
    if write:
        writer_of(request, told["owner"])
    if content and repository.gated and not is_owner:
        what = f"Access to {repository.kind} {repository.repo_id} is restricted and you are not in the authorized list."
        raise Refused(403 if user else 401, what, "GatedRepo")
    return repository


def name_of(repository: Repository) -> str:
    """Return `org/name`, or `datasets/org/name`."""
    return f"{'datasets/' if repository.kind == 'dataset' else ''}{repository.repo_id}"
