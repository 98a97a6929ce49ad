"""What a row of the store is: its columns, how requests and completions are packed into them, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from toolkit.teachers.protocol import Completion, Request, Sampling, token_count

Row = tuple[str | int, ...]

# Text a teacher wrote may hold NUL bytes and lone surrogates, which SQLite's TEXT cuts or refuses. Such columns hold
# ASCII JSON instead: exact, and still readable in any SQLite shell through json_extract(text, '$'). The last column of
# a row is the digest of all others, so that a row which the disk has changed is known by itself.
# What is counted stands before what is long, so that counting reads the first page of a row only.
COMPLETION_COLUMNS = (
    "digest",
    "prompt_digest",
    "model",
    "created_at",
    "finish_reason",
    "answered_by",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "batched",
    "text",
    "reasoning",
    "raw",
    "request",
    "row_digest",
)
FAILURE_COLUMNS = ("digest", "created_at", "permanent", "reason", "request", "row_digest")
PACKED_COLUMNS = {"model", "finish_reason", "answered_by", "text", "reasoning", "raw", "request", "reason"}  # JSON
ANSWER = slice(4, 13)  # what came back of a request: the columns `finish_reason` to `raw`


def completion_row(request: Request, completion: Completion, created_at: str) -> Row:
    """Return the columns of a completion, `COMPLETION_COLUMNS`."""
    columns = (
        request.digest,
        request.prompt_digest,
        packed(request.model),
        created_at,
        packed(completion.finish_reason),
        packed(completion.model),
        # As SQLite gives them back: it would make 1 of True and refuse what is longer than 64 bits.
        token_count(completion.prompt_tokens),
        token_count(completion.completion_tokens),
        token_count(completion.cached_tokens),
        int(bool(completion.batched)),
        packed(completion.text),
        packed(completion.reasoning),
        packed(completion.raw),
        _packed_request(request),
    )
    return (*columns, row_digest(columns))


def failure_row(request: Request, reason: str, permanent: bool, created_at: str) -> Row:
    """Return the columns of a failure, `FAILURE_COLUMNS`."""
    columns = (request.digest, created_at, int(permanent), packed(reason), _packed_request(request))
    return (*columns, row_digest(columns))


def completion_of(row: Sequence[Any]) -> Completion:
    """Return the completion of a row of `COMPLETION_COLUMNS` that is sound."""
    finish_reason, model, prompt_tokens, completion_tokens, cached_tokens, batched, *written = row[ANSWER]
    text, reasoning, raw = written
    return Completion(
        text=json.loads(text),
        reasoning=json.loads(reasoning),
        finish_reason=json.loads(finish_reason),
        model=json.loads(model),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=cached_tokens,
        batched=bool(batched),
        raw=json.loads(raw),
    )


def request_of(packed: str) -> Request:
    """Return the request of a row's column `request`.

    Raises:
        ValueError: It is none: not JSON, or with other fields.
    """
    try:
        given = json.loads(packed)
        sampling = given.pop("sampling")
        sampling = Sampling(**{**sampling, "stop": tuple(sampling["stop"])})
        messages = tuple((role, content) for role, content in given.pop("messages"))
        return Request(messages=messages, sampling=sampling, **given)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a request: {error}") from None


def row_digest(columns: Iterable[str | int | None]) -> str:
    """Return the SHA-256 (hex) of a row without its last column. No column holds a line break: JSON escapes it."""
    return hashlib.sha256("\n".join(map(str, columns)).encode()).hexdigest()


def is_sound(row: Sequence[Any]) -> bool:
    """Whether a row is what was stored, by its own digest."""
    return row_digest(row[:-1]) == row[-1]


def packed(value: object) -> str:
    """Return a value as JSON in ASCII."""
    return json.dumps(value)


def unpacked(value: object) -> str | None:
    """Return the text that a column holds as JSON; None where it holds none, as a damaged one."""
    try:
        text = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _packed_request(request: Request) -> str:
    # By hand: `asdict` copies every value, and takes longer than all else about a row.
    content = {
        "model": request.model,
        "messages": request.messages,
        "sampling": vars(request.sampling),
        "sample_index": request.sample_index,
        "template": request.template,
        "contrast": request.contrast,
    }
    return packed(content | {"extra": request.extra} if request.extra else content)
