"""A teacher behind any OpenAI-compatible server: a provider, vLLM, `transformers serve`.

It asks once and says how a failure is to be taken; retrying, pacing and storing are for `collect`. It speaks HTTP
through aiohttp and nothing in between: what the `openai` client does around each call costs more than all of the rest
(`benchmarks/teacher_engine.py`), and what it would do for us, `collect` does.
"""

from __future__ import annotations

import json
import math
import os
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from toolkit.errors import nearest
from toolkit.prices import Price
from toolkit.schema import Strict
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.messages import UnknownContent, read_message
from toolkit.teachers.protocol import (
    Completion,
    FailureKind,
    Request,
    TeacherError,
    refuse_contrast,
    refuse_logprobs,
)

if TYPE_CHECKING:
    import aiohttp

OPENAI = "https://api.openai.com/v1"

_CHECK_S = 30.0
_CONNECT_S = 30.0
_LONGEST_REASON = 300
_SHORTEST_SECRET = 16  # characters; local servers take keys like `EMPTY`, a word that completions may hold
_FATAL_STATUSES = {401: "key refused", 402: "payment required", 403: "not allowed", 404: "unknown model or address"}
_FATAL_CODES = {"insufficient_quota", "invalid_api_key", "model_not_found"}  # whatever the status they come with
_REFUSAL_CODES = {"content_filter", "content_policy_violation", "invalid_prompt"}  # Azure, OpenAI, its reasoning models
_RETRY_STATUSES = {408, 409, 425, 429}
_OVERLOAD_STATUSES = {429, 503, 529}
# Where servers write how many tokens of a prompt came out of their cache: OpenAI and vLLM (below), DeepSeek, Moonshot.
_CACHED_TOKENS = ("prompt_cache_hit_tokens", "cached_tokens")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class OpenAIConfig(Strict):
    """An OpenAI-compatible endpoint.

    Attributes:
        kind: Tells this teacher from the others.
        model: Model name as the server knows it.
        base_url: Address up to and including `/v1`; where None, `OPENAI_BASE_URL` or else OpenAI itself. Several are
            a pool: servers of the same model, each asked as it has room, and left alone while it is down.
        api_key_env: Environment variable that holds the key. The key itself never stands in a recipe. It may be
            unset where a base_url is given, as many local servers ask for none.
        timeout: Seconds after which one try is given up, thinking and queueing at the server included.
        token_limit: Name under which `max_tokens` is sent; OpenAI's reasoning models know only the second.
        price: What its tokens cost; where None, as the table of prices says for this model at this address.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    base_url: str | tuple[str, ...] | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = Field(default=600.0, gt=0)
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    price: Price | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        addresses = (value,) if isinstance(value, str) else value
        if addresses is not None and len(set(addresses)) != max(1, len(addresses)):
            raise ValueError("expected at least one address, and each of them once")
        for address in addresses or ():
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("expected an address like http://localhost:8000/v1")
            if parts.username or parts.password or parts.query:
                # Not a ValueError, whose text would show what was found: a secret.
                raise PydanticCustomError(
                    "owned", "must hold no user, password or query: keys come from the environment (api_key_env)"
                )
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise PydanticCustomError("owned", "must be the name of an environment variable, and never the key itself")
        return value


class Unreachable(TeacherError):
    """Nobody listens at the address: the server never saw the request."""


class OpenAITeacher:
    """Asks one OpenAI-compatible server over connections that are kept and used again.

    Attributes:
        kind: `openai`.
        model: Model name that requests carry.
        address: Address of the server, up to and including `/v1`.
    """

    kind = "openai"

    def __init__(self, config: OpenAIConfig) -> None:
        (base_url,) = config.base_url if isinstance(config.base_url, tuple) else (config.base_url,)  # several: a `Pool`
        self.model = config.model
        self.address = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        self._is_named = base_url is not None
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._listed: list[str] = []

    async def complete(self, request: Request) -> Completion:
        """Answer one request with one HTTP request.

        Raises:
            TeacherError: `retry` for 408, 409, 425, 429, 5xx, broken connections, timeouts and malformed answers;
                `fatal` for a refused key, missing payment, an unknown model or a request that wants contrastive
                decoding; `permanent` for any other 4xx, one that the server's content policy refuses among them.
        """
        refuse_contrast(request, self.kind)
        try:
            body = encoded(self.body(request))
            url = f"{self.address}/chat/completions"
            async with self._open().post(url, data=body, allow_redirects=False) as response:
                content = self.without_key(await response.read())
            if response.status >= 300:
                raise status_failure(response.status, parsed(content, content), response.headers)
            return answer_to(request, parsed(content))
        except Exception as error:
            raise self.failure(error) from None

    async def check(self) -> None:
        """Ask for the list of models, which costs nothing; a server that has none (404) or is busy passes.

        A list without our model does not fail the check, as many servers list a part only or take other names too. It
        is kept: should the server then say that it does not know the model, the error tells which it has.

        Raises:
            TeacherError: `fatal` where there is no key, the key is refused, or nobody answers.
        """
        if not (key := self._key()).isascii() or not key.isprintable():
            # As a header it could not even be sent, and every request would fail for a reason that names no key.
            reason = (
                f"environment variable {self._config.api_key_env} holds a line break or another character no key has"
            )
            raise TeacherError("fatal", reason)
        if not key and not self._is_named:
            reason = f"environment variable {self._config.api_key_env} is not set, and {self.address} needs a key"
            raise TeacherError("fatal", reason)
        import aiohttp

        limit = aiohttp.ClientTimeout(min(_CHECK_S, self._config.timeout))
        try:
            url = f"{self.address}/models"
            async with self._open().get(url, timeout=limit, allow_redirects=False) as response:
                content = await response.read()
        except Exception as error:
            raise Unreachable("fatal", f"{self.address} cannot be reached: {self.failure(error).reason}") from None
        said = parsed(content, b"")
        if response.status in (401, 403) or 300 <= response.status < 400:
            failure = self.failure(status_failure(response.status, said or content, response.headers))
            raise TeacherError("fatal", f"{self.address}: {failure.reason}")
        models = said.get("data") if isinstance(said, dict) else None
        names = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        self._listed = [name for name in names if isinstance(name, str)]

    @asynccontextmanager
    async def exchange(self, method: str, path: str, **content: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Exchange anything else with the server; the body of the response is still to be read.

        It may take its time, as files may be large: the server must only not be silent for as long as it has for a
        completion.

        Args:
            method: HTTP method.
            path: What follows `address`.
            content: As `aiohttp` takes it.

        Raises:
            TeacherError: Sorted as by `complete`; here as well as while the body is read.
        """
        import aiohttp

        limit = aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=self._config.timeout)
        try:
            url = self.address + path
            async with self._open().request(
                method, url, timeout=limit, allow_redirects=method == "GET", **content
            ) as response:
                if response.status >= 300:
                    body = await response.read()
                    raise status_failure(response.status, parsed(body, body), response.headers)
                yield response
        except Exception as error:
            raise self.failure(error) from None

    async def close(self) -> None:
        """Release connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request as the chat-completions API names it."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": role, "content": content} for role, content in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._config.token_limit: sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        if sampling.seed is not None:
            body["seed"] = sampling.seed + request.sample_index  # or all samples of a prompt would be the same one
        return body

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "cot-distillery"}
            if key := self._key():
                headers["Authorization"] = f"Bearer {key}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                timeout=aiohttp.ClientTimeout(self._config.timeout, sock_connect=_CONNECT_S),
                connector=aiohttp.TCPConnector(limit=0),  # `collect` bounds what is in flight
                cookie_jar=aiohttp.DummyCookieJar(),
                # Not `trust_env`, which reads the environment with every request, and passwords out of ~/.netrc.
                proxy=_proxy_of(self.address),
            )
        return self._session

    def _key(self) -> str:
        return os.environ.get(self._config.api_key_env, "")

    def without_key(self, content: bytes) -> bytes:
        """Take the key out of a response: what a server repeats is stored, and published with a dataset."""
        key = self._key()
        return content.replace(key.encode(), b"[key]") if len(key) >= _SHORTEST_SECRET else content

    def failure(self, error: Exception) -> TeacherError:
        """Sort an error, without the key in its reason: some servers repeat the key that they refuse."""
        failure = failure_of(error)
        reason = failure.reason
        is_model_unknown = failure.kind == "fatal" and reason.startswith(("unknown model", "model_not_found"))
        if is_model_unknown and self._listed and self.model not in self._listed:
            has = ", ".join(self._listed[:5]) + (", ..." if len(self._listed) > 5 else "")
            reason += f"; found {self.model!r}, the server lists {has}{nearest(self.model, self._listed)}"
        if key := self._key():
            reason = reason.replace(key, "[key]")
        reason = reason[:_LONGEST_REASON]
        more = {"billed": failure.billed, "overloaded": failure.overloaded}
        return type(failure)(failure.kind, reason, failure.retry_after, **more)


def encoded(content: object) -> bytes:
    """Return what is sent as JSON.

    Raises:
        TeacherError: `permanent`, where it holds what JSON cannot.
    """
    try:
        return _encode(content).encode()
    except UnicodeEncodeError:
        reason = "the prompt holds a lone surrogate, which JSON in UTF-8 cannot carry"
        raise TeacherError("permanent", reason) from None


def answer_to(request: Request, response: object) -> Completion:
    """Read the completion of a request.

    Raises:
        TeacherError: As `read_completion`; `fatal`, where log-probabilities were asked for and are not there.
    """
    completion = read_completion(response)
    if completion.text and logprobs_of(completion) is None:
        refuse_logprobs(request, "this server")
    return completion


def read_completion(response: object) -> Completion:
    """Read a chat completion as servers really write it: with thinking in several places, chunks, or gaps.

    An empty answer, a length stop and a refusal are data. The response stays whole in `raw`.

    Raises:
        TeacherError: The response holds no message; as its `error` says, or else `retry`. It may have been billed.
            `permanent`, where the message's content is of a form that is not known.
    """
    if not isinstance(response, dict):
        raise TeacherError("retry", "the response is not a JSON object", billed=True)
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise _no_message(response)
    try:
        text, reasoning = read_message(message)
    except UnknownContent as error:
        raise TeacherError("permanent", f"the response cannot be read: {error}", billed=True) from None
    refusal = "" if text else _text(message.get("refusal"))
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt_tokens = _count(usage.get("prompt_tokens"))
    return Completion(
        text=text or refusal,
        reasoning=reasoning,
        finish_reason="refusal" if refusal else _text(choice.get("finish_reason")) or "unknown",
        model=_text(response.get("model")),
        prompt_tokens=prompt_tokens,
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=min(prompt_tokens, max(map(_count, (cached, *map(usage.get, _CACHED_TOKENS))))),
        raw=response,
    )


def failure_of(error: Exception) -> TeacherError:
    """Say how an error of one request is to be taken; an error that is none of the network's is raised again."""
    import aiohttp

    if isinstance(error, TeacherError):
        return error
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return Unreachable("retry", f"connection failed: {_line(error) or type(error).__name__}")
    if isinstance(error, TimeoutError):
        return TeacherError("retry", "no answer within the timeout", billed=True)
    if isinstance(error, aiohttp.ClientError | OSError):
        return TeacherError("retry", f"connection failed: {_line(error) or type(error).__name__}", billed=True)
    raise error


