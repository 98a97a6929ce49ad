r"""Reading one number out of an answer, exactly, or nothing: a clause that is not wholly understood states no number.

What stands before, in and behind the first numeral decides. A unit, a currency and a remark are read past; a numeral
that is only part of something (`4\sqrt{2}`, `\pm 3`, `x - 5`, `5 feet 6 inches`, `101_2`, `2 or 3`) is refused, because
a wrong number that is called right costs more than a right one that is rejected. Values that are written in another
way are theirs: `5 \times 10^3`, `2 \frac{22}{75}`, `1.5 million`, `12,34,567`.

Nothing is computed: an open sum, a product, a root or a factorial is no number.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from toolkit.answer_marks import GROUPING_SPACE, tidy
from toolkit.number_words import CHANGING, MONTHS, NUMBER_WORDS, RELATING, SPOILING, TAKING, TURNING

_LONGEST_NUMERAL = 400  # digits; Python refuses to convert strings beyond 4,300

# --- mathematics in plain signs ------------------------------------------------------------------------------------

_VULGAR = {ord(c): " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_CALCULATOR = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's annotations
_WORDS_IN_MATHEMATICS = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf|mathit|mbox|hbox|operatorname) ?{([^{}]*)}"
)
_ARGUMENT = r" ?(?:{{ ?(?P<{0}>-?[0-9][0-9.,]{{0,40}}) ?}}|(?P<{0}1>[0-9]))"
_FRACTION = re.compile(r"(?P<whole>[0-9])? ?\\[dtc]?frac" + _ARGUMENT.format("above") + _ARGUMENT.format("below"))
_MATHEMATICAL_PAIR = re.compile(r"\$\$?([^$\n]+)\$\$?(?![0-9])")
_SIGNS = [
    (re.compile(pattern), sign)
    for pattern, sign in (
        (r"(?<=[0-9])(?:\\[,:;! ]|\{,\}|\{ \})(?=[0-9]{3}(?![0-9]))", ","),  # 1\,000 and 1{,}000
        (r"\\[!]|\\(?:left|right|big|Big|displaystyle|textstyle)(?![A-Za-z])", ""),
        (r"\\[,:; ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\[()\[\]]", " "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "×"),
        (r"\\div(?![A-Za-z])", "÷"),
        (r"\\(?:approx|simeq|doteq)(?![A-Za-z])", "≈"),
        (r" ?\^ ?(?:{ ?\\circ ?}|\\circ(?![A-Za-z]))|\\(?:text)?degree(?:s)?(?![A-Za-z])", "°"),
        (r"\\pounds(?![A-Za-z])", "£"),
        (r"\\euro(?![A-Za-z])", "€"),
        (r"\\cents?(?![A-Za-z])", "¢"),
        (r"\\([%$#&])", r"\1"),
    )
]


def _in_plain_signs(answer: str) -> str | None:
    """Return the answer without LaTeX; None where a command or a brace is left."""
    plain = _CALCULATOR.sub("", answer)
    if "\\" in plain or "$" in plain or "{" in plain or "~" in plain:
        plain = _MATHEMATICAL_PAIR.sub(r" \1 ", plain.replace("\\$", "\\$ "))
        plain = _WORDS_IN_MATHEMATICS.sub(r" \1 ", plain)
        for pattern, sign in _SIGNS:
            plain = pattern.sub(sign, plain)
        plain = _FRACTION.sub(_in_one_line, plain)
        plain = re.sub(r"(10 ?\^) ?{ ?([-+]?[0-9]{1,3}) ?}", r"\1\2", plain)
        plain = re.sub(r"(?<=[a-z]) ?\^ ?{ ?([23]) ?}", r"^\1", plain)
        plain = re.sub(r"\A{(.*)}\Z", r"\1", plain.strip())
    return None if re.search(r"[\\{}]", plain) else re.sub(" {2,}", " ", plain.translate(_VULGAR))


def _in_one_line(found: re.Match[str]) -> str:
    above, below = found["above"] or found["above1"], found["below"] or found["below1"]
    return f"{found['whole']} {above}/{below}" if found["whole"] else f"{above}/{below}"


# --- the numeral ---------------------------------------------------------------------------------------------------

_DIGITS = rf"""(?:
    [0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?              # 1,234,567.5
  | [0-9]{{1,2}}(?:,[0-9]{{2}})+,[0-9]{{3}}(?![0-9])(?:\.[0-9]+)?   # 12,34,567
  | [0-9]{{1,3}}(?:'[0-9]{{3}})+(?![0-9'])(?:\.[0-9]+)?             # 1'234'567
  | [0-9]{{1,3}}(?:{GROUPING_SPACE}[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?
  | [0-9]+(?:\.[0-9]+)? | \.[0-9]+)"""
_CURRENCY = r"(?:Rs\.?[ ]?|USD[ ]?|[$£€¥₹][ ]?)"
NUMBER = re.compile(
    rf"""(?<![0-9A-Za-z_.])(?<!\w-) (?P<sign>\A[-+][ ] | [-+](?=[0-9.$£€¥₹]))? {_CURRENCY}? (?P<inner>-)?
    (?:(?P<whole>[0-9]{{1,9}})[ ](?=[0-9]+/[0-9]))? (?P<value>{_DIGITS})
    (?:/(?P<below>[0-9]+(?:\.[0-9]+)?)
     | [eE](?P<power>[-+]?[0-9]{{1,3}})(?![0-9A-Za-z]) )?""",
    re.VERBOSE,
)
_RAISED = {ord(c): p for c, p in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True)}
_EXPONENT = r"(?:\ ?\^\ ?\(?(?P<flat>[-+]?[0-9]{1,3})\)?|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}))(?![0-9⁰¹²³⁴-⁹]|\.[0-9])"
_TIMES_TEN = re.compile(r" ?[×*xX·⋅∙] ?10" + _EXPONENT)
_EXPONENT_OF_TEN = re.compile(_EXPONENT)
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def number(answer: str, *, alone: bool = False, decimal_comma: bool = False) -> Fraction | None:
    """Return the one number that the answer states, exact; None for none, for several and for a part of something.

    Of an equation the last right-hand side counts; "50%" is 50, "60^\\circ" 60.

    Args:
        answer: An answer clause in plain characters (`answer_marks.plain`).
        alone: The sentence announces no answer: no other number may follow unless an equation led to this one.
        decimal_comma: The clause is of a language that writes 3,5 for 3.5: "1.234" and "1,234" are refused then.
    """
    *before, last = re.split(r"=|≈|\\approx(?![a-z])", _CALCULATOR.sub("", answer))
    plain = _in_plain_signs(last)
    if plain is None or any(map(_UNSOLVED.search, before)) or any(map(_ANOTHER_EQUATION.search, before[1:])):
        return None
    if "\\\\" in answer or _VARIABLE_IN_DOLLARS.search(answer) or (alone and _UNSETTLED.search(answer)):
        return None
    parts = [*before, plain]
    stated = []
    if alone and len(parts) == 1:
        stated = [part for part in _STATED.split(plain) if re.search("[0-9]", part)]
    said = tidy((stated or parts)[-1])
    if said.lower() in _NAMES:
        return Fraction(_NAMES.index(said.lower()))
    if decimal_comma:
        if _THREE_BEHIND_A_MARK.search(said):
            return None
        said = _DECIMAL_COMMA.sub(r"\1.\2", said)
    return _only_number(said, may_go_on=not (alone and len(parts) == 1))


_VARIABLE_IN_DOLLARS = re.compile(r"\$[^$]*[0-9}] ?[A-Za-z]\$")  # "$5 m$": m is no metre in a formula
# A sentence that announces nothing and weighs, supposes or points somewhere is no conclusion.
_UNSETTLED = re.compile(
    r"""\b(?:wrong|incorrect|impossible|cannot|not|too|suppose|let|assume|consider|if|check|step|case|theorem|lemma
    |example|equation|figure|table|section|page|chapter|line|born|died|maybe|perhaps|think|guess|unless|might|could
    |wait|actually|hmm)\b | n't\b | \?\s*\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_STATED = re.compile(r"\b(?:is|are|was|were|equals)\b")
_THREE_BEHIND_A_MARK = re.compile(r"[0-9][.,][0-9]{3}(?![0-9])")
_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]+),([0-9]+)(?![0-9.,])")
# "2x = 10" and "\sqrt{x} = 5" are no answers, and in "5 when x = 2" the answer stands before.
_UNSOLVED = re.compile(
    r"[0-9] ?[xyznk]\b(?! ?[0-9(])|\\[a-z]+.*(?<![A-Za-z\\])[a-z](?![A-Za-z])"
    r"|[0-9].*\b(?:when|if|where|for|given|with|at) [A-Za-z]\w?\s*\Z"
)
# What stands between two signs is one expression: "x=2, y=3" and "a = 2 b = 3" are two equations.
_ANOTHER_EQUATION = re.compile(r"[0-9)].{0,60}(?:,(?![0-9]{3})|;|\b(?:and|or)\b)|[0-9)] ?[A-Za-z][ ]?\Z", re.DOTALL)


