"""What the fault server sends: answers as functions of the prompt, and faults drawn so that runs repeat.

A script is a function from an `Ask` to a `Reply`. `scripted` makes the usual one; a test may write its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from hashlib import sha256
from statistics import NormalDist
from typing import Any, Literal

from toolkit import draws
from toolkit.errors import UserError, nearest
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher
from toolkit.teachers.protocol import Request, Sampling

BYTES_PER_TOKEN = 4
"""What the server calls a token: so many bytes of UTF-8, begun ones counted."""

MODEL = "fault-server"
_SLOW_S = 0.05
_RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Ask:
    """One request for a completion, as it arrived.

    Attributes:
        raw: Its body.
        headers: Its HTTP headers; those of the batch's creation for a line of a batch.
        number: 1 for the first request the server got.
        attempt: 1 for the first time that this content came.
        batched: Whether it is a line of a batch.
    """

    raw: bytes
    headers: Mapping[str, str]
    number: int
    attempt: int
    batched: bool = False

    @cached_property
    def body(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.raw)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content, whatever the order of its keys; attempts are counted by it."""
        return digest_of(self.raw)

    @property
    def prompt(self) -> str:
        """The last message."""
        return self.body["messages"][-1]["content"]

    @cached_property
    def prompt_tokens(self) -> int:
        """Tokens of all messages, as the server bills them."""
        return sum(tokens(message["content"]) for message in self.body["messages"])


@dataclass(frozen=True)
class Reply:
    """What is sent back, how, and what it costs.

    Attributes:
        body: Body of the response.
        status: HTTP status.
        headers: Further headers.
        content_type: Of the body.
        behaviour: `answer` sends it; `reset` breaks the connection instead; `truncate` breaks it in the middle of
            the body; `hang` sends nothing until the client gives up; `drip` sends a byte at a time.
        is_answer: Whether a client that gets all of it has its answer.
        prompt_tokens: Tokens of the prompt that are billed, whether or not anything arrives.
        completion_tokens: Tokens of the completion that are billed.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    behaviour: Literal["answer", "reset", "truncate", "hang", "drip"] = "answer"
    is_answer: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


Script = Callable[[Ask], Reply]
Answer = Callable[[Ask], str]
Latency = Callable[[Ask], float]
"""Seconds from a request's arrival to the first byte of its reply."""


def tokens(text: str) -> int:
    """Count tokens as the server bills them."""
    return -(-len(text.encode(errors="surrogatepass")) // BYTES_PER_TOKEN)


def digest_of(body: bytes) -> str:
    """Return the SHA-256 (hex) of a body's content."""
    return sha256(json.dumps(json.loads(body), sort_keys=True).encode()).hexdigest()


# Replies


def completion(
    text: str | None,
    finish_reason: str = "stop",
    usage: tuple[int, int] | None = (7, 3),
    name: str = "c",
    model: str = "served-model",
    **message: Any,
) -> Reply:
    """Return a well-formed completion with its (prompt, completion) tokens; `message` names further fields of it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    body: dict[str, Any] = {"id": name, "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
        body["usage"]["total_tokens"] = sum(usage)
    prompt_tokens, completion_tokens = usage or (0, 0)
    return Reply(
        json.dumps(body).encode(),
        is_answer=True,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def fault(status: int, message: str = "scripted fault", code: str | None = None, **headers: str) -> Reply:
    """Return an error in OpenAI's wording; header names are written with underscores."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps(body).encode(), status, named)


RESET = Reply(behaviour="reset")
TRUNCATED = Reply(b'{"choices": [', behaviour="truncate")
HANG = Reply(behaviour="hang")
GARBAGE = Reply(b'{"choices": [{"mess')
NOT_UTF8 = Reply(b'{"choices": "\xff\xfe"}')
HTML = Reply(b"<html>gateway</html>", content_type="text/html")
WRONG_SCHEMA = Reply(b'{"choices": {"0": {"message": "text"}}, "usage": "none"}')
NO_CHOICES = Reply(b'{"object": "chat.completion", "choices": []}')
ERROR_AS_200 = Reply(b'{"error": {"message": "upstream overloaded"}}')


def _in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=_RETRY_AFTER_S), usegmt=True)


