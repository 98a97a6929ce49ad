"""How the failures of an OpenAI-compatible server are to be taken: what may pass, what will not, what ends the run.

Providers agree on little: the same fault comes with status 400, 404, 422, 500 or 200, and with its name in a code, in
a field or only in the message. What is said here of a message was read off the messages of the servers named beside it.
What is passed in is free of secrets already (`redaction`), as reasons are cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from toolkit.teachers.protocol import FailureKind, TeacherError

LONGEST_REASON = 300
"""Characters."""

_LONGEST_WORDS = 160  # of a server, where it gives more than a message
_FATAL_STATUSES = {401: "key refused", 402: "payment required", 403: "not allowed", 404: "unknown model or address"}
_FATAL_CODES = {"insufficient_quota", "invalid_api_key"}  # whatever the status they come with
_REFUSAL_CODES = {"content_filter", "content_policy_violation", "invalid_prompt"}  # Azure, OpenAI, its reasoning models
_RETRY_STATUSES = {408, 409, 425, 429}
_OVERLOAD_STATUSES = {429, 503, 529}
_PARAMETER_STATUSES = {200, 400, 422}  # 200: an error in place of an answer

_MODEL_CODES = {
    "model_not_found", "model_not_supported", "model_not_available", "invalid_model", "unknown_model",
    "deploymentnotfound", "modelnotfound", "model_not_exist", "model_not_exists",
}  # fmt: skip
_UNKNOWN_MODEL = re.compile(
    # "The model `x` does not exist", "model 'x' not found", "Model Not Exist", "... models/x is not found for API ..."
    r"\b(models?|deployment)\b(?! (output|response|parameter))[^\n]{0,120}?"
    r"\b(not (be )?found|(does|do)(es)? ?(not|n['o’]?t) exist|not exists?|not supported by any|unknown to)\b"
    # "x is not a valid model ID", "Invalid model name passed in", "Unknown model: x", "Not found the model x"
    r"|\b(not a valid|invalid|unknown|unrecogni[sz]ed|no such|not found the|unsupported)( api)? (model|deployment)\b"
    r"(?! (output|response|parameter|argument|input|setting))"
    r"|\bunable to access model\b|\bno available channels?\b[^\n]{0,40}\bmodel\b|模型不存在",
    re.IGNORECASE,
)

_PROMPT = {"messages", "message", "prompt", "input", "inputs", "content", "contents"}  # these differ between requests
_TOO_LONG = re.compile(
    r"context[ _](length|window)|input tokens|(length|tokens) of (the|your) (prompt|messages)|in the messages"
    r"|prompt (is|has|contains|exceeds)|reduce the (length|prompt)",
    re.IGNORECASE,
)
_IN_BODY = re.compile(r"['\"]?loc['\"]?\s*:\s*[\[(]\s*['\"]body['\"]\s*,\s*['\"]([\w.-]+)['\"]")  # pydantic's, of vLLM
_NAMED = (
    # "Unsupported parameter: 'x'", "Unknown argument `x`", "Unrecognized request argument supplied: x"
    re.compile(
        r"(?i:\b(?:parameter|argument|property|field|option|keyword)s?\b"
        r"(?: (?:supplied|is|was|provided|received|found|named|called))*)\W{1,4}([A-Za-z][\w-]*(?:\.\w+)*)"
    ),
    # "Unsupported value: 'x' does not support 0.2", "`x` is not supported", "'x' must be less than", "x is deprecated"
    re.compile(
        r"['\"`]([A-Za-z]\w*(?:\.\w+)*)['\"`](?i:[^.]{0,40}\b(?:support|permitted|allowed|deprecated|unknown|invalid|"
        r"must|unexpected|should|cannot|range|too (?:large|big|high|small)))"
    ),
    re.compile(r"(?i:\b(?:unsupported|unrecogni[sz]ed|unknown|unexpected|invalid)\b[^.'\"`]{0,20})['\"`]([A-Za-z]\w*)"),
)
_CUE = re.compile(
    r"parameter|argument|property|\bfield|support|unrecogni[sz]ed|unexpected|permitted|deprecated|must be|should be"
    r"|\brange|only the default|cannot (both )?be|less than|greater than|too (large|big|high|small)|either",
    re.IGNORECASE,
)


class Unreachable(TeacherError):
    """Nobody listens at the address: the server never saw the request."""


class ParameterRefused(TeacherError):
    """The server takes no such parameter, or not this value of it; `permanent`, as far as one request tells.

    Attributes:
        parameter: Its name, without what is below it.
    """

    parameter: str = ""


class UnknownModel(TeacherError):
    """The server does not know the model; `fatal`.

    Attributes:
        otherwise: How the failure is to be taken where the model has answered before; None where that changes nothing.
    """

    otherwise: FailureKind | None = None


def status_failure(
    status: int, body: object, headers: Mapping[str, str] | None = None, sent: Collection[str] = ()
) -> TeacherError:
    """Say how an HTTP error status is to be taken.

    Args:
        status: The status; 200 where a body without an answer holds an error.
        body: The response, parsed where it is JSON, else its text.
        headers: Its headers.
        sent: Names of the parameters that were sent.
    """
    body = _alone(body)
    error = body.get("error", body) if isinstance(body, dict) else body
    codes, said, flagged = _codes(error), _said(error), False
    if isinstance(error, dict):
        metadata = error.get("metadata")
        flagged = isinstance(metadata, dict) and "flagged_input" in metadata  # OpenRouter, with status 403
    reason = f"HTTP {status}: {said}"
    kind: FailureKind = "permanent"
    fatal_code = next(iter(codes & _FATAL_CODES), None)
    if flagged or (status < 500 and codes & _REFUSAL_CODES):
        reason = f"the endpoint's content policy refuses the prompt ({reason})"
    elif 300 <= status < 400:
        # Prompts and key are for the address that was named, and go nowhere else by themselves.
        kind = "fatal"
        reason = f"sends on to {(headers or {}).get('location', 'nowhere')!r}; name that in base_url (HTTP {status})"
    elif status not in (*_FATAL_STATUSES, 429) and fatal_code is None and _is_about_model(error, codes, said):
        return _unknown_model(status, codes, reason, headers)
    elif status in _FATAL_STATUSES or fatal_code is not None:
        kind = "fatal"
        reason = f"{_FATAL_STATUSES.get(status, fatal_code)} ({reason})"
    elif status in _PARAMETER_STATUSES and (name := _parameter_in(error, said, sent)):
        refused = ParameterRefused("permanent", reason)
        refused.parameter = name
        return refused
    elif status in _RETRY_STATUSES or status >= 500:
        kind = "retry"
    return TeacherError(
        kind, reason, retry_after_seconds(headers or {}), overloaded=kind == "retry" and status in _OVERLOAD_STATUSES
    )


def _unknown_model(status: int, codes: set[str], reason: str, headers: Mapping[str, str] | None) -> UnknownModel:
    code = next((f", {code}" for code in codes & _MODEL_CODES), "")
    unknown = UnknownModel("fatal", f"unknown model{code} ({reason})", retry_after_seconds(headers or {}))
    if not code:
        unknown.otherwise = "retry" if status == 200 or status in _RETRY_STATUSES or status >= 500 else "permanent"
    return unknown


def no_answer(body: object, sent: Collection[str] = ()) -> TeacherError:
    """Sort a response with status 200 that holds no answer: its error may be what the status should have been."""
    body = _alone(body)
    error = body.get("error") if isinstance(body, dict) else None
    if not error:
        said = words(body) if body else ""
        return TeacherError("retry", f"the response holds no message{f': {said}' if said else ''}", billed=True)
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 200
    failure = status_failure(status, body, sent=sent)
    reason = f"the response holds no message: {failure.reason.removeprefix('HTTP 200: ')}"
    if isinstance(failure, ParameterRefused | UnknownModel):
        failure.reason, failure.billed = reason, True
        return failure
    kind = failure.kind if status >= 400 or failure.kind == "fatal" or code in _REFUSAL_CODES else "retry"
    return TeacherError(kind, reason, billed=True, overloaded=failure.overloaded)


def _alone(body: object) -> object:
    """Return a body, out of the list in which Google sends the one error."""
    return body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) else body


def words(said: object) -> str:
    """Return what a server said as one line of printable characters; of JSON the message, or else all of it."""
    if isinstance(said, dict):
        nested = [said.get(name) for name in ("message", "detail", "msg", "error_msg", "status_msg", "title")]
        inner = said.get("base_resp")  # MiniMax
        nested += [inner.get("status_msg")] if isinstance(inner, dict) else []
        said = next((each for each in nested if each), said)
    if not isinstance(said, str):
        said = json.dumps(said, ensure_ascii=False)
    line = " ".join(said.split())
    return line if line.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in line)


def _said(error: object) -> str:
    """Return the words of an error, with those of the server behind the server (OpenRouter's `metadata`)."""
    said = words(error or "")
    metadata = error.get("metadata") if isinstance(error, dict) else None
    if not metadata:
        return said
    if isinstance(metadata, dict):
        metadata = "; ".join(f"{name}: {words(value)}" for name, value in metadata.items())
    return f"{said[:_LONGEST_WORDS]} ({words(metadata)[:_LONGEST_WORDS]})"


def _codes(error: object) -> set[str]:
    if not isinstance(error, dict):
        return set()
    named = (error.get(name) for name in ("code", "type", "error_code"))
    return {name.lower() for name in named if isinstance(name, str)}


def _is_about_model(error: object, codes: set[str], said: str) -> bool:
    param = error.get("param") if isinstance(error, dict) else None
    return bool(codes & _MODEL_CODES) or param == "model" or _UNKNOWN_MODEL.search(said) is not None


def _parameter_in(error: object, said: str, sent: Collection[str]) -> str | None:
    """Return the parameter that an error is about, None where it is about the prompt or about nothing by name."""
    if _codes(error) & {"context_length_exceeded"} or _TOO_LONG.search(said):
        return None  # `max_tokens` is too large for this prompt, and fits another one
    for name in (*_fields(error), *_IN_BODY.findall(said)):
        top = re.split(r"[.\[/]", name.strip(" ./$"))[0]
        if re.fullmatch(r"[A-Za-z_][\w-]*", top):
            return None if top in _PROMPT else top
    own = set(sent) - {"model", *_PROMPT}
    for pattern in _NAMED:
        for name in pattern.findall(said):
            top = name.split(".")[0]
            # Of what was not sent only what is called a parameter and looks like one: `enable_thinking`, `api-version`.
            if top in own or (pattern is _NAMED[0] and re.search("[a-z][_-][a-z]", top) and top not in _PROMPT):
                return top
    if _CUE.search(said):  # "temperature: range: 0..1", "top_p must be in (0, 1]"
        return next((name for name in sorted(own) if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said)), None)
    return None


