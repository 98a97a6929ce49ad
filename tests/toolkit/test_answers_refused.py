"""Clauses that a hostile reader tried: they say a number, a letter or a truth value in part, with a twist, or not."""

from __future__ import annotations

import pytest

from toolkit.answers import extract
from toolkit.math_equality import math_equal

NO_NUMBER = {
    "scales and numbers in words": [
        "5 hundred fifty",
        "5 hundred and fifty",
        "5 thousand two hundred",
        "1 million two hundred thousand",
        "one hundred 5",
        "a hundred and 5",
        "thousand 5",
        "twenty 5",
        "$5m",
        "5 mln",
        "5 kilo",
        "5 (×1000)",
        "5 (x 10^3)",
        "three and 1/2",
        "two 1/2",
        "five or 6",
        "5 and three",
        "5 boys and three girls",
        "5 to ten",
        "5, then six",
        "5, twenty",
        "six and 5",
        "5 feet six inches",
        "5 hours and thirty minutes",
        "5 dollars and fifty cents",
        "two $5 bills",
        "three 20-minute sessions",
        "four groups of 5",
        "-5 and 5",
        "3 (three) million",
    ],
    "bases": [
        "101 in binary",
        "101 (binary)",
        "binary 101",
        "17 octal",
        "17 (octal)",
        "octal 17",
        "hexadecimal 10",
        "17 in hex",
        "17 (hex)",
        "5 in base six",
        "110 in base two",
    ],
    "remarks with another value": [
        "5 (or 7)",
        "5 (or six)",
        "5 (and 6)",
        "5 (which equals 6)",
        "5 (6 in total)",
        "5 (remainder 3)",
    ],
    "parts, products and powers": [
        "5 percent of 60",
        "5% of his 60 apples",
        "1/2 of the 60",
        "3 times his 60",
        "5 groups of 6",
        "5 rows by 6 columns",
        "5 increased by 6",
        "three 10s",
        "3 tens",
        "3 ones",
        "5 halved",
        "5 doubled",
        "the square of 5",
        "the 5th power of 2",
        "root 5",
        "5 root two",
        "5 theta",
        "5/six",
        "5/pi",
        "5 and pi",
        "5 with a remainder of 2",
        "5 remainder three",
        "5 hours and a half",
    ],
    "bounds and signs": [
        "5 at least",
        "5 at most",
        "5 minimum",
        "5 max",
        "5 and above",
        "5 and up",
        "5 and change",
        "5 below zero",
        "5°C below zero",
        "5 negative",
        "neg 5",
        "y=—5",
        "-approximately 5",
        "5?",
    ],
    "ratios, dates and times": [
        "one in 5",
        "one of 5",
        "ratio 5",
        "5 in every 10",
        "5 people out of every 6",
        "5 May",
        "May 5",
        "5th of May",
        "June 2021",
        "half past 5",
        "quarter to 5",
    ],
    "formulas": [r"\sqrt{x} = 5", "5 when x = 2", r"a = 5 \\ b = 3"],
}
NOT_ANSWERED = [
    r"$-\boxed{5}$",
    r"$\sqrt{\boxed{5}}$",
    r"$\frac{1}{\boxed{5}}$",
    r"$\boxed{5}\sqrt{2}$",
    r"$\boxed{5}^2$",
    r"$\boxed{5}\pi$",
    r"$2\boxed{5}$",
    r"\boxed{5} \times 10^3",
    r"\boxed{5} million",
    r"\boxed{5}k",
    r"The answer is not \boxed{5}.",
    r"\boxed{5} or \boxed{7}",
    r"The answers are \boxed{5} and \boxed{7}.",
    r"x = \boxed{5}, y = \boxed{7}",
    r"\boxed{1}\boxed{2}",
    "If the answer is 5, then",
    "The answer is 5. Wait, that's wrong. It should be 7.",
    "It is wrong to say that the answer is 5.",
    "The answer is no longer 5.",
    "My first answer was 5, but it was wrong.",
    "But 5 is wrong.",
    "So 5 doesn't work.",
    "5 cannot be right.",
    "5 is too small.",
    "I think 5?",
    "Is it 5?",
    "Let x be 5.",
    "Suppose there are 5 apples.",
    "See Theorem 5.",
    "In 1999 he died.",
]
OTHER_LANGUAGES = [
    "Die Antwort ist nicht 5.",
    "Die Antwort ist mindestens 5.",
    "Die Antwort ist mehr als 5.",
    "Die Antwort ist 5 einhalb.",
    "Die Antwort ist 5 Drittel.",
    "Die Antwort ist Wurzel 5.",
    "Die Antwort ist 5 und ein halb.",
    "La respuesta es no 5.",
    "La respuesta es más de 5.",
    "La respuesta es 5 y medio.",
    "La respuesta es la mitad de 5.",
    "La respuesta es 5 al cuadrado.",
    "La respuesta es 5 de mayo.",
    "La réponse n'est pas 5.",
    "La réponse est pas 5.",
    "La réponse est moins de 5.",
    "La réponse est 5 et demi.",
    "La réponse est la moitié de 5.",
    "La réponse est racine de 5.",
    "La réponse est 5 tiers.",
    "Ответ: 5 тысяч.",
    "Ответ: не 5",
    "Ответ: более 5",
    "A resposta é 5 milhões.",
    "La risposta è 5 mila.",
    "答案不是5。",
    "答案是至少5。",
    "答案是5以上。",
    "答案是5多。",
    "答えは5ではありません。",
    "答えは5以上です。",
    "答えは5ダースです。",
    "정답은 5가 아닙니다.",
    "정답은 5천입니다.",
]
NO_LETTER = [
    "A is wrong",
    "A is not correct",
    "B is wrong",
    "(B) is incorrect.",
    "A is false",
    "B is wrong; C is right.",
    "unlikely to be B.",
    "anything other than (B).",
    "the opposite of (B)",
    "different from (B)",
    "A as well as B",
    "A (and B)",
    "A (or B)",
    "A; or B",
    "A; B",
    "A: B",
    "A) B)",
    "(A)(B)",
    "(A) (B)",
    "A, but B is also correct",
    "A, not B, or maybe C",
    "A, no wait, C.",
    "A. Wait, no, it's C.",
    "nicht (A)",
    "no (A)",
    "sauf (A)",
    "(A)ではない",
]
NO_TRUTH = [
    "No, wait, yes.",
    "yes... actually no",
    "Yes?",
    "Is it true?",
    "no idea",
    "no answer",
    "No conclusion can be drawn.",
    "No one knows",
    "no information",
    "There is no answer.",
    "unclear, no data",
    "It is never true.",
    "hardly true",
    "far from true",
    "sometimes true",
    "partly true",
    "half true",
    "true if x > 0",
    "true only if x",
]
UNLIKE = [
    ("5m", "5"),
    ("x+3m", "x+3"),
    (r"\frac{1}{2}m", r"\frac12"),
    ("2w+2l", "2w+2"),
    ("a^2 m", "a^2"),
    (r"\pi r^2 l", r"\pi r^2"),
    (r"5\text{ million}", "5"),
    (r"5\text{ dozen}", "5"),
    (r"5\text{ squared}", "5"),
    (r"5\text{ at least}", "5"),
    ("1, 2", "[1,2)"),
    (r"x=1 \text{ or } x=2", "(1,2)"),
    ("-1,1", "[-1,1]"),
    ("0,1", "0<x<1"),
    ("x=3,y=2", "2,3"),
    ("y=3, x=2", "(3,2)"),
    ("f(2)=5", "f(3)=5"),
    ("a+b=5", "5"),
    ("2x=10", "10"),
    ("x^2=25", "25"),
    (r"\sqrt{x}=5", "5"),
    ("x=y=5", "5"),
    ("1=2", "2=1+1"),
    ("1<2", "3<4"),
    ("2^T", "2"),
    ("A^T", "A"),
    (r"A\times B", r"B\times A"),
    (r"\Pi", r"\pi"),
    (r"\Gamma", r"\gamma"),
    ("1.23456789", "1.23456788"),
    ("1.0000005", "1.0000004"),
    (r"\pi+10^{-50}", r"\pi"),
    (r"\sin(10^{-30})", "10^{-30}"),
    ("0x10", "0"),
    ("€5", "$5"),
    (r"\$5", r"5\%"),
    ("5°C", "5°F"),
    ("2^3^2", "64"),
    ("x<1 and x>-1", "x<1 or x>-1"),
    (r"\{x\}", "x"),
    ("x^{2y}", "x^2y"),
    ("2^{n+1}", "2^n+1"),
    ("1 1/2", "11/2"),
    ("2 3", "23"),
    ("{5", "5"),
    (r"\frac123", r"\frac{12}{3}"),
]
READ = [
    (r"So $\sqrt{16} = 4$. The answer is $\sqrt{16} = 4$.", "number", "4"),
    (r"\boxed{2^{10} = 1024}", "number", "1024"),
    ("The answer is 18, because she sells 9 eggs at $2 each.", "number", "18"),
    ("The answer is 6, not 5.", "number", "6"),
    ("The answer is 18 since she sells 9 eggs.", "number", "18"),
    (r"The answer is \boldsymbol{18}.", "number", "18"),
    ("The answer is 9.8 m/s^2.", "number", "9.8"),
    ('{"reasoning": "3*6", "answer": 18}', "number", "18"),
    ('{"answer": "B"}', "choice", "(B)"),
    ("<final_answer>18</final_answer>", "number", "18"),
    ("<ANSWER>18</ANSWER>", "number", "18"),
    (r"<answer>\boxed{18}</answer>", "number", "18"),
    ("<b>Answer:</b> 18", "number", "18"),
    ("**Final Answer:**<br>18", "number", "18"),
    ("The answer is:\n```\n18\n```", "number", "18"),
    ("【答案】18", "number", "18"),
    ("故选：B", "choice", "(B)"),
    ("因此选择B。", "choice", "(B)"),
    ("The answer is therefore B.", "choice", "(B)"),
    (r"\boxed{\mathbf{B}}", "choice", "(B)"),
    ("Ans: B", "choice", "(B)"),
    ("La respuesta correcta es la B.", "choice", "(B)"),
    ("La bonne réponse est la B.", "choice", "(B)"),
    ("正解は「B」です。", "choice", "(B)"),
    ("The answer is (B), not (D).", "choice", "(B)"),
    ("No, it is not true.", "boolean", "No"),
]


