"""Edits: how large they are, against a table measured by others on people's edits, and what shows that one is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.counterfactual_settings import CounterfactualPairsSettings
from dataset_builders.edits import cleaned, edit_ratio, fault_of, taken_apart
from toolkit.problem_files import read_rows

DATA = Path(os.environ.get("COT_DATA") or Path(__file__).parents[3] / "shared" / "data") / "counterfactual_human"
NLI = "Premise: {premise}\nHypothesis: {hypothesis}"
LABELS = ("entailment", "neutral", "contradiction")
WORDS = st.lists(st.sampled_from(["a", "b", "c", "D"]), max_size=12)


def settings(**more: Any) -> CounterfactualPairsSettings:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, **more}
    return CounterfactualPairsSettings.model_validate(given)


def fault(
    before: str, after: str, label: str = "no", labels: tuple[str, ...] = ("yes", "no"), **more: Any
) -> str | None:
    written = taken_apart(before, "{question}")
    assert written is not None
    return fault_of(written, "question", after, label, labels, settings(**more))


def nli(premise: str, hypothesis: str, field: str, after: str, label: str) -> str | None:
    written = taken_apart(f"Premise: {premise}\nHypothesis: {hypothesis}", NLI)
    assert written is not None
    thresholds = settings(layout=NLI, fields={"premise": 0.5, "hypothesis": 0.8}, labels=LABELS)
    return fault_of(written, field, after, label, LABELS, thresholds)


@pytest.mark.parametrize(
    ("before", "after", "ratio"),
    [
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "a B c D", 0.0),  # case does not count
        ("a b c d", "a b x d", 0.25),
        ("a b c d", "a b x y d", 2 / 5),  # one word became two: the larger number counts
        ("a b c d", "a d", 0.5),
        ("a b", "c d", 1.0),
        ("三加四是七", "三加五是七", 0.2),  # no spaces: by Unicode's word boundaries
        ("答えは9です", "答えは8です", 1 / 6),
        ("cafe\u0301 b", "caf\u00e9 b", 0.0),
        ("", "", 0.0),
    ],
)
def test_an_edit_ratio_counts_what_is_not_equal_by_the_longer_text(before: str, after: str, ratio: float) -> None:
    assert edit_ratio(before, after) == ratio


@given(before=WORDS, after=WORDS)
def test_an_edit_ratio_is_0_for_the_same_words_alone(before: list[str], after: list[str]) -> None:
    ratio = edit_ratio(" ".join(before), " ".join(after))
    assert 0 <= ratio < 2  # words that change places are deleted and inserted
    assert (ratio == 0) == ([word.lower() for word in before] == [word.lower() for word in after])


def percentile(ratios: list[float], share: float) -> float:
    return sorted(ratios)[int(share * (len(ratios) - 1))]


def reviews() -> list[float]:
    rows = [row.data for row in read_rows(str(DATA / "sentiment/combined/paired/train_paired.tsv.gz"))][:1200]
    return [edit_ratio(one["Text"], other["Text"]) for one, other in zip(rows[::2], rows[1::2], strict=True)]


def revisions(field: str, column: str) -> list[float]:
    originals = [row.data for row in read_rows(str(DATA / "NLI/original/dev.tsv"))]
    revised = [row.data for row in read_rows(str(DATA / f"NLI/revised_{field}/dev.tsv"))]
    return [edit_ratio(originals[place // 2][column], row[column]) for place, row in enumerate(revised)]


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real data is not at {DATA}")
@pytest.mark.parametrize(
    ("ratios", "table", "largest", "rejected"),
    [
        (reviews, (600, 0.08, 0.17, 0.33, 0.41), 0.35, 0.08),
        (lambda: revisions("premise", "sentence1"), (400, 0.06, 0.20, 0.50, 0.64), 0.50, 0.10),
        (lambda: revisions("hypothesis", "sentence2"), (400, 0.14, 0.43, 0.82, 0.89), 0.80, 0.11),
    ],
    ids=["IMDb", "premise", "hypothesis"],
)
def test_people_s_edits_are_as_large_as_others_have_measured(
    ratios: Any, table: tuple[int, ...], largest: float, rejected: float
) -> None:
    """The table and the shares are of the method's page, section 4; its percentiles may be interpolated."""
    found = ratios()
    measured = (len(found), *(percentile(found, share) for share in (0.1, 0.5, 0.9, 0.95)))
    assert measured == pytest.approx(table, abs=0.0101)
    assert sum(ratio > largest for ratio in found) / len(found) == pytest.approx(rejected, abs=0.0051)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real data is not at {DATA}")
