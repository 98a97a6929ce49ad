"""A teacher behind any OpenAI-compatible server: a provider, Azure, vLLM, `transformers serve`.

It asks once and says how a failure is to be taken; retrying, pacing and storing are for `collect`. Where and with which
headers it asks, and everything that is rare, is the `openai` client's (`openai_client`). Completions go over aiohttp
and nothing in between: what the client does around each call costs more than all of the rest
(`benchmarks/teacher_engine.py`), and what it would do for us, `collect` does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from toolkit.errors import nearest
from toolkit.teachers import finish_reasons
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.messages import UnknownContent, read_message
from toolkit.teachers.openai_client import (
    client_failure,
    client_of,
    headers_of,
    key_of,
    missing,
    proxy_of,
    secrets_of,
)
from toolkit.teachers.openai_config import OpenAIConfig, address_of, remedy
from toolkit.teachers.openai_failures import (
    LONGEST_REASON,
    ParameterRefused,
    UnknownModel,
    Unreachable,
    failure_of,
    no_answer,
    retry_after_seconds,
    status_failure,
    words,
)
from toolkit.teachers.protocol import (
    Completion,
    FailureKind,
    Request,
    TeacherError,
    refuse_contrast,
    refuse_logprobs,
    token_count,
)
from toolkit.teachers.redaction import Redactor
from toolkit.teachers.response_bodies import read_body

if TYPE_CHECKING:
    import aiohttp
    import openai

__all__ = [
    "OpenAIConfig",
    "OpenAITeacher",
    "Unreachable",
    "answer_to",
    "encoded",
    "read_completion",
    "retry_after_seconds",
]

_CHECK_S = 30.0
_BEGINNING = 2**16  # bytes of what is no JSON; far more than is told of it, so that no key is cut
_SHALLOW = 300  # brackets, in a body that has no more of them it is nested no deeper than that
_CONNECT_S = 30.0
# Where servers write how many tokens of a prompt came out of their cache: OpenAI and vLLM (below), DeepSeek, Moonshot.
_CACHED_TOKENS = ("prompt_cache_hit_tokens", "cached_tokens")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class OpenAITeacher:
    """Asks one OpenAI-compatible server over connections that are kept and used again.

    Attributes:
        kind: `openai`.
        model: Model name that requests carry.
        address: Address of the server, up to and including `/v1`; of Azure that of the resource.
        most_bytes: Of a response, or of a line of a batch's results, decoded.

    Raises:
        UserError: The environment's address holds a secret or is none.
    """

    kind = "openai"

    def __init__(self, config: OpenAIConfig) -> None:
        if isinstance(config.base_url, tuple):  # several: a `Pool`
            (only,) = config.base_url
            config = config.model_copy(update={"base_url": only})
        self.model = config.model
        self.address = address_of(config)
        self._config = config
        self.most_bytes = int(config.max_response_mb * 10**6)
        self._is_plain = not config.left_out and not config.extra
        self._client: openai.AsyncOpenAI | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""
        self._query: dict[str, str] = {}
        self._redactor = Redactor([key_of(config)])
        self._listed: list[str] = []
        self._accepted: set[str] = set()  # names of what stood in requests that were answered

    async def complete(self, request: Request) -> Completion:
        """Answer one request with one HTTP request.

        Raises:
            TeacherError: `retry` for 408, 409, 425, 429, 5xx, broken connections, timeouts, malformed answers and those
                that were broken off; `fatal` for a refused key, missing payment, an unknown model, a request that wants
                contrastive decoding or, before any answer, a parameter that the server does not take; `permanent` for
                any other 4xx, one that the server's content policy refuses among them, and an answer that is none.
        """
        refuse_contrast(request, self.kind)
        body = self.body(request)
        try:
            content = encoded(body)
            async with self._opened().post(self._url, data=content, allow_redirects=False) as response:
                raw = await read_body(response, self.most_bytes)
            if response.status >= 300:
                raise status_failure(response.status, self.said(raw), response.headers, body)
            completion = answer_to(request, self.parsed(raw), body)
        except Exception as error:
            raise self.failure(error) from None
        self.accept(body)
        return completion

    async def check(self) -> None:
        """Ask for the list of models, which costs nothing; a server that has none (404) or is busy passes.

        A list without our model does not fail the check, as many servers list a part only or take other names too. It
        is kept: should the server then say that it does not know the model, the error tells which it has.

        Raises:
            TeacherError: `fatal` where there is no key, the key is refused, or nobody answers.
        """
        if lacks := missing(self._config):
            raise TeacherError("fatal", lacks)
        import aiohttp

        limit = aiohttp.ClientTimeout(min(_CHECK_S, self._config.timeout))
        session = self._opened()
        try:
            path = "/models" if self._config.azure_deployment is None else "/openai/models"
            url = self.address + path
            async with session.get(url, params=self._query, timeout=limit, allow_redirects=False) as response:
                said = self.said(await read_body(response, self.most_bytes))
        except Exception as error:
            failure = self.failure(error)
            if failure.kind == "permanent":
                return  # a list that is too large is none
            raise Unreachable("fatal", f"{self.address} cannot be reached: {failure.reason}") from None
        if response.status in (401, 403) or 300 <= response.status < 400:
            failure = self.failure(status_failure(response.status, said, response.headers))
            raise TeacherError("fatal", f"{self.address}: {failure.reason}")
        models = said.get("data") if isinstance(said, dict) else None
        names = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        self._listed = [name for name in names if isinstance(name, str)]

    @asynccontextmanager
    async def exchange(
        self, call: Callable[[openai.AsyncOpenAI], AbstractAsyncContextManager[Any]]
    ) -> AsyncIterator[Any]:
        """Exchange anything but a completion with the server, through the `openai` client.

        It may take its time, as files may be large: the server must only not be silent for as long as it has for a
        completion.

        Args:
            call: Makes one of the client's calls `with_streaming_response`, whose body is still to be read.

        Raises:
            TeacherError: Sorted as by `complete`; here as well as while the body is read.
        """
        try:
            if self._client is None:
                self._client = client_of(self._config)
                self._redactor = Redactor(secrets_of(self._client, self._config))
            async with call(self._client) as response:
                yield response
        except Exception as error:
            raise self.failure(client_failure(error, self._redactor)) from None

    async def close(self) -> None:
        """Release connections; the next request opens new ones."""
        session, self._session = self._session, None
        client, self._client = self._client, None
        if session is not None:
            await session.close()
        if client is not None:
            await client.close()

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request as the chat-completions API names it."""
        if not self._is_plain:
            request = self._config.applied_to(request)
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": role, "content": content} for role, content in request.messages],
            self._config.token_limit: sampling.max_tokens,
        }
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        if sampling.seed is not None:
            body["seed"] = sampling.seed + request.sample_index  # or all samples of a prompt would be the same one
        return body if self._is_plain else body | self._config.request

    @property
    def batch_path(self) -> str:
        """What a batch calls the address of completions."""
        return "/v1/chat/completions" if self._config.azure_deployment is None else "/chat/completions"

    def batch_body(self, request: Request) -> dict[str, Any]:
        """Return a request as it stands in a batch, where Azure reads the deployment in place of the model."""
        body = self.body(request)
        return body if self._config.azure_deployment is None else body | {"model": self._config.azure_deployment}

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            client = client_of(self._config, sends=False)
            self._query = {name: str(value) for name, value in client.default_query.items()}
            self._redactor = Redactor(secrets_of(client, self._config))
            query = f"?{urlencode(self._query, quote_via=quote)}" if self._query else ""
            self._url = f"{client.base_url}chat/completions{query}"
            self._session = aiohttp.ClientSession(
                headers=headers_of(client),
                timeout=aiohttp.ClientTimeout(self._config.timeout, sock_connect=_CONNECT_S),
                connector=aiohttp.TCPConnector(limit=0),  # `collect` bounds what is in flight
                cookie_jar=aiohttp.DummyCookieJar(),
                # Not `trust_env`, which reads the environment with every request, and passwords out of ~/.netrc.
                proxy=proxy_of(self.address),
            )
        return self._session

    def said(self, raw: bytes) -> Any:
        """Return a body without secrets: parsed where it is JSON, else as text."""
        try:
            return self._redactor.clean(json.loads(raw))
        except (ValueError, RecursionError):
            return self._redactor.reason(raw.decode("utf-8", "replace"))

    def parsed(self, raw: bytes) -> Any:
        """Return what a body holds as JSON, without secrets: what a server repeats is stored, and published.

        Raises:
            TeacherError: `retry`, where it holds none; with its beginning.
        """
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            beginning = words(self.said(raw[:_BEGINNING])) or "it is empty"
            raise TeacherError("retry", f"the response is not JSON: {beginning}", billed=True) from None
        # What is nested too deeply for that cannot be read back from the store everywhere either.
        is_simple = raw.count(b"[") + raw.count(b"{") < _SHALLOW and not self._redactor.may_find(raw)
        return said if is_simple else self._redactor.clean(said)

    def accept(self, body: dict[str, Any]) -> None:
        """Note that a request with this body was answered: none of its parameters is refused as such."""
        if not self._accepted.issuperset(body):
            self._accepted.update(body)

    def failure(self, error: Exception) -> TeacherError:
        """Sort an error, without the key in its reason: some servers repeat the key that they refuse."""
        failure = failure_of(error)
        kind, reason = failure.kind, failure.reason
        if isinstance(failure, ParameterRefused) and failure.parameter not in self._accepted:
            kind, reason = "fatal", f"the server refuses {remedy(failure.parameter, self._config)} ({reason})"
        elif isinstance(failure, UnknownModel) and failure.otherwise is not None and self._accepted:
            kind = failure.otherwise
        is_model_unknown = kind == "fatal" and "unknown model" in reason[:50]
        if is_model_unknown and self._listed and self.model not in self._listed:
            has = ", ".join(self._listed[:5]) + (", ..." if len(self._listed) > 5 else "")
            reason += f"; found {self.model!r}, the server lists {has}{nearest(self.model, self._listed)}"
        reason = self._redactor.reason(reason)[:LONGEST_REASON]
        kept = type(failure) if isinstance(failure, Unreachable) else TeacherError
        return kept(kind, reason, failure.retry_after, billed=failure.billed, overloaded=failure.overloaded)


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


