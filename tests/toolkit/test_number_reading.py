"""A number is read whole or not at all: what a clause says as one number, by kind of clause."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.answer_marks import plain
from toolkit.answers import extract
from toolkit.number_reading import number, numeral

# Kind -> what states one number, with its value, which is written by hand; and what states none.
# fmt: off
STATED = {
    'fractions': [
        r"\frac12 = 1/2", r"-\frac12 = -1/2", r"\frac{3}{4} = 3/4", r"\frac{-3}{4} = -3/4",
        r"\frac{1,000}{3} = 1000/3", r"\frac{12}5 = 12/5", '5/7 = 5/7', r"\tfrac{22}{7}\text{ cm} = 22/7",
    ],
    'mixed numbers': [
        r"2 \frac{22}{75} = 172/75", r"2\frac12 = 5/2", r"-2\frac{1}{2} = -5/2", '1 1/2 = 3/2', '3½ = 7/2',
        '2 ⅓ = 7/3',
    ],
    'powers of ten': [
        r"5 \times 10^3 = 5000", r"5\cdot10^{-3} = 1/200", '5×10³ = 5000', '5x10^3 = 5000', '5*10^3 = 5000',
        '10^{6} = 1000000', '10⁻² = 1/100', '-10^2 = -100', r"3.2\times10^{5} = 320000", '5e3 = 5000',
        r"5.0\times 10^{2} \text{ m} = 500",
    ],
    'grouping': [
        "1'234'567 = 1234567", '1\u202f234 = 1234', '12\xa0345 = 12345', '9\u2009876\u2009543.5 = 9876543.5',
        '1\u2007000 = 1000', '12,34,567 = 1234567', '1,00,000 = 100000', '1,00,00,000 = 10000000',
        r"5\,000 = 5000", '5{,}000 = 5000', '1’234 = 1234',
    ],
    'scale words': [
        '5 million = 5000000', '2.5 hundred = 250', '5 hundred thousand = 500000', '5 lakh = 500000',
        '5 crore = 50000000', '$1.5 billion = 1500000000', '5万 = 50000', '3億 = 300000000',
        '5 Million = 5000000', '2 thousand people = 2000',
    ],
    'units': [
        r"60^\circ = 60", r"60^{\circ} = 60", '60° = 60', '5cm = 5', '5 cm^2 = 5', '5 cm² = 5',
        r"5\text{ cm}^2 = 5", r"5 \mathrm{~m/s} = 5", '60 km/h = 60', r"5\% = 5", '5 percent = 5',
        r"\$5.50 = 11/2", '5 € = 5', 'US$5 = 5', '-7 °C = -7', '5th = 5', '5-year-old = 5', '5 a day = 5',
        '5个苹果 = 5', '第5 = 5',
    ],
    'signs': [
        '- 5 = -5', '(-5) = -5', '−5 = -5', 'negative 5 = -5', 'minus 5 = -5', '负5 = -5', '$-3$ and = -3',
        '+5 = 5',
    ],
    'equations': [
        'x=2 = 2', '$x=5$ = 5', 'x_1 = 5 = 5', '50 - (3 + 11 + 9) = 27 = 27', '6 / 12 = 1/2 = 50% = 50',
        '1,200 - 200 = 1,000 = 1000', '5 apples = 10 pears = 10',
    ],
    'dress': [
        '$5$ apples = 5', r"\text{5} = 5", r"\mathbf{5} = 5", r"\left(5\right) = 5", '{5} = 5', '**5** = 5',
        'about 5 = 5', '5 — a prime = 5', '5; done = 5',
    ],
    'remarks': [
        '18 eggs per day for 7 days = 18', '1 (they will need at least 1 bus) = 1', '5, not counting Ann = 5',
        '3 times as many = 3',
    ],
}
NOT_STATED = {
    'roots': [
        r"4\sqrt{2}", r"\sqrt2", r"\frac{1}{\sqrt2}", '√5', '√(5)', 'sqrt(5)', '2 sqrt 3', 'square root of 5',
        'cube root of 8',
    ],
    'constants': [
        r"2\pi", '2π', '2 pi', r"\frac{\pi}{2}", '3 pi/4', r"\frac{3}{4}\pi", 'e^2', '2e', '5∞', r"\infty",
    ],
    'plus or minus': [
        r"\pm 2021", '±5', r"3 \pm 1", '5 ± 1', '+-5', r"\mp 2",
    ],
    'powers and factorials': [
        '5!', '5 factorial', 'factorial of 5', '2^{10}', '2^3', '2**3', '5²', '5 squared', '5⁻¹', r"\frac34^2",
        r"\binom{5}{2}", '5 choose 2', 'C(5,2)',
    ],
    'functions': [
        'log 5', r"\log 5", 'sin 30', 'f(5)', '|5|', '|-5|', r"\lfloor 5 \rfloor", '⌊5⌋', 'half of 8',
        'twice 5', '1/2 of 8', '20% of 50', '5 mod x',
    ],
    'sums left open': [
        '5 + 3', '5 × 3', '5 * 3', '5(3)', '(5)(3)', '5+', 'x - 5', 'x -5', '3 - x', '--5', '-(5)', '-(-5)',
        'x minus 5', '5 divided by x', '5 - the total', 'legs / 2',
    ],
    'variables': [
        '5x', '5 x', '5n', '5i', '5+3i', '5a', '5 xy', '4j', r"\frac{3}{4}x", r"3\frac{x}{2}", '1.5 y',
        '2x = 10', '10 = x', 'sol[1]',
    ],
    'several solutions': [
        'x=2, y=3', '2 or 3', '2 and 3', r"2 \text{ or } 3", '2, 3', '2; 3', r"\{2, 3\}", '(2, 3)', '[2,3]',
        '(x, 5)', 'x = 2 or x = -3', 'a = 2 b = 3', '5 apples, 6', '5 dollars and 50 cents',
        '180 socks and 120 dishes', '2040 minutes or 34 hours',
    ],
    'compound quantities': [
        '5 feet 6 inches', '2 hours 30 minutes', '2 hours and 30 minutes', '5\'6"', "5° 30'", '5 lb. 3 oz',
        '5 million 200 thousand', '5 pounds, 3 ounces',
    ],
    'words that change it': [
        '3 and a half', '3 and three quarters', '5 halves', '7 tenths', '2 thirds', '3 dozen', '5 (thousand)',
        '5 (in millions)', '5 mil', '5 Milliarden', '5 grand', '5成',
    ],
    'letters that change it': [
        '5k', '5K', '$5M', '5 bn', '5mn', '5T', '5G',
    ],
    'bases': [
        '101_2', '1011_{2}', '0x1F', '0b101', '1F', '5 (base 8)', '5 base 8', '3 mod 7', r"3 \pmod 7",
        r"3 \bmod 7",
    ],
    'bounds': [
        'at least 5', '> 5', r"\geq 5", 'x > 5', '≤5', '5 < x < 7', 'x ≠ 5', '5 or more', 'up to 5',
        'more than 5', 'not 5', 'nearly 5', 'under 5',
    ],
    'ranges and ratios': [
        '5 to 7', '5-7', '5–7', '5..7', 'between 5 and 7', '5 : 3', '5:3', '5:30', '5 out of 7', '5 in 7',
        '5 of 7', '5 per 7 days', '5 → 7',
    ],
    'dates and versions': [
        '01/02/2003', '2003-01-02', '1/2/3', '3.5.2', 'v2.0', 'B-52', 'H2O',
    ],
    'unknown grouping': [
        '1 234', '1,2345', '1.234.567', '1,23', '1\xa0234,5', '5_000', '1 000 000',
    ],
    'endless': [
        '0.333...', r"0.\overline{3}", '3.14…', '1, 2, 3, ...', '0.(3)',
    ],
    'other digits': [
        '٤٢', '①', '५', 'Ⅳ',
    ],
    'no fraction': [
        '5/0', r"\frac{5}{0}", '1 5/2', '3/4 1/2', '1/2/3', r"\frac{1}{x}",
    ],
}
# fmt: on


def cases(table: dict[str, list[str]]) -> list[str]:
    return [case for kind in table.values() for case in kind]


@pytest.mark.parametrize("case", cases(STATED))
def test_one_number_is_read_whole(case: str) -> None:
    text, _, value = case.rpartition(" = ")
    assert number(plain(text)) == Fraction(value)


@pytest.mark.parametrize("text", cases(NOT_STATED))
def test_what_is_not_wholly_one_number_is_none(text: str) -> None:
    assert number(plain(text)) is None
    assert extract(f"So the answer is {text}.", "number") is None
    assert extract(f"So $\\boxed{{{text}}}$.", "number") is None


def test_scales_of_east_asia_are_values() -> None:
    scales = {"百": 2, "千": 3, "万": 4, "萬": 4, "만": 4, "亿": 8, "億": 8, "억": 8}
    assert {sign: number(f"3{sign}") for sign in scales} == {sign: 3 * 10**power for sign, power in scales.items()}
    assert number("3百万个") == 3_000_000


def test_letters_that_are_words_are_no_variables_and_other_digits_before_spoil_a_number() -> None:
    assert [number(text) for text in ("5 I think", "5 a day")] == [5, 5]
    assert [number(text) for text in ("A4 paper 5", "5 b", "5 I")] == [None, None, None]


def test_where_a_comma_is_the_decimal_mark_three_digits_behind_a_mark_are_refused() -> None:
    read = {
        text: number(text, decimal_comma=True)
        for text in ("3,5", "-0,25 Euro", "1.234", "1,234", "1.234,5", "12", "2,50")
    }
    assert read == {
        "3,5": Fraction(7, 2),
        "-0,25 Euro": Fraction(-1, 4),
        "1.234": None,
        "1,234": None,
        "1.234,5": None,
        "12": 12,
        "2,50": Fraction(5, 2),
    }


DRESSES = [
    "{}",
    "${}$",
    "**{}**",
    "{} apples",
    "x = {}",
    "\\text{{{}}}",
    "it is {}",
    "{} (in total)",
    "{}.",
    "{} km/h",
    "\\left({}\\right)",
]
VALUES = st.fractions(max_denominator=999).map(lambda value: (str(value), value)) | st.decimals(
    allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12
).map(lambda value: (f"{value:,}", Fraction(value)))


@given(VALUES, st.sampled_from(DRESSES))
@example(("-1/3", Fraction(-1, 3)), "{}")
def test_every_number_is_read_in_every_dress(written: tuple[str, Fraction], dress: str) -> None:
    text, value = written
    assert number(plain(dress.format(text))) == value


AROUND = [
    *(
        "\\sqrt{{{}}}",
        "\\sqrt[3]{{{}}}",
        "{}\\sqrt{{2}}",
        "\\pm {}",
        "{}!",
        "{}^2",
        "{}^{{3}}",
        "x^{{{}}}",
        "{}_2",
        "{}\\pi",
        "{} + x",
        "x + {}",
    ),
    *(
        "x - {}",
        "{}x",
        "{} x",
        "{}i",
        "f({})",
        "\\log {}",
        "\\sin {}",
        "|{}|",
        "{} \\pmod 7",
        "{} or 1.0625",
        "{}, 1.0625",
        "1.0625; {}",
        "{}...",
    ),
    *(
        "> {}",
        "\\leq {}",
        "at least {}",
        "not {}",
        "{} and a half",
        "{}k",
        "{} dozen",
        "{} (base 8)",
        "{} : 1.0625",
        "{} to 1.0625",
        "({}, y)",
    ),
    *(
        "\\{{{}, y\\}}",
        "{} feet 1.0625 inches",
        "half of {}",
        "twice {}",
        "{} squared",
        "{}\\ldots",
        "{} \\cdot 3",
        "3({})",
        "{}%% of 7".replace("%%", "%"),
    ),
]


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(AROUND))
def test_a_number_inside_of_something_is_none(value: int, around: str) -> None:
    assert number(plain(around.format(value))) is None


PIECES = ["7", "10", "2.5", "-", "+", "×", "/", "^", "(", ")", " ", "{", "}", "x", ",", "=", "!", "%"]
WHOLE = re.compile(
    r"""[({ ]* (?P<sign>[-+]?)[ ]? (?:(?P<whole>[0-9]+)[ ](?=[0-9]+/))?
    (?P<above>[0-9]+(?:[.][0-9]+)?) (?:/(?P<below>[0-9]+(?:[.][0-9]+)?))?
    (?P<tens>[ ]?[×x][ ]?10[ ]?\^[ ]?[({]*(?P<power>[-+]?[0-9]+)|[ ]?\^[ ]?[({]*(?P<exponent>[-+]?[0-9]+))? [)}%, ]*""",
    re.VERBOSE,
)


@settings(max_examples=1_500)
@given(st.lists(st.sampled_from(PIECES), max_size=9))
def test_what_is_read_out_of_any_signs_is_one_whole_numeral_by_another_grammar(pieces: list[str]) -> None:
    text = "".join(pieces)
    value = number(text)
    if value is None:
        return
    whole = WHOLE.fullmatch(text.rpartition("=")[2])
    assert whole is not None
    expected = int(whole["whole"] or 0) + Fraction(whole["above"]) / Fraction(whole["below"] or 1)
    if whole["exponent"]:
        assert expected == 10
    expected = (
        Fraction(10) ** int(whole["exponent"])
        if whole["exponent"]
        else expected * Fraction(10) ** int(whole["power"] or 0)
    )
    assert value == (-expected if whole["sign"] == "-" else expected)


@pytest.mark.parametrize("unit", ["7 and 7 ", "7 and ", "(7) ", "1/2 ", "1,", "million ", "x = ", "\\frac{1}{", "{7}"])
def test_a_long_clause_is_read_without_recursion(unit: str) -> None:
    assert number(unit * 2_000) is None


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_raises(text: str) -> None:
    for value in (number(plain(text)), number(plain(text), alone=True, decimal_comma=True)):
        assert value is None or isinstance(value, Fraction)


VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def test_numbers_that_are_one_character_or_one_word_are_read() -> None:
    assert {sign: number(sign) for sign in VULGAR} == {sign: Fraction(value) for sign, value in VULGAR.items()}
    assert {sign: number(f"2{sign}") for sign in VULGAR} == {
        sign: 2 + Fraction(value) for sign, value in VULGAR.items()
    }
    assert [number(name) for name in NAMES] == [Fraction(value) for value in range(13)]
    assert [number(f"1.5 {scale} people") for scale in SCALES] == [Fraction(3, 2) * value for value in SCALES.values()]
    assert number("Twelve.") == 12
    assert number("1.5 millions") == 1_500_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("1,234,567.5", "1234567.5"),
            ("Rs. 50", "50"),
            ("Rs 50", "50"),
            ("USD 50", "50"),
            ("£50", "50"),
            ("€50", "50"),
            ("¥5", "5"),
        ),
        *(
            ("₹5", "5"),
            ("$-5", "-5"),
            ("-$5", "-5"),
            ("- 5", "-5"),
            ("+5", "5"),
            ("it is -5", "-5"),
            ("3 -5", None),
            ("\\$5", "5"),
        ),
        *(
            ("1e3", "1000"),
            ("2.5E-1", "0.25"),
            ("1e+2", "100"),
            ("3 1/2", "7/2"),
            ("1/2.5", "2/5"),
            ("50\\%", "50"),
            ("5{,}000", "5000"),
        ),
        *(
            ("1\\,000\\!", "1000"),
            ("\\dfrac{1}{2}", "1/2"),
            ("\\tfrac{ 1 }{ 2 }", "1/2"),
            ("\\cfrac12", "1/2"),
            ("2\\frac{1}{2}", "5/2"),
        ),
        *(
            ("x = 5 = 6", "6"),
            ("x \\approx 3.1", "3.1"),
            ("x ≈ 3.1", "3.1"),
            ("<<1+1=2>>2", "2"),
            ("5, the total", "5"),
            ("5 m", "5"),
        ),
        *(
            ("5 and 5", "5"),
            ("5 and 6", None),
            ("5 or 6", None),
            ("5 & 6", None),
            ("5 apples, 6", None),
            ("5 (6)", None),
            ("5(6)", None),
        ),
        *(
            ("5:30", None),
            ("5'6", None),
            ("5-6", None),
            ("5-(6)", None),
            ("5 to 6", None),
            ("5 x 6", None),
            ("5 × 6", None),
            ("5*6", None),
        ),
        *(
            ("5 ÷ 6", None),
            ("5^2", None),
            ("5²", None),
            ("5 / 6", None),
            ("5 - x", None),
            ("5 + x", None),
            ("5x + 1", None),
        ),
        *(
            ("5; 6", None),
            ("5, $6", None),
            ("5, -6", None),
            ("1 000", None),
            ("12.5.3", None),
            ("v5", None),
            ("x_5", None),
            ("a-5", None),
        ),
        *(
            ("more than 5", None),
            ("fewer than 5", None),
            ("greater than 5", None),
            ("between 5", None),
            ("from 5", None),
            ("isn't 5", None),
        ),
        *(("Not 5", None), ("5/0", None), ("", None), ("none", None), ("9" * 400, "9" * 400), ("9" * 401, None)),
    ],
)
def test_a_text_states_one_number_or_none(text: str, value: str | None) -> None:
    assert number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        ("7", "7"),
        ("-7", "-7"),
        ("1/2", "0.5"),
        ("-1/8", "-0.125"),
        ("1/20", "0.05"),
        ("1/3", "1/3"),
        ("-7/6", "-7/6"),
        ("5/2", "2.5"),
        ("0", "0"),
        ("1/25", "0.04"),
        ("300", "300"),
    ],
)
def test_a_number_is_written_in_plain_digits_where_it_has_them(value: str, digits: str) -> None:
    assert numeral(Fraction(value)) == digits