def _fields(error: object) -> Iterator[str]:
    """Yield what an error names in a field: OpenAI's `param`, or where pydantic says a fault is."""
    if not isinstance(error, dict):
        return
    for name in ("param", "parameter"):
        if isinstance(error.get(name), str) and error[name]:
            yield error[name]
    inner = error.get("message")
    listed: list[Any] = [error.get("detail"), error.get("errors")]
    listed += [inner.get("detail")] if isinstance(inner, dict) else []  # Mistral
    for faults in listed:
        for fault in faults if isinstance(faults, list) else ():
            place = fault.get("loc") if isinstance(fault, dict) else None
            if isinstance(place, list) and len(place) > 1 and place[0] == "body":
                yield str(place[1])


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


def failure_of(error: Exception) -> TeacherError:
    """Say how an error of one exchange is to be taken; an error that is none of the network's is raised again."""
    import aiohttp

    if isinstance(error, TeacherError):
        return error
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return Unreachable("retry", f"connection failed: {words(str(error)) or type(error).__name__}")
    if isinstance(error, TimeoutError):
        return TeacherError("retry", "no answer within the timeout", billed=True)
    if isinstance(error, aiohttp.ClientError | OSError):
        return TeacherError("retry", f"connection failed: {words(str(error)) or type(error).__name__}", billed=True)
    if isinstance(error, RecursionError):
        return TeacherError("retry", "the response is nested too deeply to be an answer", billed=True)
    raise error
