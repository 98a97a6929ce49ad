"""What a program answers: its text in a completion, its value as an answer, and which programs are the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.answers import answer_clause, extract, matches
from toolkit.program_answers import answer_text, fingerprint, program_in, run_all


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((8.0, "8"), (0.0, "0"), (-0.0, "0"), (-4.0, "-4"), (0.1 + 0.2, "0.3"), (2 / 3, "0.666666666666667")),
        *((1e15, "1000000000000000"), (True, "yes"), (False, "no"), (" Friday ", "Friday"), ("", None), (None, None)),
        *(([8.0], "8"), ([], None), ([1.0, 2.0], None)),
    ],
)
def test_a_value_as_an_answer(value: float | bool | str | list[float] | None, text: str | None) -> None:
    assert answer_text(value) == text  # type: ignore[arg-type]


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_a_number_that_a_program_works_out_is_read_as_itself(digits: int, places: int) -> None:
    """Whatever is written for a value, the matcher finds it equal to the exact number behind it."""
    exact = Fraction(digits, 10**places)
    text = answer_text(float(exact))
    assert text is not None
    gold = f"{digits}" if places == 0 else f"{float(exact):.{places}f}"
    assert matches(extract(answer_clause(text), "number"), gold, "number")


PROGRAM = "n = 3\nans = n"


@pytest.mark.parametrize(
    "completion",
    [
        PROGRAM,
        f"\n{PROGRAM}\n",
        f"```python\n{PROGRAM}\n```",
        f"Here it is:\n```\n{PROGRAM}\n```\nIt gives 3.\n```\nans = 4\n```",
        f"  ```python\n{PROGRAM}",  # cut off before the fence closes
        f"{PROGRAM}\n\nQ: And what is 4 + 4?\nProgram:\nans = 8",
    ],
)
def test_the_program_is_found_in_a_completion(completion: str) -> None:
    assert program_in(completion) == PROGRAM


@given(st.text())
def test_any_text_has_a_program_in_it_and_a_fingerprint(text: str) -> None:
    assert isinstance(fingerprint(program_in(text)), str)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("total = 3\nans = total + 1", True),
        ("n=3   # three\n\nans  =  (n + 1)", True),
        ("n = 3\nans = n + 2", False),
        ("n = 3\nans = 1 + n", False),
        ("n = m = 3\nans = n + 1", False),
    ],
)
def test_names_layout_and_comments_do_not_tell_programs_apart(other: str, same: bool) -> None:
    assert (fingerprint("n = 3\nans = n + 1") == fingerprint(other)) == same


def test_two_variables_are_not_taken_for_one() -> None:
    assert fingerprint("a = 1\nb = 2\nans = a - b") != fingerprint("a = 1\nb = 2\nans = b - a")
    assert fingerprint("def f(x):\n    return x\nans = f(2)") == fingerprint("def g(y):\n    return y\nans = g(2)")


def test_source_too_deep_to_look_at_is_its_own_fingerprint() -> None:
    deep = "ans = " + "-" * 3900 + "1"
    assert fingerprint(deep) == deep


def test_programs_are_run_in_order_and_say_what_became_of_them() -> None:
    sources = [
        "ans = 2 - 2",
        "ans = 5 > 3",
        "ans =",
        "ans = x",
        "y = 3",
        "ans = [1, 2]",
        "import os\nans = os.getcwd()",
    ]
    ran = run_all(sources, "ans")
    assert [(one.answer, one.status) for one in ran] == [
        *(("0", "ok"), ("yes", "ok"), (None, "syntax"), (None, "runtime"), (None, "no_value"), (None, "no_value")),
        (None, "import"),
    ]
    assert [one.tier for one in ran[:3]] == [1, 1, 0]


def test_another_variable_holds_the_answer_where_one_is_named() -> None:
    assert [one.answer for one in run_all(["answer = 7"], "answer")] == ["7"]
