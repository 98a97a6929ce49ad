r"""Reading mathematics as it was written: one expression or a list of them, in the LaTeX that latex2sympy understands.

math-verify looks for something in a text that it can parse, so a fragment (`1` of `1+\frac{1}{\mathrm{e}}`) may stand
for the whole. Here a text is read whole or not at all (None): bases, ratios, sequences with dots, words and commands
that are not known are no expression. What is refused can still be equal as text (`toolkit.answers.matches`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from toolkit.answer_marks import plain

LONGEST = 2_000  # characters; longer "expressions" are prose


class Reading(NamedTuple):
    """What a text says.

    Attributes:
        items: The elements of a list in LaTeX; one for anything that is no list.
        brackets: What stands around the list: "", "()", "[]", "(]", "[)" or "{}".
        unit: Unit, percent or currency sign in one spelling, "" for none.
    """

    items: tuple[str, ...]
    brackets: str
    unit: str

    @property
    def is_relation(self) -> bool:
        """Whether it is one inequality."""
        return len(self.items) == 1 and bool(re.search(r"[<>]|\\(?:le|ge|leq|geq|ne)(?![a-z])", self.items[0]))

    @property
    def whole(self) -> str:
        """The text in one piece, e.g. an interval with its brackets."""
        left, right = ("\\{", "\\}") if self.brackets == "{}" else (self.brackets[:1], self.brackets[1:])
        return f"{left}{','.join(self.items)}{right}"


# --- where the expression stands -----------------------------------------------------------------------------------

_DELIMITED = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox) ?(?={)")


def read(text: str) -> Reading | None:
    """Return what a text says in mathematics, read whole; None where any part of it is not understood.

    Args:
        text: An answer, in LaTeX or plain, with or without dollar signs; or a sentence with one formula in them.
    """
    if len(text) > LONGEST:
        return None
    inside = _inside(plain(text).strip().removesuffix("."))
    if inside is None:
        return None
    written = _MEMBER.sub("", _in_latex(inside))
    written, unit = _without_unit(written)
    if unit is None or not _is_understood(written):
        return None
    brackets, inner = _brackets(written)
    items = tuple(item.strip() for item in _parted(inner, grouped=not brackets))
    if brackets not in ("", "{}") and len(items) == 1:
        items, brackets = (written.strip(),), ""  # (1) is grouped and no list
    if not brackets:
        items = tuple(item for each in items for item in _plus_and_minus(each))
    return Reading(items, brackets, unit) if all(items) else None


_MEMBER = re.compile(r"^ *[a-z] *\\in(?![a-z]) *(?=[(\[\\])")  # "x in (2, 3]" is that interval


def _plus_and_minus(item: str) -> list[str]:
    r"""Return the two values of `3 \pm 1`."""
    parts = re.split(r"\\pm(?![a-z])", item)
    return (
        [(parts[0] + sign + parts[1]).strip().removeprefix("+").strip() for sign in "+-"] if len(parts) == 2 else [item]
    )


def _inside(text: str) -> str | None:
    """Return the formula of a text: all of it, or what stands in dollar signs between words."""
    if box := _BOX.search(text):
        end = _closing(text, box.end())
        around = "" if end is None else (text[: box.start()] + text[end + 1 :]).strip("$ .\\()[]")
        return None if end is None or around else text[box.end() + 1 : end]
    formulas = [next(filter(None, found.groups())) for found in _DELIMITED.finditer(text)]
    if not formulas:
        return text
    around = _DELIMITED.sub(" ", text)
    if len(formulas) == 1:
        return None if re.search(r"[0-9\\^_=<>+]", around) else formulas[0]
    return None if re.sub(r"[\s,]|\b(?:and|or)\b", "", around) else ",".join(formulas)


def _closing(text: str, start: int) -> int | None:
    """Return where the brace that opens at `start` closes."""
    depth = 0
    for end in range(start, len(text)):
        if text[end] in "{}" and text[end - 1 : end] != "\\":
            depth += 1 if text[end] == "{" else -1
            if not depth:
                return end
    return None


# --- one spelling --------------------------------------------------------------------------------------------------

_SIGNS = {
    "π": r"\pi ",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": "/",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
}
_SIGNS |= {
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "±": r"\pm ",
    "∅": r"\emptyset ",
    "θ": r"\theta ",
}
_SIGNS |= {
    "α": r"\alpha ",
    "β": r"\beta ",
    "γ": r"\gamma ",
    "λ": r"\lambda ",
    "φ": r"\phi ",
    "°": r"^{\circ}",
    "√": r"\sqrt ",
}
_SIGNS |= {"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}"}
_SIGNS |= {"¹": "^{1}", "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "⁵": "^{5}", "⁻¹": "^{-1}"}
_FUNCTIONS = r"arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
_SPELLINGS = [
    (re.compile(pattern), spelling)
    for pattern, spelling in (
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])|\\(?:displaystyle|textstyle|limits)(?![A-Za-z])|\\!", ""),
        (r"(?<=[0-9])(?:\{,\}|\\,)(?=[0-9]{3}(?![0-9]))", ","),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|~|\n", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\(?:text(?:rm|bf|it)?|mathrm|mbox) ?\{ *(?:,? *(?:and|or) *)\}", ","),
        (rf"\\(?:text|mathrm|operatorname\*?) ?\{{ *({_FUNCTIONS}) *\}}", r"\\\1 "),
        (
            r"\\(?:text|mathrm|mathit|mathbf|textbf|operatorname) ?\{ *([A-FI-KM-Za-fi-kn-rt-z]) *\}",
            r"{\1}",
        ),  # no units
        (r"\\varnothing(?![A-Za-z])|\\\{ *\\\}", r"\\emptyset "),
        (r"\\leqs?lant(?![A-Za-z])|\\leq(?![A-Za-z])|<=", r"\\le "),
        (r"\\geqs?lant(?![A-Za-z])|\\geq(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:div)(?![A-Za-z])", "/"),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])sqrt *([0-9]+)(?![0-9A-Za-z.])", r"\\sqrt{\1}"),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS}|sqrt)(?=[ (]|$)", r"\\\1 "),
        (r",? *(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", ","),
        (r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]+)(?![\w.])", r"\1\\cdot 10^{\2}"),
        (r"\+ *-", "-"),
        (r"\^ *(-?[0-9]+)", r"^{\1}"),
        (r"\^ *\(([^()]*)\)", r"^{\1}"),
        (r"\\sqrt *\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\log *_ *(?:\{([^{}]*)\}|([0-9A-Za-z])(?![0-9]))", r"\\log_{\1\2} "),
    )
]
_TIMES_BRACKET = re.compile(rf"(?P<function>\\(?:{_FUNCTIONS})(?: *[_^] *\{{[^{{}}]*\}})*)? *(?P<end>[0-9)}}])? *\(")
_ONE_ARGUMENT = re.compile(r"\\sqrt *(\[[^\[\]]*\])? *(?:([0-9A-Za-z])(?![0-9])|(\\(?!frac|sqrt|binom)[A-Za-z]+))")
_TWO_ARGUMENTS = re.compile(r"\\(frac|binom) *(?=[^ {\\]|\{|\\)")


def _in_latex(text: str) -> str:
    """Return the text in one spelling of LaTeX: every argument in braces, plain operators and words as commands."""
    for sign, spelling in _SIGNS.items():
        text = text.replace(sign, spelling)
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    text = _TIMES_BRACKET.sub(_with_sign, text)
    text = _ONE_ARGUMENT.sub(lambda found: f"\\sqrt{found[1] or ''}{{{found[2] or found[3]}}}", text)
    return _arguments_in_braces(text)


def _with_sign(found: re.Match[str]) -> str:
    """Write 2(3) as a product: latex2sympy takes it for a mixed number. The argument of a function is none."""
    if found["function"]:
        return f"{found['function']} {found['end'] or ''}("
    return f"{found['end']}\\cdot (" if found["end"] else "("


def _arguments_in_braces(text: str) -> str:
    """Write `\frac12` as `\frac{1}{2}`."""
    done, rest = "", text
    while found := _TWO_ARGUMENTS.search(rest):
        done, rest = f"{done}{rest[: found.start()]}\\{found[1]}", rest[found.end() :]
        for _ in range(2):
            rest = rest.lstrip()
            end = _closing(rest, 0) if rest[:1] == "{" else None
            token = re.match(r"\\(?!frac|sqrt|binom)[A-Za-z]+|[A-Za-z]|[0-9](?![0-9])|[0-9](?=[0-9](?![0-9]))", rest)
            if end is not None:
                # The argument itself may hold a fraction, which is rewritten in its turn.
                done, rest = f"{done}{{{_arguments_in_braces(rest[1:end])}}}", rest[end + 1 :]
            elif token:
                done, rest = f"{done}{{{token.group()}}}", rest[token.end() :]
    return done + rest


# --- units ---------------------------------------------------------------------------------------------------------

_UNIT_WORDS = (
    r"(?:sq(?:uare|\.)? |cubic )?(?:[kcmd]m|mi|ft|in|yd|inch(?:es)?|feet|foot|miles?|yards?"
    r"|(?:kilo|centi|milli)?met(?:er|re)s?"
    r"|units?|degrees?|radians?|dollars?|cents?|percent|hours?|minutes?|seconds?|hrs?|mins?|secs?"
    r"|days?|weeks?|months?|years?"
    r"|kg|grams?|lbs?|pounds?|oz|ounces?|ml|liters?|litres?|gallons?|mph|km/h|m/s|people|students|ways|points)"
)
_UNIT = re.compile(
    rf" *(?:\\(?:text|mathrm|textrm|mbox) ?\{{ *({_UNIT_WORDS}|[mgsLlh])\.? *\}}"
    rf"|(?<=[0-9}}) ])({_UNIT_WORDS})(?![A-Za-z]))"
    r" *(?:\^ *\{ *([23]) *\})? *$",
    re.IGNORECASE,
)
_SAME_UNITS = {
    "inches": "in",
    "inch": "in",
    "feet": "ft",
    "foot": "ft",
    "hours": "hr",
    "hour": "hr",
    "hrs": "hr",
    "minutes": "min",
}
_SAME_UNITS |= {
    "minute": "min",
    "mins": "min",
    "seconds": "sec",
    "second": "sec",
    "secs": "sec",
    "degree": "°",
    "degrees": "°",
}
_SAME_UNITS |= {"percent": "%", "dollars": "$", "dollar": "$", "meters": "m", "meter": "m", "metres": "m", "metre": "m"}
_PERCENT = re.compile(r"(?<=[0-9}]) *\\?% *$")
_DEGREES = re.compile(r"^(-? *[0-9.]+) *\^ *\{? *\\circ *\}?(?: *([CF]))? *$")
_MONEY = re.compile(r"^(-?) *\\?([$£€¥]) *(?=[0-9.])")
_NUMERIC = re.compile(r"(?:[-+0-9., {}()/^]|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z]))*[0-9}) ](?:[{}() ]|\\pi)*")


def _without_unit(written: str) -> tuple[str, str | None]:
    """Return the expression and its unit in one spelling; None for words that are no unit of anything."""
    if found := _DEGREES.match(written):
        return found[1], f"°{found[2] or ''}"
    if found := _MONEY.match(written):
        rest, behind = _without_unit(written[found.end() :])
        return found[1] + rest, found[2] if behind == "" else None
    if found := _PERCENT.search(written):
        return written[: found.start()], "%"
    found = _UNIT.search(written)
    if found is None:
        return written, ""
    before = written[: found.start()]
    if not _NUMERIC.fullmatch(before):  # behind a variable `m` is one too, and `\\text{...}` no unit
        return written, ""
    word = re.sub(r"\s+", " ", found[1] or found[2]).lower()
    word = _SAME_UNITS.get(word, word)
    return before, f"{word}^{found[3]}" if found[3] else word


# --- what is understood --------------------------------------------------------------------------------------------

_COMMANDS = frozenset(
    f"""frac sqrt binom pi cdot times pm mp infty le ge ne cup cap in emptyset mathbb setminus lfloor rfloor lceil rceil
    begin end alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi
    varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega {_FUNCTIONS.replace("|", " ")}""".split()
)
_NOT_UNDERSTOOD = re.compile(
    r"""[^\x20-\x7e] | \.\. | : | !! | [?;'"`\#@&$%~] | -> | =>
    | [0-9)}\]][ ]*_                     # a base; x_1 and \log_2 are none
    | [0-9][ ]+[0-9] | (?<![A-Za-z])[ ]*_   # two numbers side by side, \log_28
    | /[ ]*(?:[0-9.]+[ ]*[A-Za-z\\]|[A-Za-z][ ]*[A-Za-z\\])   # 3/4x, 1/xy: which of two things?
    | \^\{[^{}]*\}[ ]*\^ | \^\{?[ ]*T\b | [A-Z][ ]*(?:\\times|\\cdot)?[ ]*[A-Z] # 2^3^2; matrices, which do not commute
    | (?<![A-Za-z0-9.])0[xXbBoO][0-9A-Fa-f]
    | \\circ | -- | [A-Za-z]{4} | [A-Za-z]{2}[ ]+[A-Za-z]{2}
    | (?!(?:[xyz]+|[abc]+)(?![A-Za-z]))(?<![A-Za-z])[A-Za-z]{3}
    | (?<![A-Za-z\\])[A-Za-z]{2,3}(?=[0-9]) # sqr2, log2""",
    re.VERBOSE,
)
_MATRIX = re.compile(r"\\begin\{([pb]matrix)\}(.*?)\\end\{\1\}", re.DOTALL)


