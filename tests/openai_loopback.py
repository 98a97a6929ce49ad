"""An OpenAI-compatible server on the loopback interface that answers by a script and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Ask:
    """One HTTP request for a completion, as it arrived."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int  # 1 for the first request the server got
    attempt: int  # 1 for the first time that this prompt came

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass(frozen=True)
class Reply:
    """What is sent back: a body with a status, a broken connection, or nothing for ever."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    behaviour: str = "answer"  # or reset, truncate, hang


def completion(text: str | None, finish_reason: str = "stop", usage: bool = True, **message: Any) -> Reply:
    """A well-formed completion; further fields of the message may be named."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    body: dict[str, Any] = {"id": "c", "object": "chat.completion", "model": "served-model", "choices": [choice]}
    if usage:
        body["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Reply(json.dumps(body).encode())


def fault(status: int, message: str = "scripted fault", code: str | None = None, **headers: str) -> Reply:
    """An error in OpenAI's wording; header names are written with underscores."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps(body).encode(), status, named)


RESET = Reply(behaviour="reset")
TRUNCATED = Reply(behaviour="truncate")
HANG = Reply(behaviour="hang")
GARBAGE = Reply(b'{"choices": [{"mess')
NOT_UTF8 = Reply(b'{"choices": "\xff\xfe"}')
HTML = Reply(b"<html>gateway</html>", content_type="text/html")
NO_CHOICES = Reply(b'{"object": "chat.completion", "choices": []}')
ERROR_AS_200 = Reply(b'{"error": {"message": "upstream overloaded"}}')


class Loopback:
    """The server, in a thread of its own, as a context manager.

    Attributes:
        url: Base URL up to `/v1`.
        asks: Every request for a completion, in the order of arrival.
        lists: How often its models were asked for.
        connections: Ports of the clients that asked for a completion.
    """

    def __init__(self, script: Callable[[Ask], Reply], models: Reply | None = None) -> None:
        self.asks: list[Ask] = []
        self.lists = 0
        self.connections: set[int] = set()
        self.url = ""
        self._script = script
        self._models = models or Reply(b'{"object": "list", "data": []}')
        self._seen: Counter[str] = Counter()
        self._arrival = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def asked_per_prompt(self) -> Counter[str]:
        return Counter(ask.prompt for ask in self.asks)

    def wait_for_asks(self, number: int) -> None:
        with self._arrival:
            assert self._arrival.wait_for(lambda: len(self.asks) >= number, timeout=20), "the client never asked"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)  # 0 would wait for ever on a reply that hangs
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.lists += 1
        return await self._send(request, self._models)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if request.transport is not None:
            self.connections.add(request.transport.get_extra_info("peername")[1])
        key = json.dumps(body)
        self._seen[key] += 1
        ask = Ask(body, dict(request.headers), len(self.asks) + 1, self._seen[key])
        with self._arrival:
            self.asks.append(ask)
            self._arrival.notify_all()
        return await self._send(request, self._script(ask))

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        if reply.behaviour == "hang":
            await asyncio.Event().wait()
        if reply.behaviour == "reset" and request.transport is not None:
            request.transport.abort()
        if reply.behaviour == "truncate" and request.transport is not None:
            response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            request.transport.close()
            return response
        return web.Response(
            body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
        )
