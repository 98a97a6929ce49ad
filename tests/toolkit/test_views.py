"""Templates of views: what they take from a record, and that what they take is data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.views import columns, fill, parse, render, role

ROW = {"id": "a/1", "question": "Why?", "right": {"rationale": "So.", "answer": 4}, "wrong": None, "empty": None}


def test_a_template_takes_columns_by_path() -> None:
    assert fill("Q: {question}\nA: {right.rationale} ({right.answer})", ROW) == "Q: Why?\nA: So. (4)"


def test_a_bare_path_means_that_column() -> None:
    assert fill("right.rationale", ROW) == "So."


def test_doubled_braces_are_braces() -> None:
    assert fill("{{{question}}}", ROW) == "{Why?}"


@given(st.text(max_size=60))
def test_what_a_column_holds_is_never_read_as_a_template(text: str) -> None:
    assert fill("<{question}>", {"question": text}) == f"<{text}>"


@pytest.mark.parametrize("template", ["{question", "question}", "{}", "{a b}", "{right.}", "{0}"])
def test_a_stray_brace_is_a_fault_that_shows_where(template: str) -> None:
    with pytest.raises(UserError, match="stray"):
        parse(template)


def test_an_unknown_column_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"no column 'right.rationales'.*did you mean 'rationale'"):
        fill("{right.rationales}", ROW)


@pytest.mark.parametrize("template", ["{empty}", "{wrong.rationale}"])
def test_a_column_without_a_value_is_an_error_and_not_the_word_none(template: str) -> None:
    with pytest.raises(UserError, match=r"no value|no column"):
        fill(template, ROW)


def test_roles_are_inferred_from_the_first_column() -> None:
    assert [role(t) for t in (" {right.rationale}", "\nThe answer is {right.answer}.", "###")] == [
        "rationale",
        "answer",
        "marker",
    ]


def test_columns_are_listed_in_order() -> None:
    assert columns("{b} {a.c} {b}") == ["b", "a.c", "b"]


def test_a_rendered_view_keeps_the_order_and_weights_of_its_segments() -> None:
    view = render("{question}", [("{right.rationale}", None, 0.0), ("!", "mark", 2.0)], ROW)
    assert [(s.text, s.role, s.weight) for s in view.target] == [("So.", "rationale", 0.0), ("!", "mark", 2.0)]