def _is_understood(written: str) -> bool:
    """Whether nothing is in it that would be read as something else, or not at all."""
    matrices = [found[2] for found in _MATRIX.finditer(written)]
    bare = _MATRIX.sub(" 1 ", written)
    bare = ",".join([bare, *(cell for matrix in matrices for cell in re.split(r"&|\\\\", matrix))])
    if not set(re.findall(r"\\([A-Za-z]+)", bare)) <= _COMMANDS or re.search(r"\\[^A-Za-z{}]", bare):
        return False
    if not all(set(found) == {"R"} or found in "RZNQC" for found in re.findall(r"\\mathbb ?\{([^{}]*)\}", bare)):
        return False
    if re.search(r"\^\{?[ ]*T|[A-Z][ ]*\\(?:times|cdot)[ ]*[A-Z]", bare):
        return False  # a transpose, and a product of matrices
    words = re.sub(r"\\log *_ *\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z] *_ *(?:\{[A-Za-z0-9]+\}|[A-Za-z0-9])", " x ", bare)
    letters = set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", bare)))
    two_cases = any(letter.swapcase() in letters for letter in letters if letter.lower() != "e")
    return bool(bare.strip()) and not two_cases and not _NOT_UNDERSTOOD.search(words)


_UNSEEN = re.compile(r"\\(?:left|right)(?![a-z])|\\[,!;:]|\$|(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])")
_ONE_SIGN = re.compile(r"(?<=[_^])\{([A-Za-z0-9]|\\[a-z]+)\}")


