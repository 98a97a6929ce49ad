"""Pairs and the gap: by hand, and what holds of them whatever the rows are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.decode_procedures import Answered, Said
from toolkit.decoding import Generation
from toolkit.problem import Problem
from toolkit.robustness import domain_gap, gap_over_seeds, pairs_over_seeds, robustness_table, score_pairs
from toolkit.scores import judge
from toolkit.significance import Estimate


def row(pair: str, gold: str, voted: str | None, **more: Any) -> dict[str, Any]:
    return {"pair": pair, "gold": gold, "voted": voted, "kind": "boolean", "sample": 0, "solved": gold == voted, **more}


def rows(*answers: Sequence[str | None]) -> list[dict[str, Any]]:
    """Return pairs, of which the first question is to be answered yes and the second no."""
    return [
        row(f"p{i}", gold, voted)
        for i, one in enumerate(answers)
        for gold, voted in zip(("yes", "no"), one, strict=True)
    ]


def test_consistency_and_flips_by_hand() -> None:
    found = score_pairs(rows(("yes", "no"), ("yes", "yes"), ("no", "yes"), ("yes", None), (None, None)))

    assert found is not None
    assert (found.pairs, found.consistency, found.flip_rate) == (5, 1 / 5, 2 / 5)
    assert found.consistency_error == pytest.approx((0.2 * 0.8 / 5) ** 0.5)
    assert found.flip_rate_error == pytest.approx((0.4 * 0.6 / 5) ** 0.5)


def test_two_questions_with_one_answer_are_no_pair_and_three_of_which_all_differ_are_three() -> None:
    """An original and edits towards both other labels; two edits towards one label are no pair with one another."""
    golds = ("neutral", "entailment", "contradiction", "contradiction")
    group = [row("p", gold, "neutral", kind="text", solved=gold == "neutral") for gold in golds]
    found = score_pairs(group)
    assert found is not None
    assert (found.pairs, found.consistency, found.flip_rate) == (5, 0.0, 0.0)


def test_without_pairs_there_is_no_score() -> None:
    assert score_pairs([row("", "yes", "yes"), row("", "no", "no")]) is None
    assert score_pairs([row("p", "yes", "yes")]) is None
    assert pairs_over_seeds([[row("", "yes", "yes")]]) is None


ANSWERS = st.lists(st.tuples(*[st.sampled_from(["yes", "no", None])] * 2), min_size=1, max_size=20)


@given(answers=ANSWERS, seed=st.integers(0, 99))
def test_no_order_of_the_questions_changes_a_score(answers: list[tuple[str | None, str | None]], seed: int) -> None:
    shuffled = random.Random(seed).sample(rows(*answers), 2 * len(answers))
    assert score_pairs(shuffled) == score_pairs(rows(*answers))


@given(answers=ANSWERS)
def test_a_pair_that_is_right_is_flipped_and_no_more_pairs_than_questions_are_right(
    answers: list[tuple[str | None, str | None]],
) -> None:
    judged = rows(*answers)
    found = score_pairs(judged)
    assert found is not None
    assert found.consistency <= found.flip_rate
    assert found.consistency <= sum(one["solved"] for one in judged) / len(judged)


def test_over_seeds_the_error_is_that_of_the_seeds() -> None:
    right, wrong = rows(("yes", "no")), rows(("yes", "yes"))
    found = pairs_over_seeds([[*right, *rows(*[("yes", "no")] * 2)[2:]], [*wrong, *rows(*[("yes", "no")] * 2)[2:]]])
    assert found == {
        "pairs": 2,
        "consistency": {"mean": 0.75, "standard_error": pytest.approx(0.25), "over": "seeds"},
        "flip_rate": {"mean": 0.75, "standard_error": pytest.approx(0.25), "over": "seeds"},
    }


SCORES = {"test": (0.9, 0.03), "a": (0.7, 0.04), "b": (0.5, 0.03)}


def test_the_gap_is_between_a_set_and_the_mean_of_others_each_counting_the_same() -> None:
    accuracies = {name: Estimate(*score, "questions") for name, score in SCORES.items()}
    macro, gap = domain_gap(accuracies, "test", ["a", "b"])
    assert (macro.mean, gap.mean) == (pytest.approx(0.6), pytest.approx(0.3))
    assert macro.standard_error == pytest.approx(0.05 / 2)
    assert gap.standard_error == pytest.approx((0.03**2 + 0.025**2) ** 0.5)


def answered(solved: str, size: int = 1) -> list[dict[str, Any]]:
    """Return judged questions, `1` for a solved one; so many of them in a row are edits of one another."""
    return [
        {"sample": 0, "solved": mark == "1", "pair": f"p{place // size}" if size > 1 else ""}
        for place, mark in enumerate(solved)
    ]


def test_over_seeds_the_gap_s_error_is_that_of_its_seeds_and_of_one_seed_that_of_the_questions() -> None:
    test = [answered("1111111110"), answered("1111111100")]
    far = [answered("1111100000"), answered("1111110000")]
    several = gap_over_seeds({"test": test, "a": far}, "test", ["a"])
    assert several["gap"] == {"mean": pytest.approx(0.3), "standard_error": pytest.approx(0.1), "over": "seeds"}
    assert several["macro"]["standard_error"] == pytest.approx(0.05)
    one = gap_over_seeds({"test": test[:1], "a": far[:1]}, "test", ["a"])
    assert one["gap"]["over"] == "questions"
    assert one["gap"]["standard_error"] == pytest.approx((0.9 * 0.1 / 10 + 0.5 * 0.5 / 10) ** 0.5)


def test_the_gap_s_error_counts_pairs_that_are_answered_alike_once() -> None:
    far = answered("11001100", size=2)
    told = gap_over_seeds({"test": [answered("1111")], "a": [far]}, "test", ["a"])
    assert told["macro"]["standard_error"] == pytest.approx((0.5 * 0.5 / 4) ** 0.5)  # four pairs, not eight questions


def test_pairs_of_one_original_are_one_draw() -> None:
    """Five originals with two edits each: the first question of a group is missed, and so both of its pairs are."""
    golds = ("yes", "no", "no")
    group = [row(f"p{i}", gold, "yes" if i % 5 else "no") for i in range(5) for gold in golds]
    found = score_pairs(group)
    assert found is not None
    assert (found.pairs, found.flip_rate, found.consistency) == (10, 0.0, 0.0)
    solved = [{**one, "voted": one["gold"] if one["pair"] != "p0" else "yes"} for one in group]
    solved = [{**one, "solved": one["voted"] == one["gold"]} for one in solved]
    right = score_pairs(solved)
    assert right is not None
    assert right.consistency == 0.8
    assert right.consistency_error == pytest.approx((0.8 * 0.2 / 5) ** 0.5)


def summaries() -> dict[str, Any]:
    pairs = {"pairs": 8, "consistency": 0.25, "consistency_error": 0.15, "flip_rate": 0.5, "flip_rate_error": 0.18}
    return {
        "student": {
            name: {"accuracy": mean, "standard_error": error, "pairs": pairs if name == "a" else None}
            for name, (mean, error) in SCORES.items()
        }
    }


def test_the_table_has_gap_and_pairs_with_their_errors() -> None:
    table = robustness_table(summaries(), ("test", ["a", "b"]))
    for cell in ("60.0 ± 2.5", "30.0 ± 3.9", "25.0 ± 15.0", "50.0 ± 18.0"):
        assert cell in table
    markdown = robustness_table(summaries(), None, markdown=True)
    assert "gap" not in markdown
    assert markdown.splitlines()[2] == "| student | 25.0 ± 15.0 | 50.0 ± 18.0 | 8 |"


def test_where_there_is_neither_gap_nor_pair_there_is_no_table() -> None:
    plain = {"student": {"test": {"accuracy": 0.9, "standard_error": 0.1, "pairs": None}}}
    assert robustness_table(plain, None) == ""


def test_judged_rows_know_their_pair_and_what_the_samples_voted() -> None:
    turns = [
        Answered((Said("cot", "Q", Generation(text, 1, True)),), text)
        for text in ("The answer is no.", "The answer is yes.", "The answer is yes.")
    ]
    found = judge([Problem("p", "t", "?", "yes", "boolean", pair="x")], [turns])
    assert [(one["pair"], one["predicted"], one["voted"]) for one in found] == [
        ("x", "no", "yes"),
        ("x", "yes", "yes"),
        ("x", "yes", "yes"),
    ]
