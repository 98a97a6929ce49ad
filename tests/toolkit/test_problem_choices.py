"""Answer options in the forms that data sets use, and the option that a gold answer names, or why it names none."""

from __future__ import annotations

import json
import string
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_files import Row
from toolkit.problem_rows import Columns, problems_of_rows


def read(options: Any, gold: Any, **columns: Any) -> Problem:
    """Return the problem of a row of the file `f`, line 3."""
    row = Row("f:3", "f", {"question": "Which?", "choices": options, "answer": gold})
    ((_, problem),) = problems_of_rows([row], Columns(**{"choices": "choices", **columns}), None, "auto", "t")
    return problem


def refusal(options: Any, gold: Any, **columns: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(options, gold, **columns)
    assert str(raised.value).startswith("f:3: ")
    return str(raised.value)


TWO = ("red", "blue")
LETTERED = {"A": "red", "B": "blue"}


@pytest.mark.parametrize(
    "options",
    [
        ["red", "blue"],
        ("red", "blue"),
        ["A)red", "B)blue"],
        ["(A) red", "(B) blue"],
        ["A. red", "B. blue"],
        {"label": ["A", "B"], "text": ["red", "blue"]},
        {"text": ["red", "blue"], "label": ["A", "B"]},
        [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}],
        [{"text": "red", "label": "A"}, {"text": "blue", "label": "B"}],
        {"A": "red", "B": "blue"},
        {"B": "blue", "A": "red"},
        '["red", "blue"]',
        '{"A": "red", "B": "blue"}',
        '[{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}]',
        '{"label": ["A", "B"], "text": ["red", "blue"]}',
        [" red ", "blue\n"],
    ],
)
def test_options_are_read_in_every_form_that_data_sets_use(options: Any) -> None:
    problem = read(options, "B")
    assert (problem.choices, problem.answer, problem.kind) == (TWO, "(B)", "choice")
    assert problem.question == "Which?\nOptions:\n(A) red\n(B) blue"


def test_commonsense_qas_own_file_is_read() -> None:
    data = {
        "answerKey": "A",
        "id": "075e",
        "question": {
            "question_concept": "punishing",
            "choices": [{"label": "A", "text": "ignore"}, {"label": "B", "text": "enforce"}],
            "stem": "What did they do?",
        },
    }
    columns = Columns(id="id", question="question.stem", choices="question.choices", answer="answerKey")
    ((_, problem),) = problems_of_rows([Row("f:1", "f", data)], columns, None, "auto", "t")
    assert problem.question == "What did they do?\nOptions:\n(A) ignore\n(B) enforce"
    assert (problem.id, problem.answer) == ("075e", "(A)")


def test_an_object_is_not_taken_for_the_text_of_a_question() -> None:
    row = Row("f:1", "f", {"question": {"stem": "What?", "choices": []}, "answer": "A"})
    with pytest.raises(UserError, match=r"f:1: column 'question' holds a dict.*keys: \['stem', 'choices'\]"):
        list(problems_of_rows([row], Columns(), None, "auto", "t"))


@pytest.mark.parametrize(
    ("options", "gold", "letter"),
    [
        # Labels are the source's names, whatever they look like and in whatever order they stand.
        ({"label": ["1", "2", "3", "4"], "text": ["a", "b", "c", "d"]}, "3", "C"),
        ({"label": [1, 2, 3, 4], "text": ["a", "b", "c", "d"]}, 4, "D"),
        ({"label": [1, 2], "text": ["a", "b"]}, np.int64(1), "A"),
        ({"label": ["B", "A"], "text": ["red", "blue"]}, "A", "B"),
        ({"label": ["yes", "no"], "text": ["It is", "It is not"]}, "no", "B"),
        ([{"label": "1", "text": "red"}, {"label": "2", "text": "blue"}], "1", "A"),
        ({"1": "red", "2": "blue"}, "2", "B"),
        ({"0": "red", "1": "blue"}, "1", "B"),
        ({"a": "red", "b": "blue"}, "b", "B"),
        # Letters
        (list(TWO), "a", "A"),
        (list(TWO), "(B)", "B"),
        (list(TWO), "B.", "B"),
        (list(TWO), " B ", "B"),
        (LETTERED, "(A)", "A"),
        # Texts
        (list(TWO), "blue", "B"),
        (["A)21", "B)22"], "B)22", "B"),
        (["A)21", "B)22"], "22", "B"),
        ([2.5, 3.5], 3.5, "B"),
        ([10, 20], 20, "B"),
        ([10, 20], "10", "A"),
        ([10.0, 20.0], 10, "A"),
        (["3.3", "4"], np.float32(3.3), "A"),
        ([Decimal("1.50"), Decimal("2.50")], "2.50", "B"),
        (["Yes", "No"], True, "A"),
        (["True", "False"], False, "B"),
        ([True, False], False, "B"),
        # Indices from 0
        (list(TWO), 0, "A"),
        (list(TWO), "1", "B"),
        (["10", "20", "30"], 2, "C"),
        (
            ["red", "red", "blue"],
            "blue",
            "C",
        ),  # two wrong options that are the same, as CommonsenseQA and AQuA have them
        (["0", "4", "2", "6"], 0, "A"),  # by its text and by its index
        ({"label": ["A", "B"], "text": ["red", "blue"]}, 1, "B"),
    ],
)
def test_a_gold_answer_is_a_label_a_text_or_an_index(options: Any, gold: Any, letter: str) -> None:
    assert read(options, gold).answer == f"({letter})"


