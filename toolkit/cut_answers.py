"""Sees when a teacher's answers are all cut off by length, so that the rest of a build is not paid for in vain.

Every cut answer is rejected. One is data; of the first sixteen, all cut, not one in a million builds would be worth its
price where every second answer comes to its end. Asks nobody, and stops nothing by itself.
"""

from __future__ import annotations

from typing import Protocol

from toolkit.teachers.finish_reasons import LENGTH
from toolkit.teachers.protocol import Completion, Request

MOST_CUT = 16
"""Answers that are cut, from the first one on, after which a run is stopped."""


class Uncut(Protocol):
    """What is asked of the store: whether an earlier run had answers that were not cut."""

    def has_uncut(self, model: str, max_tokens: int) -> bool:
        """Whether a completion of this model with so many `max_tokens` came to its end."""
        ...


class CutAnswers:
    """Counts the answers of one run, for each model and `max_tokens` by itself.

    A later round asks again for what was cut, and a later run for what an earlier one left: those are the hard
    questions, and say nothing while others of the same teacher have come to their ends, in this run or in the store.
    """

    def __init__(self, store: Uncut) -> None:
        self._store = store
        self._cut: dict[tuple[str, int], int | None] = {}  # None once one came to its end

    def note(self, request: Request, completion: Completion) -> str | None:
        """Count an answer that is in the store; return why to stop, None where there is no reason to."""
        key = request.model, request.sampling.max_tokens
        number = self._cut.get(key, 0)
        if number is None:
            return None
        number = number + 1 if completion.finish_reason == LENGTH else None
        if number == MOST_CUT and self._store.has_uncut(*key):
            number = None
        self._cut[key] = number
        if number is None or number < MOST_CUT:
            return None
        return (
            f"the first {MOST_CUT} answers were all cut off by length, at sampling.max_tokens {key[1]} or the server's "
            "own limit, and a cut answer is of no use: raise dataset.config.sampling.max_tokens, or let it think less "
            "(dataset.config.teacher.request)"
        )
