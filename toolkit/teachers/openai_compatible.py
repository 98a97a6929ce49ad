"""A teacher behind any OpenAI-compatible server: a provider, vLLM, `transformers serve`.

It asks once and says how a failure is to be taken; retrying, pacing and storing are for `collect`.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from toolkit.prices import Price
from toolkit.schema import Strict
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.protocol import (
    Completion,
    FailureKind,
    Request,
    TeacherError,
    refuse_contrast,
    refuse_logprobs,
)

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI, RequestOptions

_CHECK_S = 30.0
_LONGEST_REASON = 300
_FATAL_STATUSES = {401: "key refused", 402: "payment required", 403: "not allowed", 404: "unknown model or address"}
_FATAL_CODES = {"insufficient_quota", "invalid_api_key", "model_not_found"}  # whatever the status they come with
_RETRY_STATUSES = {408, 409, 425, 429}


class OpenAIConfig(Strict):
    """An OpenAI-compatible endpoint.

    Attributes:
        kind: Tells this teacher from the others.
        model: Model name as the server knows it.
        base_url: Address up to and including `/v1`; where None, `OPENAI_BASE_URL` or else OpenAI itself.
        api_key_env: Environment variable that holds the key. The key itself never stands in a recipe. It may be
            unset where a base_url is given, as many local servers ask for none.
        timeout: Seconds after which one try is given up, thinking and queueing at the server included.
        token_limit: Name under which `max_tokens` is sent; OpenAI's reasoning models know only the second.
        price: What its tokens cost; where None, as the table of prices says for this model at this address.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = Field(default=600.0, gt=0)
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    price: Price | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
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


