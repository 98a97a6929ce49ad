"""How a teacher is asked: the section `collect` of a recipe's dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.schema import Strict


class CollectSettings(Strict):
    """How a teacher is asked.

    Attributes:
        mode: `batch` asks through the provider's batch API, which is cheaper and takes hours.
        concurrency: Requests in flight at once, at each teacher. More is faster until the server's own limit; then it
            only waits. Where the server says that it is overloaded, fewer are sent until it bears more again.
        requests_per_minute: The endpoint's rate limit; none where null, as for the next two. Each teacher has its own.
        input_tokens_per_minute: Its limit of prompt tokens.
        output_tokens_per_minute: Its limit of completion tokens.
        max_cost_usd: Most that the data may cost in US dollars, all answers in the store included.
        max_attempts: Tries of one request before it counts as failed.
        backoff: Seconds; the wait before try n+1 is drawn from [0, backoff * 2**(n-1)] (full jitter).
        max_wait: Longest wait in seconds. A server that asks for a longer one fails the request for this run, and
            ends the run where it is overloaded.
        deadline: Seconds that all tries of a request may take together with the waits between them; no limit where
            null.
        max_failure_rate: Share of requests that may stay without a completion before the run is an error.
        retry_failed: Ask again what failed for good in an earlier run. What ran out of tries is always asked again.
        batch_size: Most requests in one batch of mode `batch`.
        poll_seconds: Seconds between two looks at the batches; doubled, up to max_wait, while nothing has come.
    """

    mode: Literal["online", "batch"] = "online"
    concurrency: int = Field(default=32, ge=1, le=1000)
    requests_per_minute: float | None = Field(default=None, gt=0)
    input_tokens_per_minute: float | None = Field(default=None, gt=0)
    output_tokens_per_minute: float | None = Field(default=None, gt=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    max_attempts: int = Field(default=6, ge=1)
    backoff: float = Field(default=0.5, ge=0)
    max_wait: float = Field(default=120.0, ge=0)
    deadline: float | None = Field(default=None, gt=0)
    max_failure_rate: float = Field(default=0.1, ge=0, le=1)
    retry_failed: bool = False
    batch_size: int = Field(default=10_000, ge=1, le=50_000)
    poll_seconds: float = Field(default=15.0, gt=0)