@pytest.mark.parametrize(
    ("options", "gold", "names", "letter"),
    [
        (["2", "3", "4"], "2", "text", "A"),
        (["2", "3", "4"], "2", "index", "C"),
        ([1, 2, 3], 1, "text", "A"),
        ([1, 2, 3], 1, "index", "B"),
        (["B", "A"], "A", "label", "A"),
        (["B", "A"], "A", "text", "B"),
        ({"label": ["A", "B"], "text": ["B", "A"]}, "B", "label", "B"),
        ({"label": ["A", "B"], "text": ["B", "A"]}, "B", "text", "A"),
    ],
)
def test_what_is_ambiguous_is_refused_until_it_is_said_what_counts(
    options: Any, gold: Any, names: str, letter: str
) -> None:
    assert "say which it is: `columns.answer_names: " in refusal(options, gold)
    assert read(options, gold, answer_names=names).answer == f"({letter})"


@pytest.mark.parametrize(
    ("options", "gold", "reason"),
    [
        # Missing, empty and doubled ones
        (["red", None], "A", "option 2 of 2 has no value"),
        ([float("nan"), "blue"], "B", "option 1 of 2 has no value"),
        ([np.float32("nan"), 1.0], "B", "option 1 of 2 has no value"),
        ([Decimal("sNaN"), 1.0], "B", "option 1 of 2 has no value"),
        (["red", ""], "A", "option 2 of 2 is empty"),
        (["red", " \t"], "A", "option 2 of 2 is empty"),
        (["A)", "B)blue"], "A", "option 1 of 2 is empty"),
        (["red", "red", "blue"], "C", "option 'red' is there twice"),
        (["red", "red", "blue"], "B", "option 'red' is there twice"),
        (["red", "red", "blue"], 2, "option 'red' is there twice"),
        ({"label": ["A", "B"], "text": ["red", "red"]}, "A", "option 'red' is there twice"),
        ({"A": "red", "B": "red"}, "A", "option 'red' is there twice"),
        (["A)21", "B)21"], "A", "option '21' is there twice"),
        ([1.0, 1], "A", "option '1' is there twice"),
        ({"A": "red", "B": None}, "A", "option 2 of 2 has no value"),
        ({"A": "red", "B": float("nan")}, "A", "option 2 of 2 has no value"),
        ({"label": ["A", "B"], "text": ["red", None]}, "A", "option 2 of 2 has no value"),
        ({"label": ["A", None], "text": list(TWO)}, "A", "label 2 of 2 has no value"),
        ({"label": ["A", ""], "text": list(TWO)}, "A", "label 2 of 2 is empty"),
        ({"label": ["A", "A"], "text": list(TWO)}, "A", "label 'A' is there twice"),
        ({"label": ["1", 1], "text": list(TWO)}, "1", "label '1' is there twice"),
        ([{"label": "A", "text": "red"}, {"label": "A", "text": "blue"}], "A", "label 'A' is there twice"),
        ('{"A": "red", "A": "blue"}', "A", "key 'A' is there twice"),
        ('["red", null]', "A", "option 2 of 2 has no value"),
        ('["red", NaN]', "A", "option 2 of 2 has no value"),
        # Other forms
        (None, "A", "found a NoneType; allowed is"),
        ([], "A", "found 0 options; allowed is"),
        (["red"], "A", "found 1 options; allowed is"),
        ([str(n) for n in range(27)], "A", "found 27 options; allowed is"),
        ("red, blue", "A", "which is not JSON"),
        ("['red', 'blue']", "A", "which is not JSON"),
        ("", "A", "which is not JSON"),
        (3, "A", "found a int; allowed is"),
        ('"red"', "A", "found a str; allowed is"),
        ({"label": ["A"], "text": list(TWO)}, "A", "are not one for each of the 2 options"),
        ({"label": "AB", "text": list(TWO)}, "A", "are not one for each of the 2 options"),
        ({"label": "A", "text": "red"}, "A", "found a str; allowed is"),
        ({"label": None, "text": list(TWO)}, "A", "are not one for each of the 2 options"),
        ({"A": "red", "C": "blue"}, "A", "found an object of the keys ['A', 'C']"),
        ({"B": "red", "C": "blue"}, "B", "found an object of the keys ['B', 'C']"),
        ({"A": "red", "b": "blue"}, "A", "found an object of the keys ['A', 'b']"),
        ({}, "A", "found 0 options; allowed is"),
        ([{"label": "A", "text": "red", "is_right": True}] * 2, "A", "found an option with the keys"),
        ([{"text": "red"}, {"text": "blue"}], "A", "found an option with the keys ['text']"),
        ([{"label": "A", "text": "red"}, "blue"], "A", "option 1 of 2 is a dict"),
        ([["red"], ["blue"]], "A", "option 1 of 2 is a list"),
        ([b"red", b"blue"], "A", "option 1 of 2 is a bytes"),
        (["red", float("inf")], "A", "holds inf"),
        (["red", "bl\0ue"], "A", "holds a NUL byte"),
        # Golds that name nothing
        (list(TWO), None, "no gold answer: column 'answer' has no value"),
        (list(TWO), "", "no gold answer"),
        (list(TWO), float("nan"), "no gold answer"),
        (list(TWO), "C", "gold answer 'C' names none of the options ['red', 'blue']"),
        (list(TWO), "green", "names none of the options"),
        (list(TWO), 2, "names none of the options"),
        (list(TWO), -1, "names none of the options"),
        (list(TWO), "-1", "names none of the options"),
        (list(TWO), 1.0, "names none of the options"),  # an index that a table made a float, or a text
        (list(TWO), True, "gold answer True names none of the options"),
        (["yes", "true"], True, "gold answer True names none of the options"),
        (list(TWO), "AB", "names none of the options"),
        (list(TWO), "\u0661", "names none of the options"),  # an Arabic 1
        (list(TWO), ["A"], "holds a list"),
        (list(TWO), {"label": "A"}, "holds a dict"),
        (list(TWO), b"A", "holds a bytes"),
        ({"label": ["1", "2"], "text": list(TWO)}, 0, "names none of the options"),
        ({"label": ["1", "2"], "text": list(TWO)}, "A", "names none of the options"),
        ({"label": ["B", "C"], "text": list(TWO)}, "A", "names none of the options"),
        (LETTERED, "a", "names none of the options"),
    ],
)
def test_what_is_not_wholly_understood_is_a_fault_with_its_place(options: Any, gold: Any, reason: str) -> None:
    assert reason in refusal(options, gold)


