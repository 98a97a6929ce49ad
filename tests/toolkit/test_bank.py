"""The procedural bank: what it draws it can read back, and its mistakes are real, labelled and small."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from toolkit import bank
from toolkit.answers import matches
from toolkit.bank.chain import Pen, Slip, write_chain, write_chain_to, write_wrong_chain
from toolkit.bank.dates import DAYS
from toolkit.bank.family import Family, Template

FAMILIES = tuple(bank.FAMILIES.values())
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
seeds = st.integers(min_value=0, max_value=2**32)


def drawn(family: Family[Any], count: int, seed: int = 0) -> Iterator[Any]:
    """Draw facts at the family's default difficulty."""
    rng = random.Random(seed)
    return (family.draw(rng, rng.randint(*family.steps)) for _ in range(count))


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def test_the_bank_has_four_families_to_train_on_and_three_out_of_domain() -> None:
    assert len(bank.IN_DOMAIN) >= 4
    assert len(bank.OUT_OF_DOMAIN) >= 3


def test_the_bank_has_at_least_three_kinds_of_answers() -> None:
    assert len({family.kind for family in FAMILIES}) >= 3


@every_family
@given(seed=seeds)
@settings(max_examples=40, deadline=None)
def test_reading_a_question_gives_back_the_facts_it_was_asked_from(family: Family[Any], seed: int) -> None:
    rng = random.Random(seed)
    facts = family.draw(rng, rng.randint(*family.limits))
    assert bank.read(family.ask(facts)) == (family, facts)


@every_family
def test_a_question_is_read_by_its_own_family_alone(family: Family[Any]) -> None:
    asked = list(drawn(family, 50))
    assert len(asked) == 50
    for facts in asked:
        readers = [other.name for other in FAMILIES if other.read(family.ask(facts)) is not None]
        assert readers == [family.name]


@given(text=st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_a_text_that_is_no_question_of_the_bank_is_not_read(text: str) -> None:
    assert bank.read(text) is None


@every_family
def test_a_question_with_a_broken_clause_is_not_read(family: Family[Any]) -> None:
    question = family.ask(next(drawn(family, 1)))
    assert bank.read(question.replace(" ", " maybe ", 3)) is None


@every_family
def test_the_number_of_steps_is_the_difficulty(family: Family[Any]) -> None:
    low, high = family.limits
    rng = random.Random(0)
    lengths = [
        sum(len(words(write_chain(partial(family.solve, family.draw(rng, steps)), 0).rationale)) for _ in range(30))
        for steps in (low, high)
    ]
    assert lengths[0] < lengths[1]


@every_family
def test_generate_gives_a_question_and_its_right_answer(family: Family[Any]) -> None:
    question, answer = family.generate(random.Random(3))
    facts = family.read(question)
    assert facts is not None
    assert write_chain(partial(family.solve, facts), 0).answer == answer


@every_family
def test_every_phrasing_and_wording_occurs(family: Family[Any]) -> None:
    phrasings = {facts.phrasing for facts in drawn(family, 100)}
    facts = next(drawn(family, 1))
    rationales = {write_chain(partial(family.solve, facts), i).rationale for i in range(family.wordings)}
    assert len(phrasings) >= 2
    assert len(rationales) == family.wordings >= 2


@every_family
@given(seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_wrong_chain_ends_in_another_answer_and_names_its_mistake(family: Family[Any], seed: int) -> None:
    rng = random.Random(seed)
    solve = partial(family.solve, family.draw(rng, rng.randint(*family.steps)))
    wording = rng.randrange(family.wordings)
    right, wrong = write_chain(solve, wording), write_wrong_chain(solve, wording, rng)
    assert wrong is not None
    assert wrong.mistake in ("calculation", "knowledge", "logical")
    assert not matches(wrong.answer, right.answer, family.kind)


@every_family
def test_a_wrong_chain_is_the_right_one_but_for_the_mistake_and_its_consequences(family: Family[Any]) -> None:
    rng = random.Random(0)
    shares = []
    for facts in drawn(family, 60):
        solve = partial(family.solve, facts)
        right, wrong = write_chain(solve, 0), write_wrong_chain(solve, 0, rng)
        assert wrong is not None
        sentences = [chain.rationale.split(". ") for chain in (right, wrong)]
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*sentences, strict=False)))
        assert len(sentences[0]) == len(sentences[1])
        assert same < len(sentences[0])
        shares.append(Levenshtein.normalized_distance(words(right.rationale), words(wrong.rationale)))
    assert sum(shares) / len(shares) < 0.35


