"""What is asked of a teacher and what comes back. Knows no network, no store and no builder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one request, as the chat-completions API names them.

    Attributes:
        temperature: Softmax temperature, >= 0; None where the server's own is taken.
        top_p: Nucleus mass in (0, 1]; None as for `temperature`.
        max_tokens: Most tokens a completion may have.
        stop: Strings at which the teacher stops; not part of the completion.
        seed: Passed on to endpoints that honour one.
        top_logprobs: Most likely tokens wanted at each place, with their log-probabilities; 0 for none.
    """

    temperature: float | None = 0.2
    top_p: float | None = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: int = 0

    def content(self) -> dict[str, Any]:
        """Return what identifies these parameters; without `top_logprobs` where it is 0, as older stores have it."""
        return {name: value for name, value in asdict(self).items() if name != "top_logprobs" or value}


@dataclass(frozen=True)
class Request:
    """One completion to be had: the same content is the same request, whoever asks and in which order.

    Attributes:
        model: Model the teacher is asked for.
        messages: Rendered chat messages as (role, content) pairs.
        sampling: Sampling parameters.
        sample_index: Tells several samples of one prompt apart.
        template: Name and digest of the prompt template (`cot@1a2b3c4d`); provenance, not part of the identity.
        contrast: A second user prompt, for contrastive decoding: what it makes likely is held against a token. Only a
            teacher of kind `transformers` can do that, as it takes the probabilities of every token.
        extra: What the settings of the teacher add to every request, as JSON; empty where they add nothing.
    """

    model: str
    messages: tuple[tuple[str, str], ...]
    sampling: Sampling = field(default_factory=Sampling)
    sample_index: int = 0
    template: str = field(default="", compare=False)
    contrast: str | None = None
    extra: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content that identifies this request; the key of the store."""
        # What is added is a mapping, so that none of it can pass for a contrast; where nothing is, nothing stands here.
        extra = [{"extra": self.extra}] if self.extra else []
        content = [self.model, self.messages, self.sampling.content(), self.sample_index, *self._contrasted, *extra]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True, sort_keys=True).encode()).hexdigest()

    @cached_property
    def prompt_digest(self) -> str:
        """SHA-256 (hex) of prompts and sample index alone; by it a recorded teacher finds a completion."""
        content = [self.messages, self.sample_index, *self._contrasted]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    @property
    def _contrasted(self) -> list[str]:
        """The contrast where there is one: stores made before there were any keep their digests."""
        return [] if self.contrast is None else [self.contrast]


@dataclass(frozen=True)
class Completion:
    """What a teacher answered.

    Attributes:
        text: The answer, without thinking text.
        reasoning: Thinking text that a reasoning model returned apart from its answer; mostly empty.
        finish_reason: Why it ended, one of `finish_reasons.ANSWERED`: `stop`, `length`, `content_filter`, or `refusal`
            where the message is the model's refusal. All of them are data; any other reason is a failure.
        model: Model as the endpoint reported it.
        prompt_tokens: Tokens of the prompt as billed, 0 where unknown.
        completion_tokens: Tokens of the completion as billed, those of thinking included; 0 where unknown.
        cached_tokens: Those of the prompt's tokens that the endpoint billed as read from its cache.
        batched: Whether it was asked through a batch API, which has prices of its own.
        raw: The response as received (JSON-serialisable), kept apart from what is parsed out of it.
    """

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    batched: bool = False
    raw: dict[str, Any] = field(default_factory=dict)


_MOST_TOKENS = 10**12  # of one completion; sums over any store then fit into SQLite's integers


def token_count(value: object) -> int:
    """Return a number of tokens as a server, or a file, says it; 0, which is unknown, for what is no such number.

    In Python `True` is an integer and in JSON `7.0` a number: the first is none of tokens, the second is 7.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else 0


FailureKind = Literal["retry", "permanent", "fatal"]


class TeacherError(Exception):
    """A request that got no completion.

    Attributes:
        kind: `retry` (worth another try), `permanent` (this request will not be answered) or `fatal` (no
            request of this run will: bad key, unknown model, unreachable host).
        reason: One line without secrets, fit for a failure row.
        retry_after: Seconds the endpoint asked to wait, if it did.
        billed: Whether the endpoint may have charged for this try: it was sent, and no error status came back.
        overloaded: Whether it failed because the endpoint has too much to do: fewer requests at once may help.
    """

    def __init__(
        self,
        kind: FailureKind,
        reason: str,
        retry_after: float | None = None,
        *,
        billed: bool = False,
        overloaded: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind: FailureKind = kind
        self.reason = reason
        self.retry_after = retry_after
        self.billed = billed
        self.overloaded = overloaded


def refuse_contrast(request: Request, kind: str) -> None:
    """Refuse a request for contrastive decoding, for teachers that cannot do it.

    Raises:
        TeacherError: `fatal`, where the request has a `contrast`.
    """
    if request.contrast is not None:
        raise TeacherError(
            "fatal",
            f"`contrastive: true` wants contrastive decoding, which a teacher of kind {kind!r} cannot do; "
            "set it to false, or take a teacher of kind 'transformers'",
        )


def refuse_logprobs(request: Request, whose: str) -> None:
    """Refuse a request for log-probabilities, for teachers that have none.

    Raises:
        TeacherError: `fatal`, where the request wants some.
    """
    if request.sampling.top_logprobs:
        raise TeacherError(
            "fatal", f"`sampling.top_logprobs` wants log-probabilities, and {whose} gives none; set it to 0"
        )


class Teacher(Protocol):
    """Whoever writes completions.

    Attributes:
        kind: `procedural`, `openai`, `transformers` or `recorded`; stands in every card and log line.
        model: Name sent in requests.
    """

    kind: str
    model: str

    async def complete(self, request: Request) -> Completion:
        """Answer one request once, without retrying.

        Raises:
            TeacherError: The request got no completion.
        """
        ...

    async def check(self) -> None:
        """Fail before the first paid request if no request can succeed.

        Raises:
            TeacherError: Of kind `fatal`.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
