"""The `openai` client of a teacher: whose address, headers, query and credentials every request has.

Its own calls are for what is rare (files, batches). Completions go over aiohttp with what is found here, because what
the client does around each call costs more than all of the rest (`benchmarks/teacher_engine.py`).
The client is imported when it is first needed: it takes a second.
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolkit.teachers.openai_config import OPENAI_KEY, OpenAIConfig, address_of
from toolkit.teachers.openai_failures import Unreachable, failure_of, status_failure, words
from toolkit.teachers.protocol import TeacherError
from toolkit.teachers.redaction import Redactor
from toolkit.teachers.response_bodies import too_large

if TYPE_CHECKING:
    import httpx2
    import openai

_AGENT = "cot-distillery"
_CONNECT_S = 30.0
_API_VERSION = "api-version"
# The client wants a key where a local server wants none, and would find that of another provider where ours is unset.
_NO_KEY = "none"


def key_of(config: OpenAIConfig) -> str:
    """Return the key that a teacher has, empty where there is none."""
    if uses_azure_key(config):
        return os.environ.get("AZURE_OPENAI_AD_TOKEN") or os.environ.get("AZURE_OPENAI_API_KEY") or ""
    return os.environ.get(config.api_key_env, "")


def uses_azure_key(config: OpenAIConfig) -> bool:
    """Whether the key is that of Azure's own variables."""
    return config.azure_deployment is not None and config.api_key_env == OPENAI_KEY


def missing(config: OpenAIConfig) -> str | None:
    """Return what the environment lacks before anything can be asked; None where it lacks nothing."""
    key, name = key_of(config), config.api_key_env
    if uses_azure_key(config):
        name = "AZURE_OPENAI_AD_TOKEN or AZURE_OPENAI_API_KEY"
    if not key.isascii() or not key.isprintable():
        # As a header it could not even be sent, and every request would fail for a reason that names no key.
        return f"environment variable {name} holds a line break or another character no key has"
    if not key and (config.base_url is None or config.azure_deployment is not None):
        return f"environment variable {name} is not set, and {address_of(config)} needs a key"
    if config.azure_deployment is not None and not _api_version(config):
        return "Azure wants a version: set dataset.config.teacher.query: {api-version: ...} or OPENAI_API_VERSION"
    return None


def client_of(config: OpenAIConfig, sends: bool = True) -> openai.AsyncOpenAI:
    """Return the client of a teacher; the environment's organisation, project and headers are its own to find.

    Args:
        config: Of the teacher.
        sends: Whether it is to send anything, or only to be asked where and with what: certificates take a while.

    Raises:
        UserError: There is no address, or the environment's is none.
        TeacherError: `fatal`, where something is `missing`.
    """
    import openai

    address, key = address_of(config), key_of(config)
    if config.azure_deployment is not None and (lacks := missing(config)):
        raise TeacherError("fatal", lacks)
    shared: dict[str, Any] = {
        "default_headers": {"User-Agent": _AGENT},
        "default_query": config.query,
        "max_retries": 0,  # what is tried again, and when, is for `collect`
        "timeout": openai.Timeout(config.timeout, connect=_CONNECT_S),
        "http_client": _http_client(config, address) if sends else _silent_client(),
        "admin_api_key": "",  # or it would find the environment's
    }
    if config.azure_deployment is None:
        return openai.AsyncOpenAI(base_url=address, api_key=key or _NO_KEY, **shared)
    is_token = uses_azure_key(config) and bool(os.environ.get("AZURE_OPENAI_AD_TOKEN"))
    shared |= {"azure_ad_token" if is_token else "api_key": key, "api_version": _api_version(config)}
    return openai.AsyncAzureOpenAI(azure_endpoint=address, azure_deployment=config.azure_deployment, **shared)


