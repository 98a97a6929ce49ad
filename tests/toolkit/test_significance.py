"""Errors, tests and corrections against their definitions, worked out the long way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.significance import (
    difference,
    discordant,
    estimate,
    holm,
    over_questions,
    over_seeds,
    paired_test,
    solved_by_most,
)

COUNTS = st.integers(0, 400)
P_VALUES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1)


# --- errors


def each_alone(questions: int) -> range:
    return range(questions)


def test_over_seeds_the_error_is_that_of_their_mean() -> None:
    seeds = [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]  # accuracies 0.2, 0.6, 1: s = sqrt(0.32 / 2)
    told = estimate(seeds, each_alone(5))
    assert (told.mean, told.over) == (pytest.approx(0.6), "seeds")
    assert told.standard_error == pytest.approx(0.4 / math.sqrt(3))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_error_over_seeds_is_numpys(accuracies: list[float]) -> None:
    expected = np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))
    assert over_seeds(accuracies).standard_error == pytest.approx(expected, abs=1e-12)


def test_of_one_seed_the_error_is_the_binomial_one() -> None:
    told = estimate([[1] * 20 + [0] * 80], each_alone(100))
    assert (told.mean, told.over) == (0.2, "questions")
    assert told.standard_error == pytest.approx(0.04)


OUTCOMES = st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.booleans()), min_size=1, max_size=9)


@given(OUTCOMES)
def test_the_error_over_pairs_is_that_of_the_sandwich_estimator(outcomes: list[tuple[str, bool, bool]]) -> None:
    """The variance of a mean whose deviations are summed by cluster: 1' Z Z' 1 / n^2, Z the clusters' residuals."""
    clusters, values, _ = zip(*outcomes, strict=True)
    residuals = np.array(values, dtype=float) - np.mean(values)
    same = np.array([[one == other for other in clusters] for one in clusters])
    expected = math.sqrt(max(0.0, residuals @ same @ residuals) / len(values) ** 2)
    assert over_questions(values, clusters).standard_error == pytest.approx(expected, abs=1e-9)


def test_answering_both_of_a_pair_alike_has_the_error_of_half_as_many_questions() -> None:
    alike = over_questions([1, 1, 1, 1, 0, 0, 1, 1], "aabbccdd")
    assert alike.standard_error == pytest.approx(over_questions([1, 1, 0, 1], "abcd").standard_error)
    apart = over_questions([1, 0, 1, 0, 0, 1, 1, 0], "aabbccdd")
    assert apart.standard_error == 0.0  # half of every pair, whatever the pairs are


