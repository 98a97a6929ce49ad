"""How sure a difference between two students is: errors over seeds and questions, an exact paired test, its correction.

Questions that are edits of one another are no independent draws: whoever misreads one misreads the other. So both the
errors and the test take clusters of questions, a question of no pair being one of its own. Numbers in, numbers out;
knows no recipe and no file.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and how far it may be off.

    Attributes:
        mean: Of accuracies or other shares between 0 and 1, or of their differences.
        standard_error: Of the mean.
        over: What the error was taken over: `seeds` (other seeds, same questions) or, where there is one seed alone,
            `questions` (other questions, same student).
    """

    mean: float
    standard_error: float
    over: Literal["seeds", "questions"]


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """Return the cluster of each judged row: what it shares with its edits, or its own place where it has none."""
    return [row.get("pair") or place for place, row in enumerate(rows)]


def over_questions(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Return the mean over questions and its standard error, robust to whatever goes on within a cluster.

    The error is sqrt(sum_g (sum_{i in g} (v_i - mean))^2) / n. Where every question is a cluster of its own and values
    are 0 and 1 that is the binomial sqrt(p (1 - p) / n).

    Args:
        values: One per question, at least one.
        clusters: Cluster of each question.
    """
    mean = statistics.fmean(values)
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    return Estimate(mean, math.sqrt(math.fsum(one * one for one in sums.values()) / len(values) ** 2), "questions")


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of at least two seeds and its standard error, s / sqrt(k), k - 1 in the denominator of s^2."""
    return Estimate(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)), "seeds")


def estimate(seeds: Sequence[Sequence[float]], clusters: Sequence[Hashable]) -> Estimate:
    """Return the mean over seeds and questions: with its error over seeds or, of one seed, over questions.

    Args:
        seeds: By seed, the value of each question, shape (seeds, questions).
        clusters: Cluster of each question.
    """
    if len(seeds) == 1:
        return over_questions(seeds[0], clusters)
    return over_seeds([statistics.fmean(one) for one in seeds])


def difference(
    these: Sequence[Sequence[float]], others: Sequence[Sequence[float]], clusters: Sequence[Hashable]
) -> Estimate:
    """Return how much better these seeds are than those, question by question, with the error over questions.

    Args:
        these: By seed, the value of each question.
        others: The same of what is subtracted.
        clusters: Cluster of each question.
    """
    means = [
        statistics.fmean(this) - statistics.fmean(other)
        for this, other in zip(zip(*these, strict=True), zip(*others, strict=True), strict=True)
    ]
    return over_questions(means, clusters)


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


def paired_test(one: Sequence[bool], other: Sequence[bool], clusters: Sequence[Hashable]) -> float:
    """Return the exact two-sided p value of the paired test in which clusters change sides as a whole.

    Where two students are equally good, either of them might as well have given all the answers to a cluster that the
    other gave. p is the share of the 2^G assignments of G clusters in which the numbers of questions that one of the
    two alone solved differ by no less than they do. Without clusters that is McNemar's exact test: of n = b + c
    questions that exactly one solved p = min(1, 2 P(X <= min(b, c))), X binomial(n, 1/2).

    Args:
        one: Whether each question was solved by one student.
        other: The same of the other.
        clusters: Cluster of each question.
    """
    sums: Counter[Hashable] = Counter()
    for this, that, cluster in zip(one, other, clusters, strict=True):
        sums[cluster] += this - that
    observed = abs(sum(sums.values()))
    if not observed:
        return 1.0
    spread = np.ones(1)  # probability of each sum, from the lowest to the highest; 0 stands in the middle
    for size, count in sorted(Counter(abs(one) for one in sums.values() if one).items()):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = _binomial(count)
        spread = np.convolve(spread, of_size)
    middle = len(spread) // 2
    return min(1.0, 2 * float(spread[: middle - observed + 1].sum()))


def _binomial(n: int) -> list[float]:
    """Return the probability of 0 to n heads of n fair coins."""
    ways = [1]
    for k in range(n):
        ways.append(ways[-1] * (n - k) // (k + 1))
    return [way / 2**n for way in ways]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p values: below alpha, the chance of even one false finding among them is below alpha.

    That holds as far as it holds of the p values themselves, which are over questions and know nothing of other seeds.

    The k-th smallest of m is multiplied by m - k + 1, and never falls below the one before it.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
