"""Errors, tests and corrections against their definitions, worked out the long way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.significance import discordant, estimate, holm, mcnemar, solved_by_most

COUNTS = st.integers(0, 400)
P_VALUES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1)


# --- errors


def test_over_seeds_the_error_is_that_of_their_mean() -> None:
    told = estimate([0.2, 0.5, 0.8], questions=100)
    assert (told.mean, told.over) == (0.5, "seeds")
    assert told.standard_error == pytest.approx(0.3 / math.sqrt(3))  # deviations -0.3, 0, 0.3: s = sqrt(0.18 / 2)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_error_over_seeds_is_numpys(accuracies: list[float]) -> None:
    expected = np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))
    assert estimate(accuracies, 10).standard_error == pytest.approx(expected, abs=1e-12)


def test_of_one_seed_the_error_is_the_binomial_one() -> None:
    told = estimate([0.2], questions=100)
    assert (told.mean, told.over) == (0.2, "questions")
    assert told.standard_error == pytest.approx(0.04)


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


# --- McNemar


@pytest.mark.parametrize(
    ("only_one", "only_other", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (4, 1, 12 / 32), (3, 3, 1.0)]
)
def test_p_values_worked_out_by_hand(only_one: int, only_other: int, p: float) -> None:
    assert mcnemar(only_one, only_other) == p


@pytest.mark.parametrize("n", range(1, 10))
def test_p_is_the_share_of_all_outcomes_that_are_no_less_extreme(n: int) -> None:
    outcomes = [sum(signs) for signs in itertools.product((0, 1), repeat=n)]
    for b in range(n + 1):
        extreme = sum(abs(2 * heads - n) >= abs(2 * b - n) for heads in outcomes)
        assert mcnemar(b, n - b) == extreme / 2**n


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


# --- Holm


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert list(adjusted) == ["a", "b", "c"]
    assert adjusted == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(p_values: dict[str, float]) -> None:
    """A hypothesis falls where every intersection that it takes part in does."""
    adjusted = holm(p_values)
    for name in p_values:
        others = [other for other in p_values if other != name]
        groups = [[name, *group] for size in range(len(others) + 1) for group in itertools.combinations(others, size)]
        expected = max(min(1.0, len(group) * min(p_values[one] for one in group)) for group in groups)
        assert adjusted[name] == pytest.approx(expected)


def test_nothing_to_correct() -> None:
    assert holm({}) == {}
