"""How sure a difference between two students is: errors over seeds, an exact paired test by question, its correction.

Numbers in, numbers out; knows no recipe and no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean accuracy and how far it may be off.

    Attributes:
        mean: Between 0 and 1.
        standard_error: Of the mean.
        over: What the error was taken over: `seeds` (other seeds, same questions) or, where there is one seed alone,
            `questions` (other questions, same student).
    """

    mean: float
    standard_error: float
    over: Literal["seeds", "questions"]


def estimate(accuracies: Sequence[float], questions: int) -> Estimate:
    """Return the mean over seeds and its standard error.

    Args:
        accuracies: One per seed, at least one.
        questions: How many questions each of them is a share of.

    Returns:
        The error is s / sqrt(k) with s the standard deviation of the k seeds (k - 1 in its denominator), and for one
        seed the binomial sqrt(p (1 - p) / questions).
    """
    mean = statistics.fmean(accuracies)
    if len(accuracies) == 1:
        return Estimate(mean, math.sqrt(mean * (1 - mean) / questions), "questions")
    return Estimate(mean, statistics.stdev(accuracies) / math.sqrt(len(accuracies)), "seeds")


def solved_by_most(seeds: Sequence[Sequence[bool]]) -> list[bool]:
    """Return for each question whether more than half of the seeds solved it; half of them is not enough.

    Args:
        seeds: By seed, whether each question was solved, shape (seeds, questions).
    """
    return [2 * sum(question) > len(seeds) for question in zip(*seeds, strict=True)]


def discordant(one: Sequence[bool], other: Sequence[bool]) -> tuple[int, int]:
    """Return how many questions `one` alone solved, and how many `other` alone did."""
    pairs = list(zip(one, other, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return McNemar's exact two-sided p value.

    Of n questions that exactly one of two students solved, each is equally likely to be solved by either where the
    students are equally good: p = min(1, 2 P(X <= min(b, c))) with X binomial(n = b + c, 1/2).

    Args:
        only_one: b, questions that one student alone solved.
        only_other: c, questions that the other alone solved.
    """
    n = only_one + only_other
    tail = sum(math.comb(n, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p values: below alpha, the chance of even one false finding among them is below alpha.

    The k-th smallest of m is multiplied by m - k + 1, and never falls below the one before it.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