def status_failure(status: int, body: object, headers: Mapping[str, str] | None = None) -> TeacherError:
    """Say how an HTTP error status is to be taken; `body` is the response, parsed where it is JSON."""
    error = body.get("error", body) if isinstance(body, dict) else body
    code, said, flagged = None, error, False
    if isinstance(error, dict):
        code = error.get("code") if isinstance(error.get("code"), str) else None
        said = error.get("message") or error.get("detail") or error
        metadata = error.get("metadata")
        flagged = isinstance(metadata, dict) and "flagged_input" in metadata  # OpenRouter, with status 403
    reason = f"HTTP {status}: {_line(said.decode(errors='replace') if isinstance(said, bytes) else said)}"
    kind: FailureKind = "permanent"
    if flagged or (status < 500 and code in _REFUSAL_CODES):
        reason = f"the endpoint's content policy refuses the prompt ({reason})"
    elif 300 <= status < 400:
        # Prompts and key are for the address that was named, and go nowhere else by themselves.
        kind = "fatal"
        reason = f"sends on to {(headers or {}).get('location', 'nowhere')!r}; name that in base_url (HTTP {status})"
    elif status in _FATAL_STATUSES or code in _FATAL_CODES:
        kind = "fatal"
        reason = f"{_FATAL_STATUSES.get(status, code)} ({reason})"
    elif status in _RETRY_STATUSES or status >= 500:
        kind = "retry"
    return TeacherError(
        kind, reason, retry_after_seconds(headers or {}), overloaded=kind == "retry" and status in _OVERLOAD_STATUSES
    )


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return how many seconds the server asks to wait, given as milliseconds, seconds or an HTTP date; None if not.

    `now` is the time that a date is compared with; the present where None.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def _no_message(response: dict[str, Any]) -> TeacherError:
    """Sort a response with status 200 that holds no message: its error may be what the status should have been."""
    error = response.get("error")
    if not error:
        return TeacherError("retry", "the response holds no message", billed=True)
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 200
    failure = status_failure(status, response)
    kind = failure.kind if status >= 400 or failure.kind == "fatal" or code in _REFUSAL_CODES else "retry"
    reason = f"the response holds no message: {failure.reason.removeprefix('HTTP 200: ')}"
    return TeacherError(kind, reason, billed=True, overloaded=failure.overloaded)


def parsed(content: bytes, otherwise: object = None) -> Any:
    """Return what a body holds as JSON; what is none is an error, or `otherwise` where that is given."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        if otherwise is None:
            raise TeacherError("retry", "the response is not JSON", billed=True) from None
        return otherwise


def _proxy_of(address: str) -> str | None:
    """Return the proxy that the environment (`HTTPS_PROXY`, `NO_PROXY`, ...) names for an address."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _line(said: object) -> str:
    return " ".join(str(said or "").split())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
