"""A server on the loopback interface that speaks the Hub's HTTP API to the real clients, through `HF_ENDPOINT`.

    with LoopbackHub(tmp_path) as hub:
        api = HfApi(hub.url, token=hub.token)

It keeps repositories with immutable commits, branches and tags, private and gated ones; takes uploads by preupload, LFS
batch (basic transfer, to another host name, as the Hub's storage is one) and NDJSON commits, all or nothing; serves
trees, files with ranges and ETags behind the Hub's redirects, collections and the check of a card's metadata. Where a
client sends what the Hub would refuse, it is refused with the Hub's status and `X-Error-Code`.

What it does not do: Xet (clients need `HF_HUB_DISABLE_XET=1`, which `environment()` sets), multipart LFS transfer, pull
requests and discussions, squashing, moving, likes, Spaces, search, the dataset viewer. A request it does not know, and
a mistake of its own, fail the test by name when the `with` block ends.

`hub.fail` makes requests go wrong, `hub.before` runs something between two of them; both name requests as
`tests/loopback_routes.py` does: `create_repo`, `preupload`, `lfs_batch`, `lfs_upload`, `commit`, `tag`, `resolve`, ...
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web

from tests.loopback_access import HUB, User
from tests.loopback_repositories import Collection, Commit, Objects, Refused, Repository

OWNER = "org"  # the organisation in which `token` writes; its own name is a namespace as well
_LARGEST_BODY = 2**30  # bytes


@dataclass(frozen=True)
class Request:
    """A request that came.

    Attributes:
        name: Of its route; `unknown` where it has none.
        method: HTTP's.
        path: With its query, as it was sent.
        user: Whose token it carried, or None.
        status: Of the answer; 0 where the connection was reset.
    """

    name: str
    method: str
    path: str
    user: str | None
    status: int


@dataclass
class _Fault:
    name: str
    status: int | None
    times: int
    after: int
    headers: Mapping[str, str]
    served: bool


class LoopbackHub:
    """The server, in a thread of its own, as a context manager.

    Args:
        folder: Where it keeps the contents of files, and where `environment` puts the caches of clients.
        page: Entries of a page of a tree or history.

    Attributes:
        url: What `HF_ENDPOINT` is to be set to.
        token: Of somebody who may write as `OWNER`.
        read_token: Of the same person, without the right to write.
        stranger_token: Of somebody else, who may read what is public.
        requests: All that came, in the order of their answers.
    """

    token, read_token, stranger_token = "hf_writes", "hf_reads", "hf_stranger"

    def __init__(self, folder: Path, *, page: int = 1000) -> None:
        self.folder, self.page = folder, page
        self.users = {
            self.token: User("maker", (OWNER,), "write"),
            self.read_token: User("maker", (OWNER,), "read"),
            self.stranger_token: User("stranger", (), "write"),
        }
        self.url = self.storage_url = ""
        self.objects = Objects(folder / "objects")
        self.repositories: dict[str, Repository] = {}
        self.collections: dict[str, Collection] = {}
        self.uploads: dict[str, int] = {}
        self.requests: list[Request] = []
        self._wrong: list[str] = []
        self._faults: list[_Fault] = []
        self._hooks: list[tuple[str, Callable[[], object]]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._wrong and kind is None:
            raise AssertionError("the loopback Hub cannot answer:\n" + "\n".join(self._wrong))

    def environment(self, token: str | None = None, caches_in: Path | None = None) -> dict[str, str]:
        """Return what a child process needs to use this Hub, with caches in `folder` or elsewhere."""
        caches = {
            name: str((caches_in or self.folder) / name.lower())
            for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")
        }
        switches = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {"HF_ENDPOINT": self.url, **caches, **switches, **({"HF_TOKEN": token} if token else {})}

    def be_the_hub(self, patch: pytest.MonkeyPatch, token: str | None = None) -> None:
        """Let `huggingface_hub` in this process use this Hub; whatever read the environment before does not."""
        from huggingface_hub import constants, hf_api

        patch.setattr(hf_api.api, "endpoint", self.url)
        patch.setattr(constants, "ENDPOINT", self.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}")
        for name, place in self.environment().items():
            if name in ("HF_HOME", "HF_HUB_CACHE"):
                patch.setattr(constants, name, place)
        patch.setattr(constants, "HF_TOKEN_PATH", str(self.folder / "no token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", token or "")

    def repository(self, repo: str) -> Repository:
        """Return `org/name`, a model, or `datasets/org/name`."""
        return self.repositories[repo]

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """Return the commits of a revision, the newest first; the last one is the Hub's own, with `.gitattributes`."""
        return self.repository(repo).history(revision)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Return the contents of a revision's files by their paths."""
        return {path: file.path.read_bytes() for path, file in self.repository(repo).at(revision).files.items()}

    def tags(self, repo: str) -> dict[str, str]:
        """Return the commit of each tag."""
        return dict(self.repository(repo).tags)

    def create(self, repo: str, *, private: bool = False, gated: bool = False) -> Repository:
        """Make an empty repository, `org/name` or `datasets/org/name`."""
        kind, repo_id = ("dataset", repo.removeprefix("datasets/")) if repo.startswith("datasets/") else ("model", repo)
        return self.repositories.setdefault(repo, Repository(kind, repo_id, private, self.objects, gated))

    def edit(self, repo: str, changes: Mapping[str, bytes | None], title: str = "edited on the website") -> Commit:
        """Commit to `main` what somebody else changes: contents by path, None where the file goes."""
        files = {path: None if content is None else self.objects.file(content) for path, content in changes.items()}
        return self.repository(repo).commit("main", files, title)

    def fail(
        self,
        name: str,
        status: int | None = None,
        *,
        times: int = 1,
        after: int = 0,
        headers: Mapping[str, str] | None = None,
        served: bool = False,
    ) -> None:
        """Let the next requests of a name go wrong.

        Args:
            name: Of the route.
            status: What to answer; None for a connection that is reset, while the body comes where there is one.
            times: How many of them.
            after: How many are served first.
            headers: Of the answer, e.g. `Retry-After`.
            served: Do what was asked for first, so that only the answer is lost.
        """
        self._faults.append(_Fault(name, status, times, after, headers or {}, served))

    def before(self, name: str, action: Callable[[], object]) -> None:
        """Run something once, before the next request of a name is served."""
        self._hooks.append((name, action))

    def named(self, name: str) -> list[Request]:
        """Return the requests of a name that came so far."""
        return [request for request in self.requests if request.name == name]

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    async def _start(self) -> None:
        from tests.loopback_routes import ROUTES

        app = web.Application(middlewares=[self._serve], client_max_size=_LARGEST_BODY)
        app[HUB] = self
        for method, path, handler in ROUTES:
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        port = self._runner.addresses[0][1]
        # Two names of one machine, as the Hub and its storage are two hosts: a client must not send its token to both.
        self.url, self.storage_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    @web.middleware
    async def _serve(self, request: web.Request, handler: Any) -> web.StreamResponse:
        is_known = request.match_info.http_exception is None
        name = request.match_info.handler.__name__ if is_known else "unknown"
        for hook in [hook for hook in self._hooks if hook[0] == name]:
            self._hooks.remove(hook)
            await asyncio.to_thread(hook[1])
        fault = self._fault(name)
        response: web.StreamResponse | None
        if fault and not fault.served:
            response = await self._break(request, fault)
        else:
            response = await self._answer(request, handler, is_known)
            if fault:
                response = await self._break(request, fault)
        user = self.users.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        status = response.status if response else 0
        self.requests.append(Request(name, request.method, request.path_qs, user and user.name, status))
        if response is None:
            _reset(request)
            raise ConnectionResetError
        return response

    async def _answer(self, request: web.Request, handler: Any, is_known: bool) -> web.StreamResponse:
        try:
            if not is_known:
                raise LookupError("no such route")
            await request.read()
            answer: web.StreamResponse = await handler(request)
        except Refused as refused:
            return _refusal(refused)
        except Exception:
            last = traceback.format_exc().strip().splitlines()
            self._wrong.append(f"{request.method} {request.path_qs}: {last[-1]} ({last[-3].strip()})")
            return _refusal(Refused(501, "the loopback Hub cannot answer this"))
        return answer

    def _fault(self, name: str) -> _Fault | None:
        for fault in self._faults:
            if fault.name == name and fault.times:
                if fault.after:
                    fault.after -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    async def _break(self, request: web.Request, fault: _Fault) -> web.StreamResponse | None:
        if fault.status is not None:
            if not fault.served:
                await request.read()
            response = _refusal(Refused(fault.status, "as the test wants it"))
            response.headers.update(fault.headers)
            return response
        if not fault.served and request.content_length:
            await request.content.readexactly(request.content_length // 2)
        return None


def _refusal(refused: Refused) -> web.Response:
    headers = {"X-Error-Message": refused.message, "X-Request-Id": "loopback"}
    if refused.code:
        headers["X-Error-Code"] = refused.code
    headers.update(refused.more.pop("headers", {}))
    return web.json_response({"error": refused.message, **refused.more}, status=refused.status, headers=headers)


def _reset(request: web.Request) -> None:
    """Break a connection off such that the client sees a reset, not an end."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
