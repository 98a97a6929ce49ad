"""Reading an answer: what a short text says as a number, an option letter, a yes or no, or as words.

The second half of `toolkit.answers`, which finds the answer in a completion first. Each reading is exact and gives None
where the text says nothing of its kind, or says several things: no containment, no prefix, no guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

# One character for one, so that offsets in the plain text are offsets in the original. NFKC would read 10² as 102.
PLAIN: dict[int, int] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms
for _alike, _plain in (
    ("−‐‑‒–﹣", "-"),
    ("“”„«»", '"'),
    ("‘’", "'"),
    ("【〔〖", "["),
    ("】〕〗", "]"),
    ("⁄∕", "/"),
    ("。", "."),
    ("\r\u2028\u2029", "\n"),
    ("\t\u00a0\u2007\u2009\u202f\u3000", " "),
):
    PLAIN.update(dict.fromkeys(map(ord, _alike), ord(_plain)))

_VULGAR = {ord(c): " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_WRAPPERS = [("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("$$", "$$"), ("$", "$")]
_WRAPPERS += [("\\(", "\\)"), ("\\[", "\\]"), ("\\text{", "}"), ("\\mathrm{", "}"), ("\\textbf{", "}")]


def tidy(answer: str) -> str:
    """Strip white space, markdown, quotation and mathematics marks around an answer, and one full stop."""
    answer = re.sub(r"\*\*([^*\n]{1,300})\*\*", r"\1", answer.strip())
    full_stop = True
    for _ in range(6):  # marks nest, as in **"Paris."**; bounded, so that 1 MB of them costs no more
        if full_stop and len(answer) > 1 and answer.endswith("."):
            answer, full_stop = answer[:-1].rstrip(), False
        answer = answer.removeprefix("**").removesuffix("**").strip()
        for left, right in _WRAPPERS:
            inner = answer[len(left) : len(answer) - len(right)]
            if answer.startswith(left) and answer.endswith(right) and inner.strip() and right not in inner:
                answer = inner.strip()
    return answer


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_CURRENCY = r"(?:Rs\.?[ ]?|USD[ ]?|[$£€¥₹])"
NUMBER = re.compile(
    rf"""(?<![0-9A-Za-z_.])(?<!\w-) (?P<sign>\A[-+][ ] | [-+](?=[0-9.$£€¥₹]))? {_CURRENCY}? (?P<inner>-)?
    (?:(?P<whole>[0-9]{{1,9}})[ ](?=[0-9]+/[0-9]))? (?P<value>{_DIGITS})
    (?:/(?P<below>[0-9]+(?:\.[0-9]+)?) | [eE](?P<power>[-+]?[0-9]{{1,3}})(?![0-9A-Za-z]))?""",
    re.VERBOSE,
)
_NOT_A_NUMBER = re.compile(
    r"""[,.:/' ]?[0-9] | -[0-9(] | [ ]to[ ][0-9]                      # date, time, ratio, range, "1 000"
    | [ ]?[A-Za-z]?[ ]?(?:[+×÷*^]|[ ]-[ ])[ ]?[\w($\\.-]            # a sum that nobody worked out
    | [⁰¹²³⁴-⁹] | [ ]?/[ ]?[(0-9] | \( | [ ]?x[ ]?[0-9]
    | [ ]?[,;][ ][$£€¥₹]?-?[0-9]                                     # a list""",
    re.VERBOSE,
)
_JOINED = re.compile(r"[^0-9]{0,60}?(?:\band\b|\bor\b|&)")
_NOT_THIS = re.compile(r"\b(?:not|less than|more than|fewer than|greater than|between|from)\b|n't\b", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dtc]?frac ?{ ?([0-9.,]{1,40}) ?} ?{ ?([0-9.,]{1,40}) ?}")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_LONGEST_NUMERAL = 400  # digits; Python refuses to convert strings beyond 4,300


def number(answer: str, *, alone: bool = False) -> Fraction | None:
    """The one number that the answer states, exact; None for none, for several and for a sum left open.

    A unit, a currency or a percent sign is read past ("50%" is 50). Of an equation the last right-hand side counts.
    With `alone`, for sentences that announce no answer, no other number may follow unless an equation led to this one.
    """
    plain = re.sub(r"<<[^<>\n]{0,200}>>", "", answer).replace("{,}", ",").replace("\\!", "").replace("\\,", "")
    plain = _FRACTION.sub(r" \1/\2", plain.replace("\\$", "$").replace("\\%", "%")).translate(_VULGAR)
    equation, stated = re.split(r"\\approx|[=≈]", plain), []
    if alone and len(equation) == 1:
        stated = [part for part in re.split(r"\b(?:is|are|was|were|equals)\b", plain) if re.search("[0-9]", part)]
    plain = tidy((stated or equation)[-1])
    if plain.lower() in _NAMES:
        return Fraction(_NAMES.index(plain.lower()))
    match = NUMBER.search(plain)
    if match is None or len(match.group()) > _LONGEST_NUMERAL or _NOT_THIS.search(plain[: match.start()]):
        return None
    rest = plain[match.end() :].replace("**", "")
    value = Fraction(match["value"].replace(",", "")) * Fraction(10) ** int(match["power"] or 0)
    below = Fraction(match["below"] or 1)
    if _NOT_A_NUMBER.match(rest) or not below:
        return None
    unit = re.match(r" ?([a-z]{0,9})", rest)
    value = (int(match["whole"] or 0) + value / below) * _SCALES.get(unit[1] if unit else "", 1)
    value = -value if "-" in ((match["sign"] or "").strip(), match["inner"]) else value
    other = NUMBER.search(rest)
    if other and ((alone and len(equation) == 1) or _JOINED.match(rest[: other.start()])) and number(rest) != value:
        return None
    return value


def numeral(value: Fraction) -> str:
    """Plain digits where the value has a finite decimal expansion, else `a/b`."""
    odd, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while odd % prime == 0:
            odd, power = odd // prime, power + 1
        places = max(places, power)
    if odd != 1:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    digits = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{digits}" if value < 0 else digits


_LETTER = re.compile(
    r"""(?:(?:the[ ])?(?:correct[ ])?(?:option|choice|letter|answer)[ :]{1,2})?
    (?: [(\[][ ]?(?P<bracketed>[A-Za-z])[ ]?[)\]]
      | (?P<bare>[A-Za-z]) (?= [ ]?\Z | [).:,;\]] | [ ]-[ ] | [ ]\( | /[A-Z]\b
                             | [ ](?:is|because|since|as|for|which|and|or|nor)\b)
    ) [).:\]]?""",
    re.VERBOSE | re.IGNORECASE,
)
_INITIALS = re.compile(r"[A-Za-z]\. ?[A-Za-z]\.")
_SECOND_LETTER = re.compile(
    r"[ ,]*(?:\band\b|\bor\b|\bnor\b|[,&/+]) ?(?i:option )?"
    r"(?:[(\[] ?[A-Za-z] ?[)\]]|[A-Z](?=\Z| ?[.,;)]| (?:and|or)\b))"
)
_ANYWHERE = re.compile(r"(?<!\w)[(\[] ?([A-Za-z]) ?[)\]]|\b[Oo]ption ([A-Z])\b|(?<!\S)([A-Z])\)")
_DENIAL = re.compile(r"\b(?:not|neither|none|nor|cannot|except|incorrect|wrong|both|all)\b|n't\b", re.IGNORECASE)


def letter(answer: str, choices: Sequence[str] = ()) -> str | None:
    """The option letter that the answer settles on, upper case; None for none, for several and for "not (D)".

    "A dog" is no letter. With `choices` an option given by its whole text is its letter.
    """
    match = _LETTER.match(answer)
    if match and not _INITIALS.match(answer):
        several = _SECOND_LETTER.match(answer, match.end())
        return None if several else (match["bracketed"] or match["bare"]).upper()
    texts = [words(choice) for choice in choices]
    if texts.count(words(answer)) == 1:
        return chr(ord("A") + texts.index(words(answer)))
    letters = {"".join(found).upper() for found in _ANYWHERE.findall(answer)}
    return letters.pop() if len(letters) == 1 and not _DENIAL.search(answer) else None


TRUTH = re.compile(r"\b(yes|no|true|false|valid|invalid)\b", re.IGNORECASE)
_OPPOSITE = {"true": "false", "false": "true", "valid": "invalid", "invalid": "valid"}
_SAME = {"true": "yes", "false": "no"}


def truth(answer: str, *, at_edge: bool = False) -> str | None:
    """The yes, no, true, false, valid or invalid that the answer states, as written; None for none or for several.

    The first word of the answer counts whatever follows ("No, it is not true"), elsewhere the only one, undenied.
    With `at_edge` that one must also be the last word.
    """
    found = list(TRUTH.finditer(answer))
    if not found:
        return None
    first, rest = found[0], answer[found[0].end() :]
    if not re.search(r"\w", answer[: first.start()]):
        opposed = _OPPOSITE.get(first[1].lower()) in (match[1].lower() for match in found)
        return None if opposed or re.match(r"[\s,/]*(?:or|and|nor)\b|/", rest) else first[1]
    if len({same_truth(match[1]) for match in found}) > 1 or (at_edge and re.search(r"\w", answer[found[-1].end() :])):
        return None
    return None if re.search(r"\b(?:not|neither|cannot)\b|n't\b", answer, re.IGNORECASE) else first[1]


def same_truth(word: str) -> str:
    """The word that stands for all words of one meaning: yes for true, no for false, in lower case."""
    return _SAME.get(word.lower(), word.lower())


def words(answer: str) -> str:
    """A text answer in the form that is compared: case, spacing, commas and closing marks do not count."""
    text = re.sub(r",(?=\s)", " ", unicodedata.normalize("NFC", tidy(answer.translate(PLAIN))).casefold())
    text = " ".join(text.split())
    if re.fullmatch(r"[][(){}<>\s,\"']+", text) and re.search(r"[][(){}<>]", text):
        text = re.sub(r"[\s,\"']", "", text)  # Dyck words: `] ] >`, `]]>` and `"]", "]", ">"` are one answer
    return text.rstrip(" .,;:") or text