def test_a_wrong_sum_is_carried_through_the_later_steps() -> None:
    family = bank.FAMILIES["chained_arithmetic"]
    facts = family.read(
        "Start with 8. Step one: add 4. Step two: subtract 3. Step three: double it. What is the result?"
    )
    pen = Pen(0, Slip(place=1, alternative=1))
    assert family.solve(facts, pen) == "20"
    assert "8 + 4 = 13." in pen.sentences[1]
    assert "13 - 3 = 10." in pen.sentences[2]
    assert "10 * 2 = 20." in pen.sentences[3]


@every_family
def test_a_chain_goes_wrong_towards_any_answer_of_the_question(family: Family[Any]) -> None:
    led = 0
    for facts in drawn(family, 30):
        solve = partial(family.solve, facts)
        right = write_chain(solve, 1)
        near = [str(int(right.answer) + miss) for miss in (-2, -1, 1, 2, 10)] if family.kind == "number" else []
        named = {"number": near, "boolean": ("yes", "no")}.get(family.kind) or getattr(facts, "people", DAYS)
        for answer in named:
            wrong = write_chain_to(answer, solve, 1)
            if answer == right.answer or answer.startswith("-"):
                continue
            assert wrong is not None
            assert wrong.answer == answer
            assert wrong.mistake in ("calculation", "knowledge", "logical")
            led += 1
    assert led >= 30


def test_a_chain_that_is_led_astray_is_right_for_as_long_as_it_can_be() -> None:
    family = bank.FAMILIES["chained_arithmetic"]
    facts = family.read(
        "Start with 8. Step one: add 4. Step two: subtract 3. Step three: double it. What is the result?"
    )
    wrong = write_chain_to("19", partial(family.solve, facts), 0)
    assert wrong is not None
    assert wrong.rationale.endswith("Step two: subtract 3, so 12 - 3 = 9. Step three: double, so 9 * 2 = 19.")


@every_family
def test_an_answer_that_no_two_mistakes_reach_has_no_chain(family: Family[Any]) -> None:
    assert write_chain_to("4711", partial(family.solve, next(drawn(family, 1))), 0) is None


@every_family
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_every_sentence_of_a_chain_answers_a_sub_question_that_knows_no_mistake(family: Family[Any], seed: int) -> None:
    rng = random.Random(seed)
    solve = partial(family.solve, family.draw(rng, rng.randint(*family.limits)))
    right, wrong = write_chain(solve, 0), write_wrong_chain(solve, 0, rng)
    assert wrong is not None
    for chain in (right, wrong):
        assert " ".join(answer for _, answer in chain.steps) == chain.rationale
        assert len(chain.steps) >= 2
    assert [question for question, _ in right.steps] == [question for question, _ in wrong.steps]
    assert all(question.endswith("?") and "{" not in question for question, _ in right.steps)


@every_family
def test_sub_questions_of_a_chain_differ_from_each_other_and_from_wording_to_wording(family: Family[Any]) -> None:
    solve = partial(family.solve, next(drawn(family, 1)))
    asked = [[question for question, _ in write_chain(solve, i).steps] for i in range(family.wordings)]
    assert all(len(set(questions)) == len(questions) for questions in asked)
    assert not set(asked[0]) & set(asked[1])


def test_all_three_kinds_of_mistakes_occur() -> None:
    rng = random.Random(0)
    made = {
        wrong.mistake
        for family in FAMILIES
        for facts in drawn(family, 40)
        if (wrong := write_wrong_chain(partial(family.solve, facts), 0, rng))
    }
    assert made == {"calculation", "knowledge", "logical"}


@every_family
def test_no_answer_can_be_guessed_most_of_the_time(family: Family[Any]) -> None:
    answers = [write_chain(partial(family.solve, facts), 0).answer for facts in drawn(family, 300)]
    most = max(answers.count(answer) for answer in set(answers)) / len(answers)
    assert most < (0.62 if family.kind == "boolean" else 0.3)


@every_family
def test_question_and_chain_are_short_enough_for_a_small_student(family: Family[Any]) -> None:
    lengths = [
        len(words(family.ask(facts))) + len(words(write_chain(partial(family.solve, facts), i % 2).rationale))
        for i, facts in enumerate(drawn(family, 100))
    ]
    assert max(lengths) <= 125


def test_a_template_reads_back_what_it_was_filled_with_and_nothing_else() -> None:
    template = Template("{a} gives {n} (of {b}) to {a}.")
    assert template.read(template.fill(a="Ben", n=3, b="x y")) == {"a": "Ben", "n": "3", "b": "x y"}
    assert template.read("Ben gives 3 (of x) to Mia.") is None