@pytest.mark.parametrize("clause", [clause for kind in NO_NUMBER.values() for clause in kind])
def test_a_number_with_a_twist_is_none(clause: str) -> None:
    assert extract(f"So the answer is {clause}.", "number") is None


@pytest.mark.parametrize("text", NOT_ANSWERED)
def test_what_is_denied_supposed_retracted_or_part_of_a_formula_is_no_answer(text: str) -> None:
    assert extract(text, "number") is None


@pytest.mark.parametrize("text", OTHER_LANGUAGES)
def test_other_languages_deny_halve_and_scale_too(text: str) -> None:
    assert extract(text, "number") is None


@pytest.mark.parametrize("clause", NO_LETTER)
def test_a_letter_that_is_denied_or_one_of_several_is_none(clause: str) -> None:
    assert extract(f"The answer is {clause}", "choice") is None


@pytest.mark.parametrize("clause", NO_TRUTH)
def test_a_truth_value_that_is_hedged_or_abstained_from_is_none(clause: str) -> None:
    assert extract(f"Answer: {clause}", "boolean") is None


@pytest.mark.parametrize(("predicted", "gold"), UNLIKE)
def test_other_mathematics_is_not_equal(predicted: str, gold: str) -> None:
    assert not math_equal(predicted, gold)
    assert not math_equal(gold, predicted)


@pytest.mark.parametrize(("text", "kind", "answer"), READ)
def test_what_real_models_write_is_read(text: str, kind: str, answer: str) -> None:
    assert extract(text, kind) == answer


def test_a_letter_beside_the_text_of_another_option_is_none() -> None:
    options = ("London", "Paris", "Rome")
    said = ["(C) Paris", "Paris (C)", "B: Rome", "(B) Paris", "Paris", "E"]
    assert [extract(f"The answer is {text}", "choice", options) for text in said] == [
        None,
        None,
        None,
        "(B)",
        "(B)",
        None,
    ]