_CLOSES_AT_ONCE = re.compile(r"[^,;()\[\]]{0,40}[)\]]")  # "(5 cm)", but not "(5, y)"


def _only_number(said: str, may_go_on: bool) -> Fraction | None:
    """Return the number that `said` states, in plain signs and without an equation."""
    match = NUMBER.search(said)
    if match is None or len(match.group()) > _LONGEST_NUMERAL or any(map(_is_foreign_digit, said)):
        return None
    if _OTHER_BASE.search(said):
        return None
    sign = _sign_before(said[: match.start()])
    below = Fraction(match["below"] or 1)
    if match["inner"] and "-" in (match["sign"] or ""):
        return None
    if sign is None or not below or (match["below"] and "." in match["value"]):
        return None
    digits = re.sub(f"[,'{GROUPING_SPACE}]", "", match["value"])
    value, rest = Fraction(digits) / below, said[match.end() :]
    if said[: match.start()].rstrip()[-1:] in ("(", "[") and not _CLOSES_AT_ONCE.match(rest):
        return None
    if match["whole"]:
        if value >= 1:
            return None
        value += int(match["whole"])
    tens = _TIMES_TEN.match(rest)
    if tens is None and digits == "10" and match.group().lstrip("-+ ") == "10":
        tens, value = _EXPONENT_OF_TEN.match(rest), Fraction(1)
        value = value if tens else Fraction(10)
    if tens:
        if match["power"] or match["below"] or match["whole"]:
            return None
        rest = rest[tens.end() :]
        value *= Fraction(10) ** int(tens["flat"] or tens["raised"].translate(_RAISED))
    value *= Fraction(10) ** int(match["power"] or 0)
    if ("-" in ((match["sign"] or "").strip(), match["inner"])) != (sign < 0):
        value = -value
    scale = _scale_behind(rest, value, may_go_on)
    return None if scale is None else value * scale