def test_a_pattern_finds_the_gold_answer_before_it_names_an_option() -> None:
    row = Row("f:1", "f", {"question": "Which?", "choices": list(TWO), "answer": "So it is (B). The answer is (A)."})
    ((_, problem),) = problems_of_rows([row], Columns(choices="choices"), r"\((\w)\)", "auto", "t")
    assert problem.answer == "(A)"


def test_how_an_answer_names_an_option_needs_options() -> None:
    with pytest.raises(ValidationError, match=r"answer_names: says how .* `choices` is missing"):
        Columns(answer_names="label")


TEXTS = st.lists(st.text(string.ascii_lowercase, min_size=2, max_size=6), min_size=2, max_size=26, unique=True)


@given(TEXTS, st.data(), st.sampled_from(["list", "lists", "objects", "letters", "json"]))
def test_the_gold_option_is_the_one_that_the_source_means(texts: list[str], data: st.DataObject, form: str) -> None:
    """Whatever the form, the letter of the answer stands before the text of the right option."""
    right = data.draw(st.integers(0, len(texts) - 1))
    letters = string.ascii_uppercase[: len(texts)]
    objects = [{"label": letter, "text": text} for letter, text in zip(letters, texts, strict=True)]
    options: Any = {
        "list": texts,
        "lists": {"label": list(letters), "text": texts},
        "objects": objects,
        "letters": dict(zip(letters, texts, strict=True)),
        "json": json.dumps(objects),
    }[form]
    gold = data.draw(st.sampled_from([letters[right], f"({letters[right]})", texts[right], right]))
    problem = read(options, gold)
    assert f"\n{problem.answer} {texts[right]}\n" in f"{problem.question}\n"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=2)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["A", "B", "label", "text"]), inner, max_size=3)
        | st.fixed_dictionaries({"label": inner, "text": inner})
    ),
    max_leaves=8,
)


@given(ANYTHING, ANYTHING)
def test_any_options_and_any_gold_answer_give_a_problem_or_a_fault(options: Any, gold: Any) -> None:
    try:
        problem = read(options, gold)
    except UserError:
        return
    assert problem.answer[1] in string.ascii_uppercase[: len(problem.choices)]
    assert all(choice.strip() for choice in problem.choices)
