"""What counts as a mention of the answer, and that none is left."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.answer_removal import without_answer

OPTIONS = ["park", "math problem", "gravity"]
DATA = Path(os.environ.get("COT_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.mark.parametrize(
    ("text", "answer", "left"),
    [
        ("In paris, PARIS and Parisian.", "Paris", "In, and Parisian."),
        ("He flew to New\n York City.", "new york", "He flew to City."),
        ("13.5 is 3.5 more than 10, not 3.52; 3.5.", "3.5", "13.5 is more than 10, not 3.52;."),
        ("x = -4, 9-4 = 5 and 4 = -(-4)", "-4", "x =, 9-4 = 5 and 4 = -()"),
        ("x = -4 and 4, then 4.", "4", "x = -4 and, then."),
        ("3 is not 3.5, 2.3, 13 or 30, nor 3,000.", "3", "is not 3.5, 2.3, 13 or 30, nor 3,000."),
        ("1,234 has 234 in it", "234", "1,234 has in it"),
        ("1,234 is 1234 but 11,234 is not", "1234", "is but 11,234 is not"),
        ("1,234 is 1234 but 1,234,567 is not", "1,234", "is but 1,234,567 is not"),
        ("Paris\n Paris is big\nso Paris", "Paris", "\nis big\nso"),
        ("the two words  stand  apart", "two", "the words  stand  apart"),
        ("New New York York ends", "New York", "ends"),
        ("50% of it, 150% and 50%", "50%", "of it, 150% and"),
        ("Yes.", "no", "Yes."),
        (" Paris \n", "Paris", ""),
    ],
)
def test_mentions_go_and_parts_of_longer_words_and_numbers_stay(text: str, answer: str, left: str) -> None:
    assert without_answer(text, answer) == left


@pytest.mark.parametrize(
    ("text", "answer", "left"),
    [
        ("So the answer is (b) math problem.", "(B)", "So the answer is."),
        ("So the answer is (b) math problem.", "b", "So the answer is."),
        ("So the answer is (B): a Math  Problem.", "math problem", "So the answer is: a."),
        ("Option B) or [b] or B, a plan b.", "B", "Option or or, a plan b."),
        ("A park is a park (a), says Dr. A.", "(A)", "is a, says Dr.."),
        ("Not (a) but (c).", "math problem", "Not (a) but (c)."),
        ("Not Z.", "(Z)", "Not."),
        ("He went to the park, so (b).", "(B)", "He went to the park, so."),
        ("X, a plan b or B.", "b", "X, a plan or."),
        ("XXXX (b).", "(B)", "XXXX."),
        ("In the park, (a) or a) it is.", "(a) park", "In the, or it is."),
    ],
)
def test_an_option_goes_as_letter_and_as_text(text: str, answer: str, left: str) -> None:
    assert without_answer(text, answer, OPTIONS) == left


def test_an_option_that_is_given_twice_goes_with_both_letters() -> None:
    assert without_answer("(d) bridge, (e) bridge, (a) bus", "bridge", ["bus", "b", "t", "bridge", "bridge"]) == (
        ",, (a) bus"
    )


def test_the_text_within_an_answer_that_is_a_letter_with_its_text_goes_without_options() -> None:
    assert without_answer("Paris, that is (B).", "(B) Paris") == ", that is."


PIECES = st.sampled_from(["3.5", "3", "5", "1", ".", ",", "-", " ", "x", "X y", "y", "\n"])


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["3.5", "x y", "35", "x"]))
def test_nothing_but_mentions_goes_and_none_is_left(text: str, answer: str) -> None:
    left = without_answer(text, answer)
    spaceless = "".join(left.split()).lower()
    assert not stands_alone(left.lower(), answer)
    rest = iter("".join(text.split()).lower())
    assert all(character in rest for character in spaceless)


def stands_alone(text: str, answer: str) -> bool:
    """Whether the answer is in the text with neither letters, digits nor parts of a number beside it."""
    for start in range(len(text) - len(answer) + 1):
        end = start + len(answer)
        before, after = text[:start], text[end:]
        if text[start:end] != answer or before[-1:].isalnum() or after[:1].isalnum():
            continue
        part = answer[0].isdigit() and (
            (before[-1:] == "-" and not before[-2:-1].isalnum())
            or (before[-1:] == "." and before[-2:-1].isdigit())
            or (after[:1] == "." and after[1:2].isdigit())
            or (after[:1] == "," and after[1:4].isdigit() and len(after) > 3 and not after[4:5].isdigit())
        )
        if not part:
            return True
    return False


@given(st.text(alphabet="ab (B).\n", max_size=30))
def test_a_text_that_does_not_mention_it_stays_as_it_is(text: str) -> None:
    assert without_answer(text, "Paris") == (text if text.strip() else "")


def test_a_long_text_costs_linear_time() -> None:
    # One blank, or one mention, after the other: a pattern that starts anew at each would take minutes.
    assert len(without_answer(" " * 200_000 + "x", "Paris")) == 200_001
    assert without_answer("Paris " * 20_000 + "x", "Paris") == "x"


@pytest.mark.data
def test_rationales_of_commonsense_questions_name_their_answers_no_more() -> None:
    folder = DATA / "distilling_step_by_step" / "datasets" / "cqa"
    if not folder.is_dir():
        pytest.skip("../shared/data/distilling_step_by_step is not there")
    rows = list(map(json.loads, plain(folder / "cqa_test.json.gz").splitlines()))
    completions = [text for part in (0, 1) for text in json.loads(plain(folder / "palm" / f"test_CoT_{part}.json.gz"))]
    named = 0
    for row, completion in zip(rows, completions, strict=True):
        rationale = completion.split("\n\n")[0].lower()
        answer = spaced(row["answer"].lower())
        named += answer in spaced(rationale)
        assert answer not in spaced(without_answer(rationale, row["answer"], row["choices"]))
    assert (named, len(rows)) == (984, 1221)


def plain(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def spaced(text: str) -> str:
    """Return the words of a text, letters and digits only, with one blank around each."""
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text).split())} "
