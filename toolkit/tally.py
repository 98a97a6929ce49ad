"""Where a collection stands while it runs, and what it did once it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields


@dataclass
class Tally:
    """Where a collection stands; one object, changed as it goes on.

    Attributes:
        total: Requests in all; None where unknown.
        done: Requests that need nothing more: cached, answered or failed.
        cached: Requests that needed no asking: the store had the answer, or the same request came before in this run.
        asked: Requests that were put to the teacher, however many tries each took.
        answered: Requests of this run whose completion is on disk.
        failed: Requests without a completion, those included that failed for good earlier and were not asked again.
        in_flight: Requests that the teacher has at this moment.
        window: Requests that may be in flight at this moment.
        prompt_tokens: Prompt tokens billed for this run's answers.
        completion_tokens: Completion tokens billed for this run's answers.
    """

    total: int | None = 0
    done: int = 0
    cached: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    window: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def since(self, before: Tally) -> CollectReport:
        """Return what was done since an earlier state of this tally."""
        names = [each.name for each in fields(CollectReport)]
        return CollectReport(**{name: getattr(self, name) - getattr(before, name) for name in names})


Progress = Callable[[Tally], None]
"""Called with the tally whenever it changes."""


@dataclass(frozen=True)
class CollectReport:
    """What one run did; the words are those of `Tally`."""

    asked: int = 0
    answered: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: CollectReport) -> CollectReport:
        return CollectReport(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