def _is_foreign_digit(character: str) -> bool:
    """Whether it is a digit that is not one of 0 to 9: raised (a power), circled, of another script."""
    return not character.isascii() and character.isdigit() and character not in "²³" + "".join(map(chr, _RAISED))


# --- what stands before the numeral --------------------------------------------------------------------------------

_PART_OF_SOMETHING = re.compile(
    r"""[+*/^×÷·⋅∙√∛∜±∓<>≤≥≠≮≯!&|_\\∈∑∏∫π∞¬→⇒-][ ]?\Z   # the right side of an operator
    | [\w)\]}+*/^×÷·-][ ]?[(\[][ ]?\Z                    # f(5), (2)(5), -(5)
    | [)\]%,]\Z | (?<![\w'])[b-zB-HJ-Z],?[ ]?[(\[]?[ ]?\Z    # x 5, "(x, 5)"
    | \A[ ]*[,;%)\]] | [+×÷^|∑∏%!] | (?<!\*)\*(?!\*) | (?<![A-Za-z])/ | /(?![A-Za-z])   # what is left of a formula
    | [<>≤≥≠±√∛≮≯∈∞]""",
    re.VERBOSE,
)
_OTHER_BASE = re.compile(r"\b(?:bases?|binary|octal|decimal|hexadecimal|hex|mod|modulo)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['’][a-z]+)?")
_TAKING_SIGNS = re.compile(
    r"n't\b|[不没沒無无非未半约約]|至少|至多|最多|少なくとも|以上|루트|(?:^|[ ])-(?=[A-Za-z])|—\Z|" + MONTHS + r"[ ]\Z"
)