def answer_to(request: Request, response: object, sent: Collection[str] = ()) -> Completion:
    """Read the completion of a request; `sent` are the names of what stood in it.

    Raises:
        TeacherError: As `read_completion`; `fatal`, where log-probabilities were asked for and are not there.
    """
    completion = read_completion(response, sent)
    if completion.text and logprobs_of(completion) is None:
        refuse_logprobs(request, "this server")
    return completion


def read_completion(response: object, sent: Collection[str] = ()) -> Completion:
    """Read a chat completion as servers really write it: with thinking in several places, chunks, or gaps.

    An empty answer, a length stop and a refusal are data. The response stays whole in `raw`.

    Raises:
        TeacherError: The response holds no message, or one that is no answer: it was broken off, calls a tool, or does
            not say why it ended. As its `error` says, or else `retry` where that may pass. It may have been billed.
            `permanent`, where the message's content is of a form that is not known.
    """
    if not isinstance(response, dict):
        raise TeacherError("retry", f"the response is not a JSON object: {words(response)}", billed=True)
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise no_answer(response, sent)
    try:
        text, reasoning = read_message(message)
    except UnknownContent as error:
        raise TeacherError("permanent", f"the response cannot be read: {error}", billed=True) from None
    refusal = "" if text else _text(message.get("refusal"))
    finish_reason = "refusal" if refusal else _finish_reason(response, choice, message, sent)
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt_tokens = token_count(usage.get("prompt_tokens"))
    return Completion(
        text=text or refusal,
        reasoning=reasoning,
        finish_reason=finish_reason,
        model=_text(response.get("model")),
        prompt_tokens=prompt_tokens,
        completion_tokens=token_count(usage.get("completion_tokens")),
        cached_tokens=min(prompt_tokens, max(map(token_count, (cached, *map(usage.get, _CACHED_TOKENS))))),
        raw=response,
    )


def _finish_reason(
    response: dict[str, Any], choice: dict[str, Any], message: dict[str, Any], sent: Collection[str]
) -> str:
    """Return why a completion ended, where that makes it an answer."""
    for said in (response, choice):  # OpenRouter puts what went wrong beside what had come by then
        if said.get("error"):
            raise no_answer({"error": said["error"]}, sent)
    reason = choice.get("finish_reason")
    if message.get("tool_calls") or message.get("function_call"):
        reason = "tool_calls"  # some servers write `stop` behind a call
    understood = finish_reasons.understood(reason)
    if understood is None:
        kind: FailureKind = "retry" if finish_reasons.may_pass(reason) else "permanent"
        raise TeacherError(kind, finish_reasons.fault_of(reason), billed=True)
    return understood


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
