from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dataset_builders.other_answers import NO_NUMBER, NO_OPTION, NO_OTHER, NO_WORD, OtherAnswers
from tests.scripted_answers import problem
from toolkit.answers import matches
from toolkit.problem import Problem


def drawn(one: Problem, *others: Problem, seed: int = 0) -> str | None:
    return OtherAnswers([one, *others], seed).draw(one)[0]


def seeds_of(one: Problem, *others: Problem) -> set[str | None]:
    """Return all that comes out under many seeds."""
    return {drawn(one, *others, seed=seed) for seed in range(60)}


@pytest.mark.parametrize(
    ("gold", "flipped"),
    [("yes", "no"), ("No", "Yes"), ("True", "False"), ("false", "true"), ("valid", "invalid"), ("Invalid", "Valid")],
)
def test_a_yes_or_no_is_flipped_in_its_own_spelling(gold: str, flipped: str) -> None:
    assert drawn(problem(answer=gold, kind="boolean")) == flipped


@pytest.mark.parametrize(
    ("gold", "near"),
    [
        ("18", {"8", "16", "17", "19", "20", "28"}),
        ("3", {"1", "2", "4", "5", "13"}),
        ("-3", {"-1", "-2", "-4", "-5", "-13"}),
        ("0", {"1", "2", "10"}),
        ("$1,000", {"$800", "$900", "$1,100", "$1,200", "$2,000"}),
        ("130000", {"120000", "128000", "129000", "131000", "132000", "140000"}),
        ("0.05", {"0.03", "0.04", "0.06", "0.07", "0.15"}),
        ("50%", {"40%", "48%", "49%", "51%", "52%", "60%"}),
    ],
)
def test_a_number_becomes_a_near_miss_of_its_own_form(gold: str, near: set[str]) -> None:
    assert seeds_of(problem(answer=gold, kind="number")) == near


@given(number=st.decimals(min_value=-10_000, max_value=10_000, places=2).map(str) | st.integers().map(str))
def test_a_near_miss_is_never_the_gold_number_and_never_of_another_sign(number: str) -> None:
    other = drawn(problem(answer=number, kind="number"))

    assert other is not None
    assert not matches(other, number, "number")
    assert other.startswith("-") == number.startswith("-")


def test_another_option_is_drawn_where_choices_are_known() -> None:
    choices = ("red", "green", "blue")

    assert seeds_of(problem(answer="(B)", kind="choice", choices=choices)) == {"(A)", "(C)"}
    assert seeds_of(problem(answer="B", kind="choice", choices=choices)) == {"A", "C"}
    assert seeds_of(problem(answer="green", kind="text", choices=choices)) == {"red", "blue"}


def test_letters_are_read_from_the_question_where_it_lists_them() -> None:
    listed = Problem("p", "t", "Which? (see Q)\nOptions:\n(A) red\n(B) green\n(C) blue", "(A)", kind="choice")

    assert seeds_of(listed) == {"(B)", "(C)"}


def test_a_text_becomes_another_gold_of_its_task() -> None:
    others = [problem(f"q{i}", answer=gold, kind="text") for i, gold in enumerate(("Rome", "Paris", "Bonn"))]
    elsewhere = problem("x", answer="seven", kind="text", task="other")

    assert seeds_of(problem(answer="paris", kind="text"), *others, elsewhere) == {"Rome", "Bonn"}


def test_golds_that_the_question_names_come_first_if_there_are_two() -> None:
    golds = [problem(f"q{i}", answer=name, kind="text") for i, name in enumerate(("Ben", "Dan", "Eva", "Finn", "Leo"))]
    named = Problem("p", "sums", "Dan beats Eva. Finn beats Dan. Who wins?", "Finn", kind="text")
    once = Problem("p", "sums", "Finn beats Dan. Leon does not play. Who wins?", "Finn", kind="text")

    assert seeds_of(named, *golds) == {"Dan", "Eva"}
    assert seeds_of(once, *golds) == {"Ben", "Dan", "Eva", "Leo"}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (problem(answer="(B)", kind="choice"), NO_OPTION),
        (problem(answer="three", kind="number"), NO_NUMBER),
        (problem(answer="maybe", kind="boolean"), NO_WORD),
        (problem(answer="Paris", kind="text"), NO_OTHER),
    ],
)
def test_where_there_is_no_other_answer_the_reason_is_given(one: Problem, reason: str) -> None:
    assert OtherAnswers([one, problem("q", answer=one.answer)], 0).draw(one) == (None, reason)


def test_what_is_drawn_depends_on_seed_and_id_but_not_on_the_order() -> None:
    problems = [problem(f"p{i}", answer=f"word{i % 40}", kind="text") for i in range(120)]
    shuffled = random.Random(1).sample(problems, len(problems))

    one, other = ({p.id: OtherAnswers(order, 3).draw(p) for p in order} for order in (problems, shuffled))
    assert one == other
    assert one != {p.id: OtherAnswers(problems, 4).draw(p) for p in problems}
    assert len({answer for answer, _ in one.values()}) > 20


def test_one_problem_more_changes_few_draws() -> None:
    problems = [problem(f"p{i}", answer=f"word{i}", kind="text") for i in range(100)]
    more = [*problems, problem("new", answer="new word", kind="text")]

    before, after = OtherAnswers(problems, 0), OtherAnswers(more, 0)
    changed = [p.id for p in problems if before.draw(p) != after.draw(p)]

    assert len(changed) <= 10
    assert {after.draw(p)[0] for p in problems if p.id in changed} <= {"new word"}


@settings(max_examples=40, deadline=None)  # mathematics is compared too, and its library is slow to load
@given(golds=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_whatever_the_golds_none_is_its_own_wrong_answer(golds: list[str], seed: int) -> None:
    problems = [problem(f"p{i}", answer=gold) for i, gold in enumerate(golds)]
    others = OtherAnswers(problems, seed)
    found = [(p, answer) for p in problems if (answer := others.draw(p)[0]) is not None]
    assume(found)

    assert not [p for p, answer in found if matches(answer, p.answer, p.kind)]
