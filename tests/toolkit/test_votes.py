"""The vote over answers got in several ways: whatever their order, without those that are none."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.votes import TOLERANCE, Ballot, agree, alike, majority_vote, vote

# Near misses, so that likeness chains up: 1000 ~ 1001 ~ 1002, and 1000 is not like 1002.
NUMBERS = [
    "0",
    "-0",
    "0.0",
    "-3",
    "3",
    "10",
    "10.0",
    "10.005",
    "10.02",
    "1000",
    "1001",
    "1002",
    "1003.5",
    "1/3",
    "0.333",
]
KINDS = {"number": NUMBERS, "boolean": ["yes", "no", "True", "false"], "text": ["Monday", "monday", "Tuesday", ""]}


@st.composite
def elections(draw: st.DrawFn) -> tuple[str, list[Ballot]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    ballot = st.builds(Ballot, st.sampled_from(["cot", "pot"]), st.sampled_from([*KINDS[kind], None]))
    return kind, draw(st.lists(ballot, max_size=9))


@given(elections(), st.sampled_from(["cot", "pot", None]), st.randoms(use_true_random=False))
def test_the_order_of_the_ballots_makes_no_difference(election: tuple[str, list[Ballot]], prefer: str, rng) -> None:  # type: ignore[no-untyped-def]
    kind, ballots = election
    shuffled = rng.sample(ballots, len(ballots))
    assert vote(ballots, kind, prefer=prefer) == vote(shuffled, kind, prefer=prefer)
    assert agree(ballots, kind) == agree(shuffled, kind)


@given(elections(), st.lists(st.sampled_from(["cot", "pot"])), st.sampled_from(["cot", "pot"]))
def test_none_never_votes(election: tuple[str, list[Ballot]], ways: list[str], prefer: str) -> None:
    kind, ballots = election
    silent = [Ballot(way, None) for way in ways]
    assert vote([*silent, *ballots], kind, prefer=prefer) == vote(ballots, kind, prefer=prefer)
    assert not (silent and agree([*ballots, *silent], kind))


@given(elections(), st.sampled_from(["cot", "pot"]))
def test_who_is_elected_was_proposed_and_an_exact_majority_is_never_outvoted(
    election: tuple[str, list[Ballot]], prefer: str
) -> None:
    kind, ballots = election
    elected = vote(ballots, kind, prefer=prefer)
    proposed = [ballot.answer for ballot in ballots if ballot.answer]  # an empty text says nothing
    assert (elected is None) == (not proposed)
    assert elected is None or elected in proposed
    for answer, count in Counter(proposed).items():
        if 2 * count > len(proposed):
            assert alike(answer, elected, kind)


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=8), st.integers(-3000, 3000))
def test_numbers_are_alike_within_a_thousandth_of_the_reference(reference: Fraction, millionths: int) -> None:
    """Held against exact arithmetic on the texts' own values."""
    near = reference + reference * Fraction(millionths, 10**6)
    texts = [f"{float(value):.9f}" for value in (near, reference)]
    u, v = (Fraction(text) for text in texts)
    assert alike(texts[0], texts[1], "number") == (abs(u - v) <= TOLERANCE * max(1, abs(v)))


@pytest.mark.parametrize(
    ("answer", "reference", "is_alike"),
    [
        *(("10009", "10000", True), ("10000", "10011", False), ("0.0005", "0", True), ("0.0011", "0", False)),
        *(
            ("1001", "1000", True),
            ("1001.001", "1000", False),
            ("1000", "1001.0005", True),
            ("1001.0005", "1000", False),
        ),
        *(("3", "no number", False), ("no number", "3", False)),
        *(("0", "-0", True), ("-3", "3", False), ("33.33", "33.333333", True), (None, "3", False), ("3", None, False)),
        (None, None, False),
    ],
)
def test_likeness_of_numbers(answer: str | None, reference: str | None, is_alike: bool) -> None:
    assert alike(answer, reference, "number") == is_alike


@pytest.mark.parametrize(
    ("answer", "reference", "kind"), [("yes", "True", "boolean"), ("(b)", "B", "choice"), ("monday", "Monday", "text")]
)
def test_other_kinds_are_alike_as_the_matcher_has_it(answer: str, reference: str, kind: str) -> None:
    assert alike(answer, reference, kind)


def ballots(cots: str, pots: str) -> list[Ballot]:
    return [Ballot(way, word) for way, words in (("cot", cots), ("pot", pots)) for word in words.split()]


@pytest.mark.parametrize(
    ("cots", "pots", "prefer", "elected"),
    [
        ("8 8 5", "5", "cot", "5"),  # two each; 5 is both ways'
        ("8 8", "5 5", "pot", "5"),  # two each, of one way each: the preferred one's
        ("8 8", "5 5", "cot", "8"),
        ("8 5 5", "8 5 8", "pot", "8"),  # three each, both of both ways: the preferred way says 8 more often
        ("8 5 5", "8 5 8", "cot", "5"),
        ("0 0", "5", "pot", "0"),  # zero is an answer
        ("-4 -4", "4", "pot", "-4"),  # and so is a negative number
        ("33.33 7", "33.333333", "pot", "33.33"),
    ],
)
def test_ties_go_to_both_ways_then_to_the_preferred_one(cots: str, pots: str, prefer: str, elected: str) -> None:
    assert vote(ballots(cots, pots), "number", prefer=prefer) == elected


def test_likeness_is_not_transitive_and_groups_are_made_by_the_most_frequent_first() -> None:
    """1001 is like both of its neighbours, which are not alike; the more frequent one gets it."""
    found = [Ballot("cot", text) for text in ("1000", "1001", "1002.1", "1002.1")]
    assert not alike("1000", "1002.1", "number")
    assert vote(found, "number") == "1002.1"


def test_an_option_s_text_and_its_letter_are_one_answer() -> None:
    said = [Ballot("cot", "(A)"), Ballot("cot", "Paris"), Ballot("pot", "(B)")]
    assert vote(said, "choice", ["Rome", "Paris"]) == "(B)"
    assert agree(said[1:], "choice", ["Rome", "Paris"])
    assert not agree(said[:2], "choice", ["Rome", "Paris"])


def test_of_several_spellings_the_shortest_is_elected() -> None:
    assert vote(ballots("1.50 1.5000", "3/2"), "number") == "3/2"


def test_of_answers_with_as_many_votes_the_smallest_comes_first() -> None:
    assert vote(ballots("7 5", "6"), "number") == "5"


def test_all_have_to_answer_and_to_say_the_same_to_agree() -> None:
    assert agree(ballots("8", "8.0"), "number")
    assert not agree(ballots("8", "9"), "number")
    assert not agree([Ballot("cot", "8"), Ballot("pot", None)], "number")
    assert not agree([Ballot("cot", None), Ballot("pot", None)], "number")


def test_the_majority_counts_equal_answers_together() -> None:
    assert majority_vote(["9", "10", "10.0"], "number") == "10"


def test_samples_without_an_answer_have_no_vote() -> None:
    assert majority_vote([None, None, "(B)"], "choice") == "(B)"
    assert majority_vote([None, None], "choice") is None


def test_a_tie_goes_to_the_answer_seen_first() -> None:
    assert majority_vote(["yes", "no", "no", "yes"], "boolean") == "yes"