FAULTS: Mapping[str, Callable[[Reply], Reply]] = {
    "408": lambda _: fault(408),
    "429": lambda _: fault(429),
    "429-seconds": lambda _: fault(429, Retry_After=str(_RETRY_AFTER_S)),
    "429-ms": lambda _: fault(429, Retry_After_Ms="20"),
    "429-date": lambda _: fault(429, Retry_After=_in_a_second()),
    "500": lambda _: fault(500),
    "503": lambda _: fault(503),
    "hang": lambda answer: _lost(answer, HANG),
    "reset": lambda answer: _lost(answer, RESET),
    "truncated": lambda answer: replace(answer, behaviour="truncate", is_answer=False),
    "slow": lambda answer: replace(answer, behaviour="drip"),
    "json": lambda answer: _lost(answer, GARBAGE),
    "not-utf8": lambda answer: _lost(answer, NOT_UTF8),
    "html": lambda answer: _lost(answer, HTML),
    "schema": lambda answer: _lost(answer, WRONG_SCHEMA),
    "empty": lambda answer: _lost(answer, NO_CHOICES),
    "error-200": lambda answer: _lost(answer, ERROR_AS_200),
    "same-id": lambda answer: replace(answer, body=re.sub(rb'^{"id": "[^"]*"', b'{"id": "the-same"', answer.body)),
}
"""Every fault by its name: what becomes of an answer. What is not refused with an error status is billed all the same,
the hardest case for a budget."""


def _lost(answer: Reply, sent: Reply) -> Reply:
    return replace(sent, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)


# Scripts


def echo(ask: Ask) -> str:
    """Answer with a short chain of thought that names the prompt's last line and ends in a number drawn from it."""
    last = ask.prompt.strip().rsplit("\n", 1)[-1][-80:]
    number = draws.number("echo", ask.prompt) % 100
    return f"I was asked: {last} I think of {number - 1} and add 1. Therefore, the answer is {number}."


def procedural(config: ProceduralConfig) -> Answer:
    """Answer as the embedded teacher does, so that recipes over the procedural bank run against the server.

    The `seed` of a request's sampling, which grows with its sample index, stands for that index.
    """
    teacher = ProceduralTeacher(config)

    def answer(ask: Ask) -> str:
        body = ask.body
        messages = tuple((message["role"], message["content"]) for message in body["messages"])
        return teacher.answer(Request(body["model"], messages, Sampling(), body.get("seed") or 0)).text

    return answer


def scripted(answer: Answer = echo, faults: Mapping[str, float] | None = None, seed: int = 0) -> Script:
    """Return a script that answers, but for a share of tries of each fault.

    Which tries fail, and how, is a function of seed, content and attempt: asked again in the same order or another
    one, the same tries fail.

    Args:
        answer: What the text of an answer is.
        faults: Share of tries by name of the fault (see `FAULTS`).
        seed: Seed of the draws.

    Raises:
        UserError: An unknown fault, or shares that add up to more than 1.
    """
    shares = dict(faults or {})
    for name, share in shares.items():
        if name not in FAULTS:
            raise UserError(f"fault {name!r} is unknown; allowed: {', '.join(FAULTS)}{nearest(name, FAULTS)}")
        if not 0 <= share <= 1:
            raise UserError(f"the share of fault {name!r} must be from 0 to 1, found {share:g}")
    if sum(shares.values()) > 1 + 1e-9:
        raise UserError(f"the shares of all faults add up to {sum(shares.values()):g}, more than 1")

    def script(ask: Ask) -> Reply:
        whole = _answered(ask, answer(ask))
        point = uniform("fault", seed, ask.digest, ask.attempt) if shares else 0.0
        for name, share in shares.items():
            point -= share
            if point < 0:
                return FAULTS[name](whole)
        return whole

    return script


def _answered(ask: Ask, text: str) -> Reply:
    limit = ask.body.get("max_tokens") or ask.body.get("max_completion_tokens") or math.inf
    reason = "stop"
    if tokens(text) > limit:
        reason = "length"
        text = text.encode(errors="surrogatepass")[: int(limit) * BYTES_PER_TOKEN].decode(errors="ignore")
    usage = (ask.prompt_tokens, tokens(text))
    return completion(text, reason, usage, f"chatcmpl-{ask.number}", ask.body.get("model") or MODEL)


def fixed(seconds: float) -> Latency:
    """Return a latency that is always the same."""
    return lambda _: seconds


def lognormal(median: float, sigma: float, cap: float, seed: int = 0) -> Latency:
    """Return a heavy-tailed latency: median and cap in seconds, sigma of the logarithm."""
    normal = NormalDist()

    def latency(ask: Ask) -> float:
        point = uniform("latency", seed, ask.digest, ask.attempt)
        return min(cap, median * math.exp(sigma * normal.inv_cdf(point)))

    return latency


def uniform(*key: str | int) -> float:
    """Return a number between 0 and 1, both excluded, drawn for this key."""
    return (draws.number(*key) + 0.5) / 2**draws.BITS
