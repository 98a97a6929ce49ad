"""The settings of a teacher behind an OpenAI-compatible server: what a recipe may say of it. Imports no client."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.schema import Strict
from toolkit.teachers.protocol import Request

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"

_HOLDS_SECRET = "must hold no user, password, query or key: keys come from the environment (api_key_env)"
# What the engine itself says in every request, and where a recipe says it.
_OWNED = {
    "model": "`teacher.model`",
    "messages": "the prompts",
    "n": "`samples` of the builder, which asks for each by itself",
    "stream": "nothing: an answer is read whole",
    "stream_options": "nothing: an answer is read whole",
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "`sampling.max_tokens` and `teacher.token_limit`"),
    **dict.fromkeys(("temperature", "top_p", "seed"), "`sampling`; null in `teacher` leaves it out"),
    "stop": "the builder; null in `teacher` leaves it out",
    **dict.fromkeys(("logprobs", "top_logprobs"), "`sampling.top_logprobs`"),
}
_REMEDIES = {
    **{name: f"set dataset.config.teacher.{name}: null" for name in ("temperature", "top_p", "seed", "stop")},
    "max_tokens": "set dataset.config.teacher.token_limit: max_completion_tokens, or a smaller sampling.max_tokens",
    "max_completion_tokens": "set dataset.config.teacher.token_limit: max_tokens, or a smaller sampling.max_tokens",
    **dict.fromkeys(("logprobs", "top_logprobs"), "set dataset.config.sampling.top_logprobs: 0"),
}
_SAMPLED = ("temperature", "top_p", "seed", "stop")
_SECRET_NAMES = re.compile(
    r"(.*_)?(api_?key|access_key|secret_key|private_key|subscription_key|auth_token|access_token|bearer_token"
    r"|api_token|client_secret|secret|password|passwd)|key|token|pwd|auth|authorization|bearer|sig|signature"
    r"|credentials?|code"
)
_SECRET_TEXT = re.compile(r"(?i)\b(bearer|basic)\s+\S{8,}|://[^/\s]*:[^/\s]*@")


def _as_text(value: object) -> object:
    # YAML reads `2024-10-21` as a date and `1` as a number.
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value or not value.isprintable():
        # Not a ValueError, whose text would show what was found: it may be a secret.
        raise PydanticCustomError("owned", "must be a text of one line; a date or a number in quotes")
    return value


LeftOut = Literal["sampling"] | None
Text = Annotated[str, BeforeValidator(_as_text)]


class OpenAIConfig(Strict):
    """An OpenAI-compatible endpoint.

    Attributes:
        kind: Tells this teacher from the others.
        model: Model name as the server knows it.
        base_url: Address up to and including `/v1`; where None, `OPENAI_BASE_URL` or else OpenAI itself. Several are
            a pool: servers of the same model, each asked as it has room, and left alone while it is down.
        azure_deployment: Deployment of Azure OpenAI to ask. The resource's address then is `base_url` or
            `AZURE_OPENAI_ENDPOINT`, its version `query.api-version` or `OPENAI_API_VERSION`.
        api_key_env: Environment variable that holds the key. The key itself never stands in a recipe. It may be
            unset where a base_url is given, as many local servers ask for none. With `azure_deployment` and this key
            left as it is, `AZURE_OPENAI_AD_TOKEN` or `AZURE_OPENAI_API_KEY`.
        timeout: Seconds after which one try is given up, thinking and queueing at the server included.
        max_response_mb: Megabytes that a response, or a line of a batch's results, may have, decoded. A larger one is
            a failure, and no more of it is read.
        token_limit: Name under which `max_tokens` is sent; OpenAI's reasoning models know only the second.
        temperature: null leaves the parameter out, for servers that refuse it; else it is that of `sampling`.
        top_p: As `temperature`.
        seed: As `temperature`.
        stop: null leaves out the stop strings of prompts that have some.
        request: What else to send with every request, as it stands, e.g. `{reasoning_effort: low}` or
            `{chat_template_kwargs: {enable_thinking: false}}`. Other values are other requests in the store.
        query: Query of every address, e.g. `{api-version: "2024-10-21"}`; in the store as `request`.
        price: What its tokens cost; where None, as the table of prices says for this model at this address.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    base_url: str | tuple[str, ...] | None = None
    azure_deployment: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    api_key_env: str = OPENAI_KEY
    timeout: float = Field(default=600.0, gt=0)
    max_response_mb: float = Field(default=64.0, gt=0, le=2048)
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: LeftOut = "sampling"
    top_p: LeftOut = "sampling"
    seed: LeftOut = "sampling"
    stop: LeftOut = "sampling"
    request: dict[str, Any] = Field(default_factory=dict)
    query: dict[str, Text] = Field(default_factory=dict)
    price: Price | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        addresses = (value,) if isinstance(value, str) else value
        for address in addresses or ():
            fault = _address_fault(address)
            if fault == _HOLDS_SECRET:  # not a ValueError, whose text would show what was found
                raise PydanticCustomError("owned", _HOLDS_SECRET)
            if fault:
                raise ValueError(fault)
        if addresses is not None and len({each.rstrip("/") for each in addresses}) != max(1, len(addresses)):
            raise ValueError("expected at least one address, and each of them once")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise PydanticCustomError("owned", "must be the name of an environment variable, and never the key itself")
        return value

    @field_validator(*_SAMPLED, mode="before")
    @classmethod
    def _is_null_or_as_sampled(cls, value: object) -> object:
        if value is not None and value != "sampling":
            raise ValueError("null leaves the parameter out; a value of it stands in `sampling`")
        return value

    @field_validator("request")
    @classmethod
    def _may_be_added(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if (owner := _OWNED.get(str(name).strip().lower())) is not None:
                raise PydanticCustomError("owned", "cannot hold {name}, which comes from {owner}", _words(name, owner))
        _refuse_secrets(value)
        if fault := _json_fault(value):
            raise PydanticCustomError("owned", "{fault}", {"fault": fault})
        return value

    @field_validator("query")
    @classmethod
    def _holds_no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        _refuse_secrets(value)
        return value

    @model_validator(mode="after")
    def _environment_is_plain(self) -> Self:
        if self.azure_deployment is not None and isinstance(self.base_url, tuple):
            raise ValueError("azure_deployment lives at one address: name one base_url")
        try:
            _from_environment(self)
        except UserError as error:
            raise PydanticCustomError("owned", "{reason}", {"reason": str(error)}) from None
        return self

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the sampling parameters that this server does not get."""
        return tuple(name for name in _SAMPLED if getattr(self, name) is None)

    @property
    def extra(self) -> str:
        """What `request` and `query` add, as JSON, the same for the same content; empty where they add nothing."""
        added = {"request": self.request, "query": self.query}
        added = {name: value for name, value in added.items() if value}
        return json.dumps(added, sort_keys=True) if added else ""

    def applied_to(self, request: Request) -> Request:
        """Return a request as this teacher is asked it, and as the store knows it: left out, added, and no more."""
        if not self.left_out and request.extra == self.extra:
            return request
        without: dict[str, Any] = {name: () if name == "stop" else None for name in self.left_out}
        return replace(request, sampling=replace(request.sampling, **without), extra=self.extra)


def remedy(parameter: str, config: OpenAIConfig) -> str:
    """Return a parameter that a server refuses, and what to set in a recipe."""
    for name in ("request", "query"):
        if parameter in getattr(config, name):
            return f"{parameter!r}; change it in dataset.config.teacher.{name}, or take it out"
    if parameter in _REMEDIES:
        return f"{parameter!r}; {_REMEDIES[parameter]}"
    return f"the request because of {parameter!r}, which is not sent; set it in dataset.config.teacher.request"


def address_of(config: OpenAIConfig) -> str:
    """Return the one address of a teacher, without a slash at its end.

    Raises:
        UserError: The environment's address holds a secret or is none; Azure has none.
    """
    assert not isinstance(config.base_url, tuple), "a pool has several"
    address = config.base_url or _from_environment(config)
    if address is None and config.azure_deployment is not None:
        raise UserError("dataset.config.teacher.base_url: missing, and AZURE_OPENAI_ENDPOINT is not set")
    return (address or OPENAI).rstrip("/")


def _from_environment(config: OpenAIConfig) -> str | None:
    """Return the address that the environment names for a teacher without one."""
    name = "OPENAI_BASE_URL" if config.azure_deployment is None else "AZURE_OPENAI_ENDPOINT"
    address = os.environ.get(name)
    if config.base_url is not None or not address:
        return None
    if fault := _address_fault(address):
        raise UserError(f"environment variable {name}: {fault}")
    return address


def _address_fault(address: str) -> str | None:
    """Return what is wrong with an address, in words that hold nothing of it; None for a good one."""
    if re.search(r"[@?#\\]|%(40|3f|23|3a)", address, re.IGNORECASE) or _looks_secret(address):
        return _HOLDS_SECRET
    wanted = "expected an address like http://localhost:8000/v1"
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return wanted
    return None if is_good and address.isascii() and address.isprintable() and " " not in address else wanted


def _looks_secret(text: str) -> bool:
    """Whether a text is, or holds, a key of a well-known make or of this environment."""
    from toolkit.secret_scan import Secrets

    content = text.encode("utf-8", "surrogatepass")
    return bool(_SECRET_TEXT.search(text)) or next(Secrets(os.environ).find(content), None) is not None


def _refuse_secrets(value: Mapping[str, Any]) -> None:
    for path, text in _texts(value):
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", path[-1]).lower()
        if any(map(_looks_secret, path)):  # the name itself: it is not shown either
            raise PydanticCustomError("owned", "holds a key that looks like a secret: {why}", {"why": _HOLDS_SECRET})
        if text and (_SECRET_NAMES.fullmatch(re.sub("[^a-z0-9]+", "_", name).strip("_")) or _looks_secret(text)):
            where = ".".join(path)
            raise PydanticCustomError(
                "owned", "holds at {where} what looks like a secret: keys come from the environment (api_key_env)",
                {"where": where},
            )  # fmt: skip


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text within a value, with the keys that lead to it; of a list the key of the list."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield (*path, str(name)), ""  # a key may be a secret whatever it leads to
            yield from _texts(each, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, path)
    elif isinstance(value, str):
        yield path, value


def _json_fault(value: Any, path: str = "") -> str | None:
    """Return why a value cannot be sent as JSON, naming where; None where it can."""
    where = path or "it"
    if isinstance(value, Mapping):
        if any(not isinstance(name, str) for name in value):
            return f"must have texts as keys, and {where} has others"
        return next(
            filter(None, (_json_fault(each, f"{path}.{name}".strip(".")) for name, each in value.items())), None
        )
    if isinstance(value, list | tuple):
        return next(filter(None, (_json_fault(each, f"{path}[{at}]") for at, each in enumerate(value))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be sent as JSON, which has no infinite number and no NaN: {where}"
    if isinstance(value, str):
        lone = any("\ud800" <= char <= "\udfff" for char in value)
        return f"must be sent as UTF-8, which has no lone surrogates: {where}" if lone else None
    if value is None or isinstance(value, bool | int | float):
        return None
    return f"must be sent as JSON, which has no {type(value).__name__}: {where}; put it in quotes"


def _words(name: str, owner: str) -> dict[str, Any]:
    return {"name": repr(name)[:60], "owner": owner}
