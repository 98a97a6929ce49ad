"""The one answer extractor and the one matcher: builders, filters, decoding and scores all use these.

Two steps, kept apart. *Finding* (here, and `foreign_clauses`): the last answer clause of a completion ("Therefore, the
answer is ...", `\\boxed{}`, `#### N`, `A: ...`). *Reading* (`answer_readings`, `number_reading`): what it says. Two
answers are equal when their readings are: never containment, never a prefix.

It does not repair answers, judge rationales or know units. Nothing here raises on any text, and every pattern is
linear: 1 MB takes a fraction of a second. Mathematics is compared in `toolkit.math_equality`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from toolkit import answer_readings as readings
from toolkit import foreign_clauses
from toolkit.answer_marks import plain, tidy
from toolkit.errors import UserError, nearest
from toolkit.number_reading import NUMBER, number, numeral
from toolkit.thinking import split_thinking

ANSWER_PHRASE = "Therefore, the answer is"
KINDS = ("auto", "number", "choice", "boolean", "text", "math")

LONGEST_ANSWER = 2_000  # characters of an answer clause that are read at all
SEARCHED = 100_000  # characters at the end of a completion in which its answer clause is looked for
EMPTY_CLAUSES = 20  # clauses without an answer that are passed over, from the last one back, before giving up
LONGEST_BARE_ANSWER = 300  # characters up to which a line without any answer clause may be a bare answer

_MARK = re.compile(
    r"""
    \b(?:answers?|ans|(?:correct|right|best)[ ](?:option|choice)) (?:[ ](?:choice|option))?
    (?:[ ](?:to|for)[ ][^\n.:?!]{1,60}?)? [*_\]"'`]{0,4} [ ]?
    (?:(?:is|are|was|(?:would|should|must|will|has[ ]to)[ ]be)\b [ ]? :? | [:=]) (?:[*_]{1,3}(?=\s|$|<))?
    | ^[ #*]{0,8}(?:final[ ])?answer[ *]{0,4}$      # a heading: the answer stands below it
    | <(?:final_?)?answer> | \[answer\] | <(?:b|strong)>[ ]?(?:final[ ])?answer:?[ ]?</(?:b|strong)>[ ]?:?
    | \\(?:boxed|fbox|framebox)[ ]?(?={|\Z)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
# "#### 15" above a polite closing line; a heading says more than a number, or has numbers below it.
_NUMBER_LINE = re.compile(r"^[ *]{0,8}\#{4}[*]{0,3}[ ]?(?P<answer>[^\n]{1,80})$(?=[^0-9]{0,400}\Z)", re.MULTILINE)
_LAST_LINE_MARK = re.compile(r"[ *]{0,8}(?:\#{4}|A[ ]?:)[*]{0,3}[ ]?")  # elsewhere "####" is a heading, "A:" an option
_LEAD_IN = re.compile(
    r"""(?:(?<!\S)[*_#]{1,6}[ ]?)?
    (?:\b(?:therefore|thus|so|hence|consequently|finally|in[ ]conclusion|we[ ]conclude[ ]that)[,:]?\s{1,3})*
    (?:\b(?:the|my|our)[ ])? (?:\b(?:final|correct|right|best)[ ])* [\s*_$#\[\\(]{0,12}\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_BETWEEN = re.compile(r"[\s*_$:\\(\[]{0,12}")  # what may stand between "the answer is" and its \boxed{}
_RUN_ON = re.compile(r"\n[ ]{0,4}(?:Q|Question|Human|User)[ ]?:|<\|(?:im_end|endoftext|eot_id|end)\|>|</s>")
_BELOW = re.compile(
    r"(?:as follows|the following|given by|below)?(?:[\s:*_$\[\\(]|`{3}\w*|-{3,}|={3,}|<br ?/?>)*", re.IGNORECASE
)
_BULLET = re.compile(r"[ ]{0,8}(?:[-*•]|[0-9]{1,2}[.)])[ ]")
_SENTENCE_END = re.compile(
    r"""[.!?]["')\]*]{0,3}(?:[ ]+(?=[A-Z(\["'*]) | (?=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]))""", re.VERBOSE
)
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]|\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Mt|Prof|Gen|Col|Capt|Lt|Rev|No|Vol|vs|Inc|Ltd|Co|Corp|Rs|approx))\Z"
)


