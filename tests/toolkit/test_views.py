"""Templates of views: what they take from a record, and that what they take is data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.views import ambiguity, columns, fill, items, parse, read_back, role

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


def test_a_missing_value_is_told_with_its_column_and_its_record() -> None:
    with pytest.raises(UserError, match="column 'empty' has no value in record 'a/1'"):
        fill("{empty}", ROW)
    with pytest.raises(UserError, match=r"column 'empty' has no value in record '\?'"):
        fill("{empty}", {"empty": None})


def test_what_stands_in_for_one_column_leaves_the_others_to_the_record() -> None:
    assert fill("{question} {right.rationale}", ROW, {"question": "Who?"}) == "Who? So."
    assert ambiguity(["{a}", "; {b}", "."], {"a": "x", "b": "z"}, {"a": "y; z"}) is not None


def test_roles_are_inferred_from_the_first_column() -> None:
    assert [role(t) for t in (" {right.rationale}", "\nThe answer is {right.answer}.", "###")] == [
        "rationale",
        "answer",
        "marker",
    ]


def test_columns_are_listed_in_order() -> None:
    assert columns("{b} {a.c} {b}") == ["b", "a.c", "b"]


def test_a_column_of_several_values_gives_them_one_per_line() -> None:
    assert fill("{steps.question}", {"steps": [{"question": "a?"}, {"question": "b?"}]}) == "a?\nb?"


# --- backwards

CHAIN = [" {chain.rationale}", "\nTherefore, the answer is {answer}."]


def test_what_was_written_by_the_templates_is_read_back() -> None:
    row = {"chain": {"rationale": "1 + 1. So."}, "answer": "2.5"}
    text = "".join(fill(template, row) for template in CHAIN)
    assert read_back(CHAIN, text) == {"chain.rationale": "1 + 1. So.", "answer": "2.5"}


PIECE = st.text(alphabet="ab .\n", max_size=8)


@given(PIECE, PIECE, PIECE)
def test_whatever_is_not_called_ambiguous_is_read_back(a: str, b: str, c: str) -> None:
    templates = [" {a}#{b}", "\nso {c}."]
    row = {"a": a, "b": b, "c": c}
    text = "".join(fill(template, row) for template in templates)
    if ambiguity(templates, row) is None:
        assert read_back(templates, text) == row


@given(st.text(max_size=40))
def test_any_text_can_be_read_back_and_gives_no_more_than_the_columns(text: str) -> None:
    assert set(read_back(CHAIN, text)) <= {"chain.rationale", "answer"}


def test_a_column_at_the_end_goes_to_the_end_of_the_text() -> None:
    assert read_back(["A: {a}", " so {b}"], "A: x so y so z") == {"a": "x", "b": "y so z"}
    assert read_back(["{a}"], "x. ") == {"a": "x. "}


def test_columns_that_a_text_does_not_reach_are_left_out() -> None:
    assert read_back(CHAIN, " We add and") == {"chain.rationale": "We add and"}


def test_a_rationale_that_holds_the_answer_phrase_is_ambiguous() -> None:
    row = {"chain": {"rationale": "No.\nTherefore, the answer is not 3."}, "answer": "2"}
    assert "holds the text that ends it" in str(ambiguity(CHAIN, row))


def test_a_space_between_two_columns_is_the_recipes_own_choice() -> None:
    assert ambiguity(["{a} {b}"], {"a": "x y", "b": "z"}) is None


@pytest.mark.parametrize(("between", "is_ambiguous"), [("\n", True), (" ", False), (";", True), ("\n;", True)])
def test_what_parts_two_columns_is_a_line_break_or_more_than_space(between: str, is_ambiguous: bool) -> None:
    assert (ambiguity(["{a}" + between + "{b}"], {"a": f"x{between}y", "b": "z"}) is not None) is is_ambiguous


def test_three_literals_in_a_row_are_one() -> None:
    assert read_back(["a;", "b;", "c;{x}"], "a;b;c;7") == {"x": "7"}
    assert read_back([], "abc") == {}


def test_a_list_whose_item_breaks_the_line_is_ambiguous() -> None:
    assert "line break" in str(ambiguity(["{steps.q}"], {"steps": [{"q": "a\nb"}]}))


def test_items_come_one_by_one_with_those_before_them() -> None:
    row = {"question": "Q", "steps": [{"q": "a", "a": "1"}, {"q": "b", "a": "2"}]}
    shown = list(items(row, "step in steps", "{step.q}={step.a};"))
    assert [fill("{before}{step.q}", one) for one in shown] == ["a", "a=1;b"]