def test_the_error_over_pairs_is_how_far_accuracies_scatter() -> None:
    """400 draws of 60 pairs both of which are mostly missed or solved together."""
    rng = np.random.default_rng(0)
    both = rng.random((400, 60, 1)) < 0.5
    values = np.where(rng.random((400, 60, 2)) < 0.9, both, ~both).reshape(400, 120)
    clusters = [place // 2 for place in range(120)]
    told = [over_questions(draw.tolist(), clusters).standard_error for draw in values]
    naive = [over_questions(draw.tolist(), each_alone(120)).standard_error for draw in values]
    scatter = values.mean(axis=1).std()
    assert np.mean(told) == pytest.approx(scatter, rel=0.08)
    assert np.mean(naive) < 0.85 * scatter


def test_a_difference_is_taken_question_by_question() -> None:
    """Two students who miss the same questions differ by less than their accuracies scatter."""
    told = difference([[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 0, 0, 0]], each_alone(4))
    assert (told.mean, told.over) == (0.125, "questions")  # 0, 1/2, 0, 0
    assert told.standard_error == pytest.approx(math.sqrt(3 * 0.125**2 + 0.375**2) / 4)


# --- questions


@pytest.mark.parametrize(
    ("seeds", "solved"),
    [([1], True), ([0], False), ([1, 0], False), ([1, 1], True), ([1, 0, 1], True), ([0, 0, 1], False)],
    ids=str,
)
def test_a_question_is_solved_by_more_than_half_of_the_seeds(seeds: list[int], solved: bool) -> None:
    assert solved_by_most([[bool(seed)] for seed in seeds]) == [solved]


def test_discordant_questions_are_those_that_one_alone_solved() -> None:
    one, other = [True, True, True, False, False], [True, False, False, True, False]
    assert discordant(one, other) == (2, 1)


def test_answers_to_different_numbers_of_questions_are_not_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        discordant([True], [True, False])


# --- the paired test


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the p value of as many questions that one student alone solved, each a cluster of its own."""
    n = only_one + only_other
    one = [place < only_one for place in range(n)]
    return paired_test(one, [not solved for solved in one], each_alone(n))


@pytest.mark.parametrize(
    ("only_one", "only_other", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (4, 1, 12 / 32), (3, 3, 1.0)]
)
def test_p_values_worked_out_by_hand(only_one: int, only_other: int, p: float) -> None:
    assert mcnemar(only_one, only_other) == p


@pytest.mark.parametrize("n", range(1, 10))
def test_without_pairs_p_is_mcnemars(n: int) -> None:
    for b in range(n + 1):
        tail = sum(math.comb(n, k) for k in range(min(b, n - b) + 1))
        assert mcnemar(b, n - b) == min(1.0, 2 * tail / 2**n)


@given(COUNTS, COUNTS)
def test_p_does_not_know_which_student_comes_first(b: int, c: int) -> None:
    assert mcnemar(b, c) == mcnemar(c, b)
    assert 0 < mcnemar(b, c) <= 1


def test_p_is_that_of_scipys_binomial_test() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest

    @given(COUNTS, COUNTS)
    def check(b: int, c: int) -> None:
        expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
        assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)

    check()


@given(OUTCOMES)
def test_p_is_the_share_of_all_exchanges_of_whole_clusters_that_are_no_less_extreme(
    outcomes: list[tuple[str, bool, bool]],
) -> None:
    clusters, one, other = zip(*outcomes, strict=True)
    names = sorted(set(clusters))
    extreme = 0
    observed = abs(sum(one) - sum(other))
    for changes in itertools.product((False, True), repeat=len(names)):
        change = dict(zip(names, changes, strict=True))
        sides = [(b, a) if change[name] else (a, b) for name, a, b in outcomes]
        extreme += abs(sum(a for a, _ in sides) - sum(b for _, b in sides)) >= observed
    assert paired_test(one, other, clusters) == pytest.approx(extreme / 2 ** len(names))


def students(rng: Any, seeds: int, questions: int, scatter: float, pairs: bool = False) -> list[bool]:
    """Return what most seeds of a recipe solve; each seed is better or worse at all questions by so many logits."""
    ability = rng.normal(size=questions)
    if pairs:
        ability = np.repeat(3 * rng.normal(size=questions // 2), 2)
    solved = np.zeros(questions)
    for _ in range(seeds):
        solved += rng.random(questions) < 1 / (1 + np.exp(-(ability + rng.normal(0, scatter))))
    most: list[bool] = (2 * solved > seeds).tolist()
    return most


def found_falsely(seed: int, clusters: Sequence[int], **how: Any) -> float:
    """Return how often two equal recipes come out different at 5 %."""
    rng = np.random.default_rng(seed)
    questions = len(clusters)
    trials = [paired_test(*(students(rng, questions=questions, **how) for _ in "ab"), clusters) for _ in range(500)]
    return sum(p < 0.05 for p in trials) / len(trials)


def test_of_equal_students_no_more_than_one_in_twenty_is_told_apart() -> None:
    assert found_falsely(0, range(200), seeds=3, scatter=0.0) <= 0.05


def test_where_pairs_are_missed_together_it_is_their_clusters_that_keep_to_one_in_twenty() -> None:
    of_pairs = [place // 2 for place in range(200)]
    assert found_falsely(1, of_pairs, seeds=1, scatter=0.0, pairs=True) <= 0.06
    assert found_falsely(1, range(200), seeds=1, scatter=0.0, pairs=True) > 0.08


def test_seeds_that_scatter_are_told_apart_more_often_than_p_says() -> None:
    """Why the page says that p is over questions only."""
    assert found_falsely(2, range(200), seeds=3, scatter=0.2) > 0.1


# --- Holm


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert list(adjusted) == ["a", "b", "c"]
    assert adjusted == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(p_values: dict[str, float]) -> None:
    """A hypothesis falls where every intersection that it takes part in does."""
    expected = {}
    for name in p_values:
        others = [other for other in p_values if other != name]
        groups = [[name, *group] for size in range(len(others) + 1) for group in itertools.combinations(others, size)]
        expected[name] = max(min(1.0, len(group) * min(p_values[one] for one in group)) for group in groups)
    assert holm(p_values) == pytest.approx(expected)


def test_nothing_to_correct() -> None:
    assert holm({}) == {}