class _Clause(NamedTuple):
    start: int  # offset where the rationale ends
    answer: str  # the raw answer, tidied
    announced: bool  # by a phrase, a box or a mark; otherwise this is the last sentence, whatever it says
    bare: bool  # there is nothing else in the text
    foreign: foreign_clauses.ForeignClause | None = None  # the clause of another language that announced it


def _visible(text: str) -> tuple[int, int]:
    """The span of `text` that can hold its answer: before a run-on into the next question."""
    start = len(text) - len(text.lstrip())
    run_on = _RUN_ON.search(text, start)
    return start, run_on.start() if run_on else len(text)


def _sentences(line: str) -> list[str]:
    """Cut a line at its sentence ends; initials, decimals and common abbreviations are none."""
    parts, begin = [], 0
    for end in _SENTENCE_END.finditer(line):
        if line[end.start()] != "." or not _ABBREVIATION.search(line, max(0, end.start() - 8), end.start()):
            parts.append(line[begin : end.end()].rstrip())
            begin = end.end()
    return [*parts, line[begin:]]


_EMPTY_BOX = re.compile(r"(?:\\(?:text|mathrm|textbf|mathbf)|[{}\s$])*")


def _boxed(text: str, start: int) -> tuple[str, int]:
    """The content of the braces that open at `start`, and where they close; "" for an empty box and a cut one."""
    depth = 0
    for end in range(start, min(len(text), start + LONGEST_ANSWER)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            content = text[start + 1 : end]
            return ("" if _EMPTY_BOX.fullmatch(content) else tidy(content)), end + 1
    return "", len(text)


# Around a box that holds all of the answer stand words (glued to it in Chinese), marks and an equals sign. A minus with
# a blank behind it that opens a line is a bullet.
_BEFORE_PART = re.compile(
    r"""(?: \\(?:sqrt|[dtc]?frac|times|cdot|pm|mp|div|sin|cos|tan|log|ln)(?:\[[^\]]*\])?(?:{[^{}]*})?\s*{?
    | [\^_+/×÷±]\s* | \s[<>≤≥≠]\s* | (?<!\*)\*\s* | (?<=\S)-\s* | (?<=[$(\[=])\s*-\s* | (?<=\n)- | \A-
    | [0-9)] | (?<![A-Za-z])[A-Za-z]\(? | (?:\b(?:not|never|cannot[ ]be)|n't)\b[^.,;:!?\n]{0,12} )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_BEHIND_PART = re.compile(
    r"""\s*(?:\^ | _\w | \\(?:sqrt|times|cdot|pi|pm|mp|div|[dtc]?frac|ldots|dots)) | [0-9A-Za-z!]
    | \([^()]{0,20}[0-9=+*/^] | [ ]?[-+*/×÷][ ]?[0-9\\] | [ ]+(?:hundred|thousand|million|billion|trillion|dozen)""",
    re.VERBOSE | re.IGNORECASE,
)
_BETWEEN_BOXES = re.compile(
    r"[\s$\\()\[\],;&]*(?:and|or|und|oder|y|o|et|ou|,)?[\s$\\()\[\],;]*(?:[A-Za-z]\s*=\s*)?[\s$\\(]*", re.IGNORECASE
)


_OPENING_TAGS = re.compile(r"\A(?:\s*(?:</?(?:b|strong|em|i|br ?/?)>|`{3}))+", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</?(?:final_?)?answer>|\[/answer\]|```", re.IGNORECASE)
_JSON_KEY = re.compile(r"""["'] ?: ?\Z""")
_JSON_VALUE = re.compile(r"""\s*(?:"(?P<text>[^"\n]*)"|(?P<bare>[^\s",}{]+)\s*[,}])""")


def _announced(text: str, start: int) -> str:
    """The answer that follows a phrase that ends at `start`, to the end of its sentence; "" where none does.

    Where the rest of the line is empty the answer stands on the next line, unless a list of several items does.
    """
    lines = text[start : start + LONGEST_ANSWER].split("\n")
    if _BELOW.fullmatch(lines[0]):
        lines = [line for line in lines if not _BELOW.fullmatch(line)]
        if not lines or (len(lines) > 1 and _BULLET.match(lines[0]) and _BULLET.match(lines[1])):
            return ""
        lines[0] = lines[0].removeprefix("- ")
    line = _CLOSING_TAG.split(_OPENING_TAGS.sub("", lines[0]))[0]
    if _JSON_KEY.search(text[max(0, start - 4) : start]) and (value := _JSON_VALUE.match(text, start)):
        line = value["text"] or value["bare"] or ""
    return tidy(_sentences(line)[0])


def _find(text: str) -> _Clause:
    """The last answer clause of `text` (already in plain characters), else its last sentence.

    A last clause that was cut off, and an empty box, are clauses without an answer: what came before is none either.
    """
    start, end = _visible(text)
    body = text[:end].rstrip()
    searched = max(start, len(body) - SEARCHED)
    marks = list(_MARK.finditer(body, searched))[-EMPTY_CLAUSES:]
    clause = _by_label(body, start, searched, marks[-1].start() if marks else -1) or _by_phrase(body, start, marks)
    if clause is None and (foreign := foreign_clauses.find(body, searched)) is not None:
        answer = tidy(foreign.bare(_announced(body, foreign.end)))
        clause = _Clause(foreign.start, answer, True, False, foreign)
    if clause is not None:
        return clause
    last_line = max(start, body.rfind("\n") + 1)
    sentences = _sentences(body[max(last_line, len(body) - LONGEST_ANSWER) :])
    bare = len(sentences) == 1 and last_line == start and len(body) - start <= LONGEST_BARE_ANSWER
    return _Clause(end, tidy(sentences[-1]), False, bare)


def _by_label(body: str, start: int, searched: int, last_mark: int) -> _Clause | None:
    """The clause of a last line "#### 15" or "A: 15", and of a line "#### 15" above closing words."""
    last_line = max(start, body.rfind("\n") + 1)
    labelled = _LAST_LINE_MARK.match(body, last_line)
    if labelled and last_mark < last_line:
        return _Clause(last_line, tidy(_sentences(body[labelled.end() :][:LONGEST_ANSWER])[0]), True, False)
    line = _NUMBER_LINE.search(body, max(searched, len(body) - 600))
    if line and last_mark < line.start():
        answer = tidy(line["answer"])
        return (
            _Clause(line.start(), answer, True, False) if NUMBER.match(answer) and number(answer) is not None else None
        )
    return None


# "If the answer is 5, then ...", "It is wrong to say that the answer is 5": nothing is answered there.
_NOT_SAID = re.compile(
    r"\b(?:if|whether|suppose|assume|unless|doubt|wrong|incorrect|not)\b[^.,;:!?\n]{0,30}\Z", re.IGNORECASE
)
_RETRACTED = re.compile(
    r"""\b(?:wait|actually|hold[ ]on|on[ ]second[ ]thought|scratch[ ]that)\b | \blet[ ]me[ ](?:re|double)
    | \bthat(?:'s|[ ](?:is|was))[ ](?:wrong|incorrect|not[ ]right)
    | \bI[ ]made[ ]an?[ ](?:mistake|error)\b | [.?!]\s+(?:hmm,?\s)?no\b[.,!]""",
    re.IGNORECASE | re.VERBOSE,
)


def _by_phrase(body: str, start: int, marks: list[re.Match[str]]) -> _Clause | None:
    """The clause of the last phrase or box that has an answer; an empty one where what it says is no whole answer."""
    for position in reversed(range(len(marks))):
        begin, end = marks[position].span()
        boxed = marks[position].group().startswith("\\")
        if boxed:
            answer, end = _boxed(body, end)
            if answer and _is_part(body, begin, end, marks[position - 1] if position else None):
                answer = ""
        else:
            answer = _announced(body, end)
            if not answer and (position + 1 < len(marks) or not _BELOW.fullmatch(body, end)):
                continue
            if _NOT_SAID.search(body, max(start, begin - 60), begin):
                answer = ""
        said = body.find(answer[-20:], end)  # the answer itself may be "wait for it"
        if answer and _RETRACTED.search(body, end if said < 0 else said + len(answer[-20:])):
            answer = ""
        if boxed and position and _BETWEEN.fullmatch(body, marks[position - 1].end(), begin):
            begin = marks[position - 1].start()
        lead_in = _LEAD_IN.search(body, max(start, begin - 80), begin)
        return _Clause(lead_in.start() if lead_in else begin, answer, True, False)
    return None


def _is_part(body: str, begin: int, end: int, before: re.Match[str] | None) -> bool:
    """Whether a box holds a part of an answer: it stands in a formula, behind a denial, or beside another box."""
    if before and before.group().startswith("\\"):
        closed = _boxed(body, before.end())[1]
        if closed <= begin and begin - closed <= 30 and _BETWEEN_BOXES.fullmatch(body, closed, begin):
            return True
    return bool(_BEFORE_PART.search(body, max(0, begin - 40), begin) or _BEHIND_PART.match(body, end))


_MATHEMATICS = re.compile(r"\\[A-Za-z]+|\$[^$]+\$(?![0-9])|[0-9A-Za-z)}]\s?\^|√|π")


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise UserError(f"answer kind {kind!r} is unknown; allowed: {', '.join(KINDS)}{nearest(kind, KINDS)}")
    return kind


def kind_of(gold: str, kind: str = "auto") -> str:
    """How answers to a question with this gold are compared.

    A kind other than `auto` is returned as it is. `auto` looks at the gold alone, in this order:

    * `choice`: one option letter, alone or bracketed with its text behind it: "(B)", "B", "(B) Paris"
    * `boolean`: one of yes, no, true, false, valid, invalid, in any case
    * `number`: one number with at most a currency or percent sign: "-3", "1,234.50", "$5", "50%", "1/2"
    * `math`: LaTeX or a power: "\\frac{1}{2}", "$x+1$", "x^2"
    * `text`: everything else, among it dates, "32 feet", lists of words and Dyck words

    Raises:
        UserError: `kind` is not one of `KINDS`.
    """
    if _known(kind) != "auto":
        return kind
    said = tidy(plain(gold))
    if re.fullmatch(r"[A-Z]|\([A-Za-z]\)(?: .*)?", said) and readings.letter(said):
        return "choice"
    if readings.TRUTH.fullmatch(said):
        return "boolean"
    numeral_at = NUMBER.match(said)
    if numeral_at and said[numeral_at.end() :].strip() in ("", "%") and number(said) is not None:
        return "number"
    return "math" if _MATHEMATICS.search(gold) else "text"


def canonical(answer: str, kind: str, choices: Sequence[str] = ()) -> Fraction | str | None:
    """What `answer` says, as a value that is equal exactly where two answers of this kind are: the key for a vote.

    Args:
        answer: An answer or answer clause, not a whole completion.
        kind: Any of `KINDS` but auto. Mathematics has no canonical form here and is read as text.
        choices: The texts of the options in order, for answers that give the text of an option.

    Returns:
        A fraction for a number, a letter for a choice, yes/no/valid/invalid for a boolean, words for a text; None
        where the answer says nothing of this kind.
    """
    if kind in ("text", "math"):
        return readings.words(answer) or None
    said = tidy(plain(answer[:LONGEST_ANSWER]))
    if kind == "number":
        return number(said)
    if kind == "choice":
        return readings.letter(said, choices)
    word = readings.truth(said)
    return readings.same_truth(word) if word else None


def extract(text: str, kind: str = "auto", choices: Sequence[str] = ()) -> str | None:
    """The final answer that a completion gives, or None where it gives none of this kind.

    The last answer clause counts and no other. Without a clause, the last sentence must state one number (and no
    other), settle on one letter, or begin or end with yes or no; for text, math and auto the whole completion must be
    one line of one sentence.

    Args:
        text: A completion, or a bare answer. Any string: nothing raises.
        kind: One of `KINDS`; `auto` returns the clause as it stands. Where the gold is known, `kind_of(gold)` is the
            better kind, since it can read a last sentence.
        choices: As in `canonical`.

    Returns:
        number: plain digits or `a/b` ("$1,234.50" -> "1234.5"); choice: "(B)"; boolean: the word as it was written;
        text, math and auto: the clause without markdown, quotation marks and full stop.
    """
    clause = _find(plain(split_thinking(text)[0]))
    if _known(kind) == "number":
        comma = clause.foreign is not None and clause.foreign.decimal_comma
        value = number(clause.answer, alone=not clause.announced, decimal_comma=comma)
        return None if value is None else numeral(value)
    if kind == "choice":
        letter = readings.letter(clause.answer, choices, announced=clause.announced)
        return f"({letter})" if letter else None
    if kind == "boolean":
        return readings.truth(clause.answer, at_edge=not clause.announced)
    return (clause.answer or None) if clause.announced or clause.bare else None


def _variables(expression: str) -> list[str]:
    r"""The letters and commands of an expression that are no words: `2a` and `2A`, `\\Pi` and `\\pi` are two things."""
    return re.findall(r"\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z]{1,2}(?![A-Za-z])", expression)


_LABEL = re.compile(r"^\(?[A-Z][):] ?(?=\S)|^\([A-Z]\)[,:] ?(?=\S)| \([A-Z]\)$")


def matches(predicted: str | None, gold: str, kind: str = "auto", choices: Sequence[str] = ()) -> bool:
    """Whether an extracted answer says the same as the gold.

    Args:
        predicted: What `extract` returned; None (nothing extracted) matches nothing.
        gold: The gold answer, bare.
        kind: One of `KINDS`; `auto` is decided by the gold (`kind_of`).
        choices: As in `canonical`.
    """
    kind = kind_of(gold, kind)
    if predicted is None:
        return False
    expected = canonical(gold, kind, choices)
    if expected is None:
        kind, expected = "text", canonical(gold, "text")  # a gold that its kind cannot read is compared as a text
    if expected is not None and canonical(predicted, kind, choices) == expected:
        return kind != "math" or _variables(predicted) == _variables(gold)
    if kind == "text":
        # An option given with its letter, "(A) Monsters, Inc.", is the option.
        said = tidy(plain(predicted))
        return expected is not None and canonical(_LABEL.sub("", said), "text") == expected
    if kind == "math" and predicted.strip():
        from toolkit.math_equality import math_equal

        return math_equal(predicted, gold)
    return False


def split_answer(text: str) -> tuple[str, str | None]:
    """Cut a completion into its rationale and the raw answer of its closing clause.

    Returns:
        The text before the last answer clause and its "Therefore, the", and the answer as `extract` gives it for auto.
        What follows the clause is dropped, and so is the same clause said twice at the end. Without a clause: the text
        (less a run-on) and None.
    """
    text = split_thinking(text)[0]
    said = plain(text)
    clause = last = _find(said)
    start = clause.start
    for _ in range(EMPTY_CLAUSES if clause.foreign is None else 0):  # else once: nine languages
        if not last.announced or last.answer != clause.answer:
            break
        start = last.start
        last = _find(said[:start])
        closing = said[last.start : start].strip()
        if "\n" in closing or len(_sentences(closing)) > 1:
            break
    return text[:start].strip(), (clause.answer or None) if clause.announced else None


def answer_clause(answer: str) -> str:
    """The closing sentence in the one phrasing that datasets and students use: "Therefore, the answer is X."."""
    return f"{ANSWER_PHRASE} {answer}."