def spelling(text: str) -> str:
    r"""Return a text without what LaTeX does not show: `101_2` is `101_{2}`, whatever that means."""
    return _ONE_SIGN.sub(r"\1", _UNSEEN.sub("", plain(text).strip()))


def letters(reading: Reading) -> frozenset[str]:
    """Return the variables of a reading; latex2sympy knows no capitals, so that these have to be compared apart."""
    greek = re.findall(
        r"\\((?:var)?(?:alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|phi|psi|omega|pi|xi))", reading.whole, re.I
    )
    return frozenset([*re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", reading.whole)), *greek])


# --- lists ---------------------------------------------------------------------------------------------------------


def _brackets(written: str) -> tuple[str, str]:
    """Return the brackets around the whole and what is inside; "" and the whole where none are."""
    bare = written.strip()
    if bare.startswith("\\{") and bare.endswith("\\}") and bare.count("\\{") == 1:
        return "{}", bare[2:-2]
    if bare[:1] in ("(", "[") and bare[-1:] in (")", "]") and len(bare) > 1:
        depth = 0
        for place, sign in enumerate(bare):
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(sign, 0)
            if not depth:
                return (bare[0] + bare[-1], bare[1:-1]) if place == len(bare) - 1 else ("", written)
    return "", written


_GROUPED = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")


def _parted(written: str, grouped: bool) -> list[str]:
    """Cut a list at its outer commas; `grouped` says whether 1,234 is one number."""
    if grouped:
        written = _GROUPED.sub(lambda found: found[1].replace(",", ""), written)
    parts, depth = [""], 0
    for sign in written:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
