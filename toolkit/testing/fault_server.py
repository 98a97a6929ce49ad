"""An OpenAI-compatible server on the loopback interface that answers, fails and bills by a script; for tests and users.

It remembers what it was asked, what it answered in full and what it billed, so that a test can assert exactly what a
client asked and what that cost. In a test it runs in a thread (`with FaultServer(script) as server`); as a process

    python -m toolkit.testing.fault_server --teacher procedural --faults 429=0.05 --latency lognormal:0.5:1:10

prints its address first, and `GET /accounting` tells the same. It is no model and no proxy: nothing leaves the
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aiohttp import web

from toolkit.errors import UserError
from toolkit.teachers.procedural import ProceduralConfig
from toolkit.testing.batch_endpoints import BatchEndpoints, BatchScript, path_of
from toolkit.testing.replies import (
    FAULTS,
    Ask,
    Latency,
    Reply,
    Script,
    digest_of,
    echo,
    fault,
    fixed,
    lognormal,
    procedural,
    scripted,
)

_LARGEST_BODY = 2**28  # bytes
_DRIP_S = 0.02


@dataclass
class Usage:
    """What became of one request body.

    Attributes:
        arrived: How often it came.
        answered: How often its answer was sent to the end.
        prompt_tokens: Tokens billed for its prompt.
        completion_tokens: Tokens billed for its completions.
        lost_tokens: Those of both that were billed for answers that were not sent to the end.
    """

    arrived: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lost_tokens: int = 0


@dataclass(frozen=True)
class Limits:
    """Rates above which a request is refused with 429 and a `Retry-After`.

    Attributes:
        rpm: Requests a minute, or None.
        tpm: Tokens a minute, those of the prompt and `max_tokens` of the completion, or None.
        burst: Seconds of the rate that may come at once.
    """

    rpm: float | None = None
    tpm: float | None = None
    burst: float = 1.0


@dataclass
class _Bucket:
    """Refills at a rate; whoever comes while it is not empty is let in, and may overdraw it."""

    per_second: float
    burst: float
    level: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.level = self.per_second * self.burst

    def wait(self) -> float:
        """Return the seconds until somebody is let in; 0 for at once."""
        now = time.monotonic()
        self.level = min(self.per_second * self.burst, self.level + (now - self.at) * self.per_second)
        self.at = now
        return 0.0 if self.level > 0 else (1e-3 - self.level) / self.per_second


class FaultServer:
    """The server, in a thread of its own, as a context manager.

    Args:
        script: What is sent for which request; answers without faults where None.
        latency: Seconds before each reply; none where None.
        models: Names of the models it has, or the reply to whoever asks for them. Where there are none, any is served.
        key: The key it wants; any or none where None. A refusal repeats the key it got, as some servers do.
        limits: Rates above which requests are refused.
        batches: What becomes of the first, second, ... batch; the last one stands for all that follow.
        control: What goes wrong with requests for files and batches: given e.g. `POST /v1/batches` and the how manyth
            it is, a reply to send in place of the result, or None. A reply with an error status comes before anything
            is done, any other one after it.
        remembers: Keep every `Ask`; a benchmark need not.

    Attributes:
        url: Base URL up to `/v1`.
        asks: Every request for a completion, in the order of arrival.
        usage: What became of each, by the digest of its content.
        requests_seen: How many there were.
        models_seen: How often its models were asked for.
        connections: Addresses of the clients' ends of all connections by which requests came.
        latencies: Seconds drawn for each, in the order of arrival.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        latency: Latency | None = None,
        models: Sequence[str] | Reply = (),
        key: str | None = None,
        limits: Limits | None = None,
        batches: Sequence[BatchScript] = (BatchScript(),),
        control: Callable[[str, int], Reply | None] | None = None,
        remembers: bool = True,
    ) -> None:
        self.asks: list[Ask] = []
        self.usage: dict[str, Usage] = {}
        self.latencies: list[float] = []
        self.requests_seen = 0
        self.models_seen = 0
        self.connections: set[tuple[str, int]] = set()
        self.url = ""
        self._script = script or scripted()
        self._latency = latency
        self._models = models
        self._key = key
        limits = limits or Limits()
        self._request_bucket = _Bucket(limits.rpm / 60, limits.burst) if limits.rpm else None
        self._token_bucket = _Bucket(limits.tpm / 60, limits.burst) if limits.tpm else None
        self._control = control
        self._remembers = remembers
        self._batches = BatchEndpoints(batches, self._answer_line)
        self._controlled: Counter[str] = Counter()
        self._arrival = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def asked_per_prompt(self) -> Counter[str]:
        """Count how often each prompt came."""
        return Counter(ask.prompt for ask in self.asks)

    def total(self) -> Usage:
        """Add up the usage of all requests."""
        values = [tuple(asdict(usage).values()) for usage in self.usage.values()]
        return Usage(*(sum(column) for column in zip(*values, strict=True)))

    def wait_for_asks(self, number: int) -> None:
        """Return once so many requests have come."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: self.requests_seen >= number, timeout=20), "the client never asked"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def start(self, port: int = 0) -> None:
        """Listen in the running event loop, at a free port where `port` is 0."""
        # The low-level server: no router and no middleware, as this one measures clients too.
        server = web.Server(self._handle, handler_cancellation=True, request_factory=_request, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)  # 0 would wait for ever on a reply that hangs
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/accounting":
            return web.json_response(self._accounting())
        if self._key is not None and request.headers.get("Authorization") != f"Bearer {self._key}":
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            return await _send(request, fault(401, f"Incorrect API key provided: {given}", "invalid_api_key"))
        if path_of(request) == "/v1/chat/completions" and request.method == "POST":
            return await self._complete(request)
        if path_of(request) == "/v1/models":
            self.models_seen += 1
            return await _send(request, self._list_models())
        return await self._manage(request)

    async def _complete(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            self.connections.add(request.transport.get_extra_info("peername"))
        ask = self._arrived(await request.read(), request)
        seconds = self._latency(ask) if self._latency else 0.0
        self.latencies.append(seconds)
        reply = self._reply(ask)
        self._bill(ask, reply)
        if seconds:
            await asyncio.sleep(seconds)
        response = await _send(request, reply)
        if reply.is_answer and request.transport is not None and not request.transport.is_closing():
            self._delivered(ask, reply)
        return response

    def _arrived(self, raw: bytes, request: web.BaseRequest, batched: bool = False) -> Ask:
        usage = self.usage.setdefault(digest_of(raw), Usage())
        usage.arrived += 1
        with self._arrival:
            self.requests_seen += 1
            ask = Ask(raw, request.headers, self.requests_seen, usage.arrived, batched)
            if self._remembers:
                self.asks.append(ask)
            self._arrival.notify_all()
        return ask

    def _reply(self, ask: Ask) -> Reply:
        model = ask.body.get("model")
        if self._models and not isinstance(self._models, Reply) and model not in self._models:
            return fault(404, f"The model {model!r} does not exist", "model_not_found")
        if not ask.batched and (wait := self._over_limit(ask)):
            return fault(429, "Rate limit reached", "rate_limit_exceeded", Retry_After_Ms=f"{1e3 * wait:.0f}")
        return self._script(ask)

    def _over_limit(self, ask: Ask) -> float:
        """Return how many seconds this request comes too early; where none, count it."""
        buckets = [bucket for bucket in (self._request_bucket, self._token_bucket) if bucket]
        wait = max((bucket.wait() for bucket in buckets), default=0.0)
        if not wait and self._request_bucket:
            self._request_bucket.level -= 1
        if not wait and self._token_bucket:
            self._token_bucket.level -= ask.prompt_tokens + ask.body.get("max_tokens", 0)
        return wait

    def _bill(self, ask: Ask, reply: Reply) -> None:
        usage = self.usage[ask.digest]
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        usage.lost_tokens += reply.prompt_tokens + reply.completion_tokens

    def _delivered(self, ask: Ask, reply: Reply) -> None:
        usage = self.usage[ask.digest]
        usage.answered += 1
        usage.lost_tokens -= reply.prompt_tokens + reply.completion_tokens

    def _answer_line(self, raw: bytes, request: web.BaseRequest) -> Reply:
        """Answer a line of a batch; it counts as answered, as its output can be fetched again."""
        ask = self._arrived(raw, request, batched=True)
        reply = self._reply(ask)
        self._bill(ask, reply)
        if reply.is_answer:
            self._delivered(ask, reply)
        return reply

    async def _manage(self, request: web.BaseRequest) -> web.StreamResponse:
        action = f"{request.method} {request.path}"
        self._controlled[action] += 1
        wrong = self._control(action, self._controlled[action]) if self._control else None
        if wrong is not None and wrong.status >= 400:
            return await _send(request, wrong)
        result = await self._batches.handle(request)
        return await _send(request, wrong or result)

    def _list_models(self) -> Reply:
        if isinstance(self._models, Reply):
            return self._models
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "nobody"} for name in self._models]
        return Reply(json.dumps({"object": "list", "data": models}).encode())

    def _accounting(self) -> dict[str, Any]:
        usage = {digest: asdict(usage) for digest, usage in self.usage.items()}
        return {"requests_seen": self.requests_seen, "latencies": self.latencies, "usage": usage}


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY)


async def _send(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    if reply.behaviour == "answer":
        return web.Response(
            body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
        )
    if reply.behaviour == "hang":
        await asyncio.Event().wait()
    if reply.behaviour == "reset" and request.transport is not None:
        request.transport.abort()
        return web.Response()
    length = len(reply.body) + (1000 if reply.behaviour == "truncate" else 0)
    response = web.StreamResponse(
        status=reply.status, headers={"Content-Length": str(length), "Content-Type": reply.content_type}
    )
    await response.prepare(request)
    if reply.behaviour == "drip":
        for start in range(len(reply.body)):
            await response.write(reply.body[start : start + 1])
            await asyncio.sleep(_DRIP_S)
    else:
        await response.write(reply.body[: len(reply.body) // 2 or None])
        if request.transport is not None:
            request.transport.close()
    return response


# As a process


def _faults(text: str) -> dict[str, float]:
    parts = (part.rpartition("=") for part in text.split(",") if part)
    return {name: float(share) for name, _, share in parts}


def _latency(text: str, seed: int) -> Latency:
    name, *numbers = text.split(":")
    if name == "lognormal" and len(numbers) == 3:
        median, sigma, cap = map(float, numbers)
        return lognormal(median, sigma, cap, seed)
    if not numbers:
        return fixed(float(name))
    raise ValueError(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the address is the first line printed."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.testing.fault_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--teacher", choices=("echo", "procedural"), default="echo", help="whose answers")
    parser.add_argument("--faults", default="", help=f"shares of tries, as 429=0.05,reset=0.05; of {', '.join(FAULTS)}")
    parser.add_argument("--latency", default="0", help="seconds, or lognormal:MEDIAN:SIGMA:CAP")
    parser.add_argument("--rpm", type=float, help="requests a minute above which it answers 429")
    parser.add_argument("--tpm", type=float, help="tokens a minute above which it answers 429")
    parser.add_argument("--key", help="the key it wants")
    parser.add_argument("--seed", type=int, default=0, help="of faults, latencies and the procedural teacher")
    chosen = parser.parse_args(arguments)
    answer = procedural(ProceduralConfig(seed=chosen.seed)) if chosen.teacher == "procedural" else echo
    try:
        server = FaultServer(
            scripted(answer, _faults(chosen.faults), chosen.seed),
            latency=_latency(chosen.latency, chosen.seed) if chosen.latency != "0" else None,
            key=chosen.key,
            limits=Limits(chosen.rpm, chosen.tpm),
            remembers=False,
        )
    except UserError as error:
        print(f"fault_server: {error}", file=sys.stderr)
        return 2
    except ValueError:
        parser.error(f"--faults {chosen.faults!r} or --latency {chosen.latency!r} cannot be read; see --help")

    async def serve() -> None:
        await server.start(chosen.port)
        print(server.url, flush=True)
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