class OpenAITeacher:
    """Asks an OpenAI-compatible server through the `openai` client on its aiohttp transport.

    Attributes:
        kind: `openai`.
        model: Model name that requests carry.
    """

    kind = "openai"

    def __init__(self, config: OpenAIConfig) -> None:
        self.model = config.model
        self._config = config
        self._client: AsyncOpenAI | None = None
        self._options: RequestOptions = {}

    async def complete(self, request: Request) -> Completion:
        """Answer one request with one HTTP request.

        Raises:
            TeacherError: `retry` for 408, 409, 425, 429, 5xx, broken connections, timeouts and malformed answers;
                `fatal` for a refused key, missing payment, an unknown model or a request that wants contrastive
                decoding; `permanent` for any other 4xx.
        """
        refuse_contrast(request, self.kind)
        try:
            async with asyncio.timeout(self._config.timeout):
                # Untyped: building the client's pydantic models costs twice the CPU time of everything else.
                response = await self._open().post(
                    "/chat/completions", body=self._body(request), cast_to=object, options=self._options
                )
            completion = read_completion(response)
            if completion.text and logprobs_of(completion) is None:
                refuse_logprobs(request, "this server")
            return completion
        except Exception as error:
            raise self._failure(error) from None

    async def check(self) -> None:
        """Ask for the list of models, which costs nothing; a server that has none (404) or is busy passes.

        Raises:
            TeacherError: `fatal` where there is no key, the key is refused, or nobody answers.
        """
        from openai import APIStatusError

        if not (key := os.environ.get(self._config.api_key_env, "")).isascii() or not key.isprintable():
            # As a header it could not even be sent, and every request would fail for a reason that names no key.
            reason = (
                f"environment variable {self._config.api_key_env} holds a line break or another character no key has"
            )
            raise TeacherError("fatal", reason)
        client = self._open()
        address = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}{client.base_url.path}"
        if not client.api_key and self._config.base_url is None:
            reason = f"environment variable {self._config.api_key_env} is not set, and {address} needs a key"
            raise TeacherError("fatal", reason)
        try:
            async with asyncio.timeout(min(_CHECK_S, self._config.timeout)):
                await client.get("/models", cast_to=object, options=self._options)
        except APIStatusError as error:
            if error.status_code in (401, 403):
                raise TeacherError("fatal", f"{address}: {self._failure(error).reason}") from None
        except ValueError:
            pass  # it answers, if not with JSON
        except Exception as error:
            raise TeacherError("fatal", f"{address} cannot be reached: {self._failure(error).reason}") from None

    async def close(self) -> None:
        """Release connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

            key = os.environ.get(self._config.api_key_env, "")
            self._client = AsyncOpenAI(
                # Empty, not None: the client would otherwise fall back on other variables and send a key to a
                # server that it is not for.
                api_key=key,
                admin_api_key="",
                base_url=self._config.base_url,
                timeout=self._config.timeout,
                max_retries=0,  # `collect` retries, and counts what it does
                http_client=DefaultAioHttpClient(),
                _enforce_credentials=False,
            )
            self._options = {} if key else {"headers": {"Authorization": Omit()}}
        return self._client

    def _body(self, request: Request) -> dict[str, Any]:
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

    def _failure(self, error: Exception) -> TeacherError:
        """Sort an error, without the key in its reason: some servers repeat the key that they refuse."""
        failure = failure_of(error)
        key = os.environ.get(self._config.api_key_env, "")
        reason = failure.reason.replace(key, "[key]") if key else failure.reason
        return TeacherError(failure.kind, reason[:_LONGEST_REASON], failure.retry_after)


def read_completion(response: object) -> Completion:
    """Read a chat completion as servers really write it: with thinking text in three places, parts, or gaps.

    An empty answer, a length stop and a refusal are data. The response stays whole in `raw`.

    Raises:
        TeacherError: `retry`, where the response holds no message.
    """
    if not isinstance(response, dict):
        raise TeacherError("retry", "the response is not a JSON object")
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        said = f": {_line(response['error'])}" if response.get("error") else ""
        raise TeacherError("retry", f"the response holds no message{said}")
    text, thought = split_thinking(_text(message.get("content")) or _text(message.get("refusal")))
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thought
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        text=text,
        reasoning=reasoning,
        finish_reason=_text(choice.get("finish_reason")) or "unknown",
        model=_text(response.get("model")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        raw=response,
    )


def split_thinking(content: str) -> tuple[str, str]:
    """Split content into (answer, thinking text) at a leading `<think>...</think>`.

    The opening tag may be missing, as some chat templates put it into the prompt. Thinking that was cut off before
    its end leaves no answer. Content without thinking comes back as it is.
    """
    head, closing, answer = content.partition("</think>")
    opened = head.lstrip().startswith("<think>")
    if not closing and not opened:
        return content, ""
    thinking = head.lstrip().removeprefix("<think>").strip()
    return answer.lstrip(), thinking


def failure_of(error: Exception) -> TeacherError:
    """Say how an error of one request is to be taken; an error that is none of the network's is raised again."""
    import aiohttp
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, TeacherError):
        return error
    if isinstance(error, APIStatusError):
        return _status_failure(error)
    if isinstance(error, UnicodeEncodeError):
        return TeacherError("permanent", "the prompt holds a lone surrogate, which JSON in UTF-8 cannot carry")
    if isinstance(error, ValueError | RecursionError):
        return TeacherError("retry", "the response is not JSON")
    if isinstance(error, TimeoutError):
        return TeacherError("retry", "no answer within the timeout")
    if isinstance(error, APIConnectionError | aiohttp.ClientError | OSError):
        cause: BaseException = error
        while cause.__cause__ is not None:  # the transport reports even a refused connection as a timeout
            cause = cause.__cause__
        return TeacherError("retry", f"connection failed: {_line(cause) or type(cause).__name__}")
    raise error


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


def _status_failure(error: APIStatusError) -> TeacherError:
    status = error.status_code
    body = error.body
    said = (body.get("message") or body.get("detail") or body) if isinstance(body, dict) else body
    reason = f"HTTP {status}: {_line(said)}"
    kind: FailureKind = "permanent"
    if status in _FATAL_STATUSES or error.code in _FATAL_CODES:
        kind = "fatal"
        reason = f"{_FATAL_STATUSES.get(status, error.code)} ({reason})"
    elif status in _RETRY_STATUSES or status >= 500:
        kind = "retry"
    return TeacherError(kind, reason, retry_after_seconds(error.response.headers))


def _line(said: object) -> str:
    return " ".join(str(said or "").split())


def _text(content: object) -> str:
    """Return message content as one string; some servers send a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
