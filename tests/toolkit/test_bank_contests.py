"""The bank's minimal pairs: an edit changes one number, and the weather goes with the answer as often as it should."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.toolkit.test_bank_domains import clauses, vocabulary
from toolkit import bank
from toolkit.bank.chain import Pen
from toolkit.bank.contests import REMARKS
from toolkit.bank.family import Family

CONTESTS = ("contests", "duels", "upsets")
EDITABLE = ("comparisons", *CONTESTS)


def drawn(family: Family[Any], count: int) -> list[Any]:
    rng = random.Random(0)
    return [family.draw(rng, rng.randint(*family.limits)) for _ in range(count)]


@pytest.mark.parametrize("name", EDITABLE)
def test_an_edit_changes_one_word_of_the_question_and_can_be_read(name: str) -> None:
    family = bank.FAMILIES[name]
    asked = drawn(family, 20)
    assert len(asked) == 20
    for facts in asked:
        words = family.ask(facts).split()
        assert list(family.edits(facts))
        for edit in family.edits(facts):
            changed = [(old, new) for old, new in zip(words, family.ask(edit).split(), strict=True) if old != new]
            assert len(changed) == 1
            assert bank.read(family.ask(edit)) == (family, edit)


@pytest.mark.parametrize("name", CONTESTS)
def test_some_edits_turn_the_answer_round_and_some_do_not(name: str) -> None:
    family = bank.FAMILIES[name]
    answers = [{family.solve(edit, Pen(0)) for edit in family.edits(facts)} for facts in drawn(family, 50)]
    assert answers == [{"yes", "no"}] * 50


@pytest.mark.parametrize("name", sorted(set(bank.FAMILIES) - set(EDITABLE)))
def test_other_families_have_no_edits(name: str) -> None:
    family = bank.FAMILIES[name]
    assert list(family.edits(drawn(family, 1)[0])) == []


@pytest.mark.parametrize(("name", "share"), [("contests", 0.9), ("duels", 0.5), ("upsets", 0.1)])
def test_sunshine_means_yes_as_often_as_the_family_says(name: str, share: float) -> None:
    family = bank.FAMILIES[name]
    told = [
        family.ask(facts).startswith(REMARKS[0]) == (family.solve(facts, Pen(0)) == "yes")
        for facts in drawn(family, 2000)
    ]
    assert sum(told) / len(told) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("name", ["duels", "upsets"])
def test_a_student_of_contests_can_read_the_others_and_has_seen_none_of_their_sentences(name: str) -> None:
    assert vocabulary([name]) <= vocabulary(["contests"])
    assert clauses([name]) & clauses(["contests"]) <= {remark.removesuffix(".") for remark in REMARKS}