def headers_of(client: openai.AsyncOpenAI) -> dict[str, str]:
    """Return the headers of every request, without those by which the client tells what machine it runs on.

    Raises:
        TeacherError: `fatal`, where the environment sets one that cannot be sent.
    """
    # Of two with one name the later one wins, however it is written: that of the environment.
    found = [*client.auth_headers.items(), *client.default_headers.items()]
    by_name = {name.lower(): (name, value) for name, value in found if isinstance(value, str)}
    for name, value in by_name.values():
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) or not (value.isascii() and value.isprintable()):
            variables = "OPENAI_ORG_ID, OPENAI_PROJECT_ID or OPENAI_CUSTOM_HEADERS"
            raise TeacherError("fatal", f"{variables} set a header {name[:40]!r} that cannot be sent")
    return {
        name: value
        for name, value in by_name.values()
        if not name.lower().startswith("x-stainless-") and value != f"Bearer {_NO_KEY}"
    }


def secrets_of(client: openai.AsyncOpenAI, config: OpenAIConfig) -> list[str]:
    """Return what must not be repeated: the key, and what the environment's own headers hold."""
    usual = {"accept", "content-type", "user-agent", "openai-organization", "openai-project"}
    held = [value for name, value in headers_of(client).items() if name.lower() not in usual]
    return [key_of(config), *(value.rpartition(" ")[2] for value in held)]  # of `Bearer ...` the secret part


def client_failure(error: Exception, redactor: Redactor) -> TeacherError:
    """Say how an error of the client, or of anything below it, is to be taken; any other one is raised again.

    Secrets are taken out of what the server said before any of it is cut.
    """
    import httpx2
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body if error.body is not None else error.response.text
        # The client takes what is in `error` out of the body.
        return status_failure(error.status_code, redactor.clean(body), error.response.headers)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return Unreachable("retry", f"connection failed: {words(str(cause)) or type(cause).__name__}")
    if isinstance(cause, openai.APITimeoutError | httpx2.TimeoutException):
        return TeacherError("retry", "no answer within the timeout", billed=True)
    if isinstance(cause, openai.APIError | httpx2.HTTPError | httpx2.InvalidURL | httpx2.StreamError):
        return TeacherError("retry", f"connection failed: {words(str(cause)) or type(cause).__name__}", billed=True)
    return failure_of(error)


def proxy_of(address: str) -> str | None:
    """Return the proxy that the environment (`HTTPS_PROXY`, `NO_PROXY`, ...) names for an address."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _api_version(config: OpenAIConfig) -> str | None:
    return config.query.get(_API_VERSION) or os.environ.get("OPENAI_API_VERSION")


def _silent_client() -> httpx2.AsyncClient:
    import httpx2

    return httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport())


def _http_client(config: OpenAIConfig, address: str) -> httpx2.AsyncClient:
    """Return what the client sends by: files may lie elsewhere, but what we write goes to the named address only."""
    import httpx2
    import openai

    home, most = httpx2.URL(address), int(config.max_response_mb * 10**6)

    async def stay(request: httpx2.Request) -> None:
        if request.headers.get("Authorization") == f"Bearer {_NO_KEY}":
            del request.headers["Authorization"]
        if request.method != "GET" and (request.url.host, request.url.port) != (home.host, home.port):
            raise TeacherError("fatal", f"sends on to {str(request.url)!r}; name that in base_url")

    async def bound(response: httpx2.Response) -> None:
        if response.is_success and response.request.url.path.endswith("/content"):
            return  # results of a batch, which may be large as a whole and are read line by line
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TeacherError("retry", "the response is packed, though none was asked to be")
        response.stream = _Bounded(response.stream)

    class _Bounded(httpx2.AsyncByteStream):
        """A body of which no more is read than a bound."""

        def __init__(self, stream: Any) -> None:
            self._stream, self._left = stream, most

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self._stream:
                self._left -= len(piece)
                if self._left < 0:
                    raise too_large(most)
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    return openai.DefaultAsyncHttpxClient(
        event_hooks={"request": [stay], "response": [bound]}, headers={"Accept-Encoding": "identity"}
    )