def test_the_smallest_ratio_rejects_few_reviews_and_one_small_threshold_would_reject_most_hypotheses() -> None:
    assert sum(ratio < 0.01 for ratio in reviews()) / 600 == pytest.approx(0.005, abs=0.0005)
    assert sum(ratio > 0.3 for ratio in revisions("hypothesis", "sentence2")) / 400 == pytest.approx(0.63, abs=0.005)


LONG = " ".join(f"w{place}" for place in range(101))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("Is 3 more than 2?", "Is 1 more than 2?", None),
        ("Is 3 more than 2?", "is 3  more than 2 ?", "unchanged"),
        ("caf\u00e9 is 3?", "cafe\u0301 is 3?", "unchanged"),
        ("राम की किताब", "राम का किताब", None),  # a vowel sign is part of its word
        ("Is 3 more than 2?", "Is 1 more than 2? The answer is clear.", "gives the answer away"),
        ("Is 3 more than 2?", "Is 1 more than 2? (no)", "names the label no"),
        ("Is there no end?", "Is there no start?", None),  # the word was there before
        ("Is 3 more than 2?", "Is ___ more than 2?", "leaves a blank or a placeholder"),
        ("Is 3 more than 2?", "Is [number] more than 2?", "leaves a blank or a placeholder"),
        ("It was <br /> bad.", "It was <br /> good.", None),
        ("Is 3 more than 2?", "Are there any apples left in that basket?", "larger than 0.8 of the question"),
        (LONG, LONG.replace("w7 ", "x "), "smaller than 0.01 of the question"),
    ],
)
def test_each_fault_of_an_edit_has_its_reason(before: str, after: str, found: str | None) -> None:
    assert fault(before, after) == found


def test_one_token_is_enough_where_that_is_wanted() -> None:
    assert fault(LONG, LONG.replace("w7 ", "x "), min_edit=0) is None


@pytest.mark.parametrize(
    ("label", "after", "found"),
    [
        ("contradiction", "A man is not asleep.", "only adds or drops a negation"),
        ("neutral", "A man is not asleep.", None),
        ("contradiction", "A man is awake.", None),
    ],
)
def test_a_bare_negation_is_no_contradiction(label: str, after: str, found: str | None) -> None:
    assert nli("A man lies in his bed at noon.", "A man is asleep.", "hypothesis", after, label) == found


def test_an_edit_may_not_say_what_the_other_field_says() -> None:
    premise = "A man lies in his bed."
    assert nli(premise, "A man is asleep there.", "hypothesis", premise, "entailment") == "says what another field says"


def test_each_field_has_a_threshold_of_its_own() -> None:
    """Three of five words: too much of a premise, not of a hypothesis."""
    one, other = "A man is asleep now.", "A dog runs here now."
    assert nli(one, "Nobody knows.", "premise", other, "neutral") == "larger than 0.5 of the premise"
    assert nli("Nobody knows.", one, "hypothesis", other, "neutral") is None


def test_options_are_no_part_of_the_field_and_stay_as_they_are() -> None:
    question = "Which is larger?\nOptions:\n(A) ant\n(B) cow"
    written = taken_apart(question, "{question}")
    assert written is not None
    assert written.fields == {"question": "Which is larger?"}
    assert written.question("{question}", "question", "Which is smaller?") == question.replace("larger", "smaller")
    assert fault(question, "Which is smaller?\n(A) hen", "(A)", ("(A)", "(B)"), min_edit=0) == "changes the options"


@given(premise=st.text("ab \n", min_size=1), hypothesis=st.text("ab \n", min_size=1))
def test_a_question_that_is_taken_apart_is_put_together_again(premise: str, hypothesis: str) -> None:
    question = f"Premise: {premise}\nHypothesis: {hypothesis}"
    written = taken_apart(question, NLI)
    assert written is not None
    assert written.question(NLI, "premise", written.fields["premise"]) == question


def test_a_question_of_another_layout_is_not_taken_apart() -> None:
    assert taken_apart("What is it?", NLI) is None


@pytest.mark.parametrize(
    ("text", "before", "kept"),
    [(' "A cat." \n', "A dog.", "A cat."), ('"A cat."', '"A dog."', '"A cat."'), ("A cat.\n", "A dog.", "A cat.")],
)
def test_quotation_marks_that_a_teacher_adds_are_taken_off(text: str, before: str, kept: str) -> None:
    assert cleaned(text, before) == kept
