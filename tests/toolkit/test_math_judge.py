"""Mathematics is read whole or not at all, and what is equal to six places is equal in all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.answers import matches
from toolkit.math_equality import math_equal
from toolkit.math_reading import Reading, read

EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac12"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("x = 5", "5"),
    ("(84 / 2)", "42"),
    (r"\{2, 1\}", r"\{1, 2\}"),
    (r"\boxed{3\pi}", r"$3\pi$"),
    ("so it is $x^2$ then", "x^2"),
    ("pi/2", r"\frac{\pi}{2}"),
    ("-2*pi", r"-2\pi"),
    ("14.0 + -1.0i", "14-i"),
    (r"\sqrt[3]2", r"\sqrt[3]{2}"),
    (r"x \ge 2", r"[2,\infty)"),
    ("2<x<=3", "(2,3]"),
    ("(2,3]", r"2 < x \le 3"),
    (r"x\in(2,3]", "(2,3]"),
    ("0.333333", r"\frac13"),
    ("1,2", "2, 1"),
    ("1 and 2", r"\{1,2\}"),
    (r"1 \text{ and } 2", "1, 2"),
    ("sqrt(2)/2", r"\frac{\sqrt2}{2}"),
    ("2sqrt(3)", r"2\sqrt{3}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    ("5 cm", "5"),
    (r"5\text{ cm}", "5"),
    (r"10\%", "10"),
    ("1e-3", "0.001"),
    ("x^10", "x^{10}"),
    ("10,000", "10000"),
    (r"2\frac{1}{2}", r"\frac52"),
    (r"\ln(2)", r"\ln 2"),
    (r"\log_2 8", "3"),
    (r"\log_{2}(8)", "3"),
    (r"\sin^2 x + \cos^2 x", "1"),
    ("e^{2}", r"\mathrm{e}^2"),
    (r"\text{e}^2", "e^2"),
    ("x²", "x^2"),
    ("√2", r"\sqrt{2}"),
    ("½", "0.5"),
    ("2π", r"2\pi"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("(1,-2)", "(1, -2)"),
    (r"(-\infty, 2)\cup(3,\infty)", r"(-\infty,2) \cup (3,\infty)"),
    (r"\frac{1}{2006!}", "1/2006!"),
    ("2^{1000}", "2^1000"),
    (r"\binom52", "10"),
    ("|x-1|", "|1-x|"),
    ("y=2x+1", "y = 1+2x"),
    ("2x+1=y", "y=2x+1"),
    ("f(x)=x+1", "f(x) = 1+x"),
    ("x=2, x=-3", "-3,2"),
    (r"3\pm\sqrt2", r"3+\sqrt2, 3-\sqrt2"),
    (r"\frac{\pi}2", "pi/2"),
    ("2(3)", "6"),
    ("(2)(3)", "6"),
    (r"60^\circ", "60"),
    ("i^2", "-1"),
    (r"\frac{1+i}{2}", "0.5+0.5i"),
    (r"\emptyset", r"\{\}"),
    ("x<2", r"(-\infty,2)"),
    ("$5$", "5"),
    (r"\(x+1\)", "1+x"),
    ("x^-1", r"\frac1x"),
    ("3.14159265", r"\pi"),
    (r"\dfrac{3}{4}", "0.75"),
    (r"-\frac12", "-1/2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2/2\\2\end{pmatrix}"),
    ("x>2", "2<x"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
    ("2x+2=2y", "x+1=y"),
    ("y=x/2+1", "y=1+0.5x"),
    ("- 5", "-5"),
    ("(1, x+1)", "(1, 1+x)"),
    ("[0,1)", r"0 \le x < 1"),
    ("x ≠ 2", r"x \ne 2"),
    ("[2,∞)", r"[2,\infty)"),
    ("(0,1)∪(2,3)", r"(0,1)\cup(2,3)"),
    ("6÷4", "1.5"),
    (r"\pm 2", "2, -2"),
    ("5 meters", r"5\text{ m}"),
    ("5 inches", r"5\text{ in}"),
    ("- 5.0", "-5.00"),
    (r"\{1, 2\}", r"\{2/2, 2\}"),
]
UNLIKE = [
    ("0<x<1/2006!", "(0,1/2004!)"),
    ("5 meters", r"5\text{ in}"),
    ("0,1", "0<x<1"),
    ("x>2", "3"),
    (r"\begin{pmatrix}1/2006!\\2\end{pmatrix}", r"\begin{pmatrix}1/2004!\\2\end{pmatrix}"),
    ("y=x/2006!", "y=x/2004!"),
    ("[1/2006!,1]", "[1/2004!,1]"),
    ("2x+2=2y", "x+2=y"),
    (r"1+\frac{1}{\mathrm{e}}", r"1-\frac{1}{\mathrm{e}}"),
    ("1/2006!", "1/2004!"),
    (r"1:2:3:\ldots", r"1:4:9:\ldots"),
    (r"4\sqrt(2)", "4"),
    ("12", "1"),
    ("(1,2)", "(1,3)"),
    ("x", "y"),
    ("", "5"),
    (r"\text{Monday}", r"\text{Tuesday}"),
    ("\ud800\0", "5"),
    ("101_2", "101"),
    ("101_{2}", "101_{3}"),
    ("1 2", "3"),
    ("2 3", "5"),
    ("a b c", "a"),
    ("A", "a"),
    ("2A", "2a"),
    ("2^{1000}", "2^{1000}+1"),
    ("x/2006!", "x/2004!"),
    ("10^{-400}", "10^{-401}"),
    ("0.0000001", "0.0000002"),
    ("(1,2)", r"\{1,2\}"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "(1,2)"),
    ("5 cm", "5 m"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("12:30", "2/5"),
    ("5!!", "(5!)!"),
    ("3/4x", "3x/4"),
    (r"1,2,\ldots,10", "1,2,10"),
    (r"1+2+\cdots+n", "1+2+n"),
    (r"x \ge 2", r"(2,\infty)"),
    ("2<x<3", "[2,3]"),
    (r"0.\overline{3}", "0.3"),
    ("1/0", "1/0+1"),
    ("5 apples", "6"),
    ("y'", "y"),
    ("x=2,y=3", "x=3,y=2"),
    ("0.33", r"\frac13"),
    ("3.14", r"\pi"),
    (r"\sqrt{2}", "1.41"),
    (r"\frac{1}{3}", r"\frac{1}{2}"),
    ("5", "5x"),
    ("5i", "5"),
    ("x>2", "x<2"),
    (r"x \neq 2", "2"),
    ("1,2", "1,2,3"),
    ("1,1,2", "1,2,2"),
    (r"20\%", "0.2"),
    ("sqrt2", "2"),
    ("blue", "lube"),
    ("abc", "cba1"),
    ("the cat", "cat the"),
    (r"2\pm 1", "3"),
    ("1000000000000000000000", "1000000000000000000001"),
    (r"\frac{10^{30}+1}{10^{30}}", "1"),
    ("e", "2.718"),
    ("f(x)", "f(y)"),
    (r"\angle A", "A"),
    ("5 mod 7", "5"),
    ("$1$ or $2$", "1"),
    ("x^2+1", "$x^2$ plus 1"),
    ("1e400", "1e401"),
]


@pytest.mark.parametrize(("predicted", "gold"), EQUAL)
def test_two_writings_of_one_object_are_equal(predicted: str, gold: str) -> None:
    assert math_equal(predicted, gold)
    assert math_equal(gold, predicted)


@pytest.mark.parametrize(("predicted", "gold"), UNLIKE)
def test_other_objects_and_what_is_not_understood_are_not_equal(predicted: str, gold: str) -> None:
    assert not math_equal(predicted, gold)
    assert not math_equal(gold, predicted)


@pytest.mark.parametrize(
    ("text", "items", "brackets", "unit"),
    [
        (r"\frac12", (r"\frac{1}{2}",), "", ""),
        (r"\frac\pi2", (r"\frac{\pi}{2}",), "", ""),
        (r"\frac{\frac12}3", (r"\frac{\frac{1}{2}}{3}",), "", ""),
        (r"\sqrt[3]2", (r"\sqrt[3]{2}",), "", ""),
        (r"\sqrt\pi", (r"\sqrt{\pi}",), "", ""),
        ("x^12", ("x^{12}",), "", ""),
        ("(1, 2)", ("1", "2"), "()", ""),
        ("[1, 2)", ("1", "2"), "[)", ""),
        (r"\{1, 2\}", ("1", "2"), "{}", ""),
        (r"\{1\}", ("1",), "{}", ""),
        ("(1)", ("(1)",), "", ""),
        ("(1)+(2)", ("(1)+(2)",), "", ""),
        ("1, 2", ("1", "2"), "", ""),
        ("1 or 2", ("1", "2"), "", ""),
        ("1, and 2", ("1", "2"), "", ""),
        ("1,234", ("1234",), "", ""),
        ("(1,234)", ("1", "234"), "()", ""),
        (r"3 \pm 1", ("3 + 1", "3 - 1"), "", ""),
        (r"5\text{ cm}^2", ("5",), "", "cm^2"),
        ("5 square feet", ("5",), "", "square feet"),
        ("60^\\circ", ("60",), "", "°"),
        ("-$5", ("-5",), "", "$"),
        (r"20\%", ("20",), "", "%"),
        (r"x \in (2, 3]", ("2", "3"), "(]", ""),
        ("the roots are $1$ and $2$", None, "", ""),
        ("$1$ and $2$", ("1", "2"), "", ""),
        ("it is $x$.", ("x",), "", ""),
        (r"$\boxed{x+1}$", ("x+1",), "", ""),
        (r"\boxed{x+1", None, "", ""),
        ("2(3)", (r"2\cdot (3)",), "", ""),
        (r"\sin^2(x)", (r"\sin^{2} (x)",), "", ""),
        ("f(1,2), 3", ("f(1,2)", "3"), "", ""),
        (r"\pm 2", ("2", "- 2"), "", ""),
        ("take 2 of $x$", None, "", ""),
        ("1, , 2", None, "", ""),
        ("", None, "", ""),
        ("x" * 2_001, None, "", ""),
    ],
)
def test_a_text_is_read_in_one_spelling(text: str, items: tuple[str, ...] | None, brackets: str, unit: str) -> None:
    found = read(text)
    assert found == (None if items is None else Reading(tuple(items), brackets, unit))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "101_2",
            "(10)_3",
            r"10_{2}",
            "1 2",
            "1:2",
            r"1:2:3:\ldots",
            r"1,2,\ldots,9",
            r"1+\cdots+9",
            "1, 2, ...",
            "5!!",
        ),
        *(
            "3/4x",
            r"1/2\pi",
            "sqrt2x",
            "sqr2",
            "blue",
            "the cat",
            "is an ox",
            r"\angle A",
            r"\overline{AB}",
            r"5 \bmod 7",
            "y'",
        ),
        *(r"\unknown{2}", "a A", "1 -> 2", "5?", r"\mathbb{P}", r"x \mapsto x", "5 & 6", "é", "5 \\\\ 6", r"\text{no}"),
    ],
)
def test_what_is_not_wholly_understood_is_no_mathematics(text: str) -> None:
    assert read(text) is None


def test_capitals_are_other_variables_and_words_are_the_same_in_every_case() -> None:
    assert not matches("2a", "2A", "math")
    assert not matches(r"\Pi", r"\pi", "math")
    assert matches("2A", "2A", "math")
    assert matches(r"\text{monday}", r"\text{Monday}", "math")


SIGNS = st.sampled_from(
    [
        "1",
        "2",
        "x",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "(",
        ")",
        "{",
        "}",
        ",",
        " ",
        "\\frac",
        "\\sqrt",
        "\\pm",
        "!",
        ":",
        "$",
        "i",
    ]
)


@given(st.lists(SIGNS, max_size=12).map("".join) | st.text(st.characters(exclude_categories=())))
def test_reading_raises_on_no_text_and_reads_its_own_spelling_again(text: str) -> None:
    found = read(text)
    if found is not None and not found.unit and "\\pm" not in text and "$" not in text:
        assert read(found.whole) == found


@given(st.integers(0, 10**40), st.integers(1, 10**9))
def test_whole_numbers_are_compared_in_all_their_digits(value: int, more: int) -> None:
    assert math_equal(str(value), f"{value}+0")
    assert not math_equal(str(value), str(value + more))