_NEGATIVE = re.compile(
    r"(?:\A|(?<=\s))(?:negative|minus)[ ]\Z|(?:\A)(?:moins|menos|minus|negativ|负|負|マイナス)[ ]?\Z", re.IGNORECASE
)
_NEGATIVE_AT_THE_END = re.compile(r"(?:moins|menos|minus|negative?|negativo|负|負|マイナス|零下)[ ]?\Z", re.IGNORECASE)


def _sign_before(before: str) -> int | None:
    """Return 1 or -1, the sign that the words before a numeral give it; None where it is part of something."""
    bare = before.rstrip("$£€¥₹*_\"'` ")
    bare = bare + " " if bare and before[-1:] == " " else bare
    negative = _NEGATIVE.search(bare)
    words = _WORD.findall(before[: negative.start()] if negative else before)
    taken = any(word.lower() in TAKING for word in words)
    if before.count(")") > before.count("(") or re.search("[0-9]", before) or taken or _TAKING_SIGNS.search(before):
        return None
    if negative:
        words = bare[: negative.start()].split()
        return -1 if not words or (negative.group().lower().startswith("neg") and len(words[-1]) > 1) else None
    return None if _PART_OF_SOMETHING.search(bare) or _NEGATIVE_AT_THE_END.search(bare) else 1


# --- what stands behind it -----------------------------------------------------------------------------------------

_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {f"{name}s": value for name, value in _SCALES.items()} | {"lakh": 10**5, "crore": 10**7}
_ATTACHED_SCALES = {
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "萬": 10**4,
    "亿": 10**8,
    "億": 10**8,
    "만": 10**4,
    "억": 10**8,
}
_MARK_OF_A_UNIT = re.compile(r" ?(?:%|°(?: ?[CF]\b)?|[¢$£€¥₹]|[\"″](?!\w))")
_ATTACHED = re.compile(
    r"""(?: st | nd | rd | th | [kcmµn]m | [kmµ]g | kgs | [mcdk][lL] | lbs? | oz | ft | in | yds? | mi
      | hrs? | mins? | secs? | ms | kWh? | km/h | mph | kph | [ap]m | cents? | [kMGT]B | [kMG]?Hz | k?cal | px | ha
      | mol )
    (?![A-Za-z0-9_])""",
    re.VERBOSE,
)
_UNIT_POWER = re.compile(
    r"(?<=[ 0-9/])([kcmd]?m|in|ft|yd|mi|s|inch(?:es)?|feet|meters?|metres?|units?) ?(?:\^ ?[23]|[²³])(?![0-9])"
)
_CLOSED = re.compile(
    r"""["'”’)\]*_`]{0,4} (?: [.,;:]? ["'”’)\]*_`]{0,4} \s* \Z                 # nothing more is said
      | [.,;:]? [ \n]+ (?: [^\W\d_] | ["'“‘*_`(—-] ) | [.,;:] (?=[^\W\d_]) | —      # or words follow
      | /[ ]?[A-Za-z]{2} | /[hs]\b | -[A-Za-z]{2} )""",
    re.VERBOSE,
)
_VARIABLE = re.compile(r"[ ]?(?:[b-fi-kn-rt-zB-EG-IKMO-RTX-Z]|[πθλα]|pi)(?![\w'’.])")
_NEXT_WORD = re.compile(r"[ -]([^\W\d_]+|‰)(?!\w)")
_GOES_ON = re.compile(
    r"\A[,;:]?[ ]?(?:[-/](?:[ /]|\Z)|[(\[])|\A[,;][ ]?(?:[b-zB-HJ-Z])(?![\w'’.])"
)  # "5 - the rest", "5, y"
_A_LETTER_THAT_IS_A_WORD = re.compile(r" (?:[ayo]|I) [A-Za-z]")
_OPERATOR = re.compile(r"[+×÷^√±∓≤≥≠<>∞π∫∑→⇒|…!]|\.\.|(?<![*\w])\*(?![*\s])|(?<=\s)\*(?=\s)")
_CHANGES_THE_NUMBER = re.compile(
    r"""[ ]to[ ]the[ ] | [ ]times(?![ ](?:as|more|larger|older|longer|higher|a[ ]\w)) | [ ]per[ ]mille
    | [成折割多余餘半] | 分之 | 以[上下内内] | 未[満满] | ダース | ではな | ではあり | じゃな | [가이][ ]?아[니닙]
    | [천백십] | \b(?:B\.?C|A\.?D)\b
    | \band[ ](?:a[ ]|an[ ]|one[ ])?(?:half|third|quarter|change|up|above|over|under|below|more|less)\b
    | \A(?:[ ]of)?[ ]"""
    + MONTHS,
    re.VERBOSE,
)
_EXPLAINED = re.compile(
    r"[,;:]?[ ]\(?(?:because|since[ ](?!\d)|rather[ ]than|instead[ ]of)\b|,[ ]not[ ]", re.IGNORECASE
)
_REMARK = re.compile(r"(?<= )\([^()]{0,200}\)")
# A remark may explain; it may not scale, correct or give a second value.
_CHANGING_REMARK = re.compile(
    r"\A\((?!(?:they|he|she|it|we|you|there)\b).*[0-9]|[∈≠×^]|\b(?:and|or|remainder|equals|in [a-z]+s|"
    + "|".join(sorted(NUMBER_WORDS))
    + r")\b",
    re.IGNORECASE | re.DOTALL,
)
# "for 7 days", "in 2 weeks": a second number that says for how long, with a unit of its own.
_LEADS_TO_ANOTHER = re.compile(
    r"\b(?:for|in|after|during|within|on)[ ](?:the[ ](?:next|last|first)[ ])?\Z", re.IGNORECASE
)
_HAS_A_UNIT = re.compile(r"[0-9]+[ -][A-Za-z]{2}")
_NUMERALS = re.compile(r"[0-9][0-9.,/']*")
_JOINED = re.compile(r"\b(?:and|or|und|oder|y|o|et|ou)\b|[&/和或と]")


def _scale_behind(rest: str, value: Fraction, may_go_on: bool) -> Fraction | None:
    """Return what the scale words behind a numeral multiply it by; None where what follows makes it another number."""
    if may_go_on and (explained := _EXPLAINED.search(rest)):
        rest = rest[: explained.start()]
    remarks = _REMARK.findall(rest)
    if any(map(_CHANGING_REMARK.search, remarks)):
        return None
    rest = _UNIT_POWER.sub(r"\1", _REMARK.sub("", rest).replace("**", ""))
    scale = Fraction(1)
    while (size := _ATTACHED_SCALES.get(rest[:1])) is not None:
        scale, rest = scale * size, rest[1:]
    unit = _MARK_OF_A_UNIT.match(rest)
    rest = rest[unit.end() :] if unit else rest
    if rest[:1].isalpha():
        attached = _ATTACHED.match(rest)
        if attached is None and rest[0].isascii():
            return None
        rest = rest[attached.end() :] if attached else rest
        closed = attached is None or _CLOSED.match(rest)
    else:
        closed = _CLOSED.match(rest)
    if not closed:
        return None
    while word := _NEXT_WORD.match(rest):
        if (size := _SCALES.get(word[1].lower())) is None:
            break
        scale, rest = scale * size, rest[word.end() :]
    variable = _VARIABLE.match(rest) and not _A_LETTER_THAT_IS_A_WORD.match(rest)
    words = [word.lower() for word in _WORD.findall(rest)]
    changed = not (
        RELATING.isdisjoint(words[:1])
        and TURNING.isdisjoint(words[:2])
        and CHANGING.isdisjoint(words[:4])
        and SPOILING.isdisjoint(words)
    )
    if variable or changed or any(pattern.search(rest) for pattern in (_OPERATOR, _GOES_ON, _CHANGES_THE_NUMBER)):
        return None
    return scale if _states_no_other(rest, value * scale, may_go_on) else None


def _states_no_other(rest: str, value: Fraction, may_go_on: bool) -> bool:
    """Whether what follows a number holds no other one, or one that is plainly no part of the answer."""
    other = re.search("[0-9]", rest)
    if other is None:
        return True
    between = rest[: other.start()]
    if _JOINED.search(between):
        again = NUMBER.search(rest)
        if len(_NUMERALS.findall(rest)) > 1:
            return False
        return again is not None and number(rest[again.start() :]) == value
    words = re.findall(r"\w+", between)
    leads = _LEADS_TO_ANOTHER.search(between) and _HAS_A_UNIT.match(rest, other.start())
    return may_go_on and len(words) > 1 and bool(leads)


def numeral(value: Fraction) -> str:
    """Return plain digits where the value has a finite decimal expansion, else `a/b`."""
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
