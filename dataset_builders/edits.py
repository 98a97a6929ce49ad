"""Edited questions: which part is edited, how much, and everything that shows that an edit is none.

The thresholds are settings; what they mean was measured on people's edits. Nobody is asked for any of this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain
from typing import Any

import regex

from dataset_builders.chains import Chain
from dataset_builders.counterfactual_settings import CounterfactualPairsSettings
from dataset_builders.published import problems_to_ask
from toolkit.alignment import spaced_words, spelt
from toolkit.on_disk import DiskCounter
from toolkit.problem import Problem
from toolkit.problem_sources import open_problems
from toolkit.views import columns, fill, read_back

# Most words that an edited field may share with another field of the question, as a share of all words of the two.
LARGEST_OVERLAP = 0.8

# As `problem_rows` writes them below a question: options are never edited.
_OPTIONS = "\nOptions:\n"
_OPTION_LINE = re.compile(r"^\s*(?:Options:|\([A-Z]\) )", re.MULTILINE)
_GIVEN_AWAY = re.compile(r"\bthe answer is\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"_{2,}|\.{4,}|\[[^\]\n]{0,40}\]|<[^>\n]{0,40}>|\{[^}\n]{0,40}\}|\bXX+\b")
_NEGATIONS = frozenset(
    (
        *("no", "not", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot"),
        *("isn't", "aren't", "wasn't", "weren't", "don't", "doesn't", "didn't", "can't", "won't", "hasn't", "haven't"),
        *("do", "does", "did"),
    )
)
_WORD = regex.compile(r"[\w']+")  # of `regex`: vowel signs and other combining marks are part of a word


@dataclass(frozen=True)
class Written:
    """A question taken apart.

    Attributes:
        fields: Its fields by name.
        options: The options below it as they stand there; empty where it has none.
    """

    fields: Mapping[str, str]
    options: str

    def question(self, layout: str, field: str, text: str) -> str:
        """Return the question with another text in one field."""
        return fill(layout, {**self.fields, field: text}) + self.options


@dataclass(frozen=True)
class Edit:
    """What was done to a question.

    Attributes:
        from_answer: Gold answer of the original.
        field: The field that was edited.
        before: The field as it was.
        after: As it is now; None where nothing was written.
        provenance: Who wrote it.
        votes: Blind labels of the edited question, empty for one that cannot be read.
    """

    from_answer: str
    field: str
    before: str
    after: str | None
    provenance: dict[str, Any]
    votes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """An original or an edit of it in the making.

    Attributes:
        problem: The question with its gold answer, of an edit the label it was edited towards; `id` is the record's.
        pair: Id of the original.
        edit: None for an original.
        whys: Explanations of the answer.
        refutes: (wrong answer, why it is wrong).
        reason: Why it is rejected, None where it isn't.
    """

    problem: Problem
    pair: str
    edit: Edit | None = None
    whys: tuple[Chain, ...] = ()
    refutes: tuple[tuple[str, Chain], ...] = ()
    reason: str | None = None


class Filter:
    """Tells edits of one pass that are none, that are too large, or that are there already.

    Args:
        questions: All originals: no edit may be one of them.
        settings: Thresholds, and the sets whose questions no edit may be.
    """

    def __init__(self, questions: Iterable[str], settings: CounterfactualPairsSettings) -> None:
        self._settings = settings
        self._known = DiskCounter()
        held_out = [problems_to_ask(settings)[1]]
        held_out += [open_problems(source, "test") for source in settings.check_against.values()]
        for problem in chain.from_iterable(held_out):
            self._known.note("is a held-out question", normalised(problem.question))
        for question in questions:
            self._known.note("is another question of the data", normalised(question))

    def fault(self, written: Written, edit: Edit, label: str, labels: Sequence[str]) -> str | None:
        """Return why an edit is rejected before anybody is asked about it, None where it isn't."""
        settings = self._settings
        assert edit.after is not None
        if fault := fault_of(written, edit.field, edit.after, label, labels, settings):
            return fault
        question = written.question(settings.layout, edit.field, edit.after)
        times, what = self._known.note("is the same as another edit", normalised(question))
        return what if times > 1 else None


def taken_apart(question: str, layout: str) -> Written | None:
    """Return the fields of a question, None where it is not written in this layout."""
    body, mark, options = question.partition(_OPTIONS)
    fields = read_back([layout], body)
    if set(fields) != set(columns(layout)) or fill(layout, fields) != body:
        return None
    return Written(fields, mark + options)


def edit_ratio(before: str, after: str) -> float:
    """Return the token edits between two texts, as a share of the longer one's tokens.

    Texts are lower-cased and split at white space (where a script has none, at the bounds of words), the tokens aligned
    by longest matching blocks; each block that is not equal counts with the larger of what it deletes and what it
    inserts. More than 1 where words change places.
    """
    old, new = (spelt(text, spaced_words(text)) for text in (before.lower(), after.lower()))
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    edits = sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in blocks if tag != "equal")
    return edits / max(len(old), len(new), 1)


def normalised(text: str) -> str:
    """Return a text without what does not tell two texts apart: case, white space and punctuation."""
    return unicodedata.normalize("NFC", " ".join(_WORD.findall(text.casefold())))


def cleaned(text: str, before: str) -> str:
    """Return what a teacher wrote without outer white space, and without quotation marks that it put around it."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].strip() if quoted and not before.startswith('"') else text


def fault_of(
    written: Written, field: str, after: str, label: str, labels: Sequence[str], settings: CounterfactualPairsSettings
) -> str | None:
    """Return why an edit of a field is not a small change of it, None where it is.

    A word, mark or option that the field had before is no fault: the edit has not brought it in.

    Args:
        written: The question before.
        field: Which field was edited.
        after: The field as it is now.
        label: The label it was edited towards.
        labels: All labels.
        settings: Thresholds.
    """
    before = written.fields[field]
    if normalised(before) == normalised(after):
        return "unchanged"
    if _added(_GIVEN_AWAY, before, after):
        return "gives the answer away"
    if _added(_OPTION_LINE, before, after):
        return "changes the options"
    if _added(_PLACEHOLDER, before, after):
        return "leaves a blank or a placeholder"
    if named := _named(labels, before, after):
        return f"names the label {named}"
    ratio, largest = edit_ratio(before, after), settings.fields[field]
    if ratio < settings.min_edit:
        return f"smaller than {settings.min_edit:g} of the {field}"
    if ratio > largest:
        return f"larger than {largest:g} of the {field}"
    if label in settings.bare_negation and _is_bare_negation(before, after):
        return "only adds or drops a negation"
    if any(_overlap(after, other) > LARGEST_OVERLAP for name, other in written.fields.items() if name != field):
        return "says what another field says"
    return None


def _added(pattern: re.Pattern[str], before: str, after: str) -> bool:
    return len(pattern.findall(after)) > len(pattern.findall(before))


def _named(labels: Iterable[str], before: str, after: str) -> str | None:
    """Return a label that the edit has brought in, as a word of its own."""
    for label in labels:
        word = re.compile(rf"(?<!\w){re.escape(label)}(?!\w)", re.IGNORECASE)
        if len(label) > 1 and _added(word, before, after):  # an option's bare letter may be any article or initial
            return label
    return None


def _is_bare_negation(before: str, after: str) -> bool:
    """Whether two texts are the same but for words that negate, and for the helping verbs that come with them."""
    old, new = ([word for word in _WORD.findall(text.casefold()) if word not in _NEGATIONS] for text in (before, after))
    return old == new


def _overlap(one: str, other: str) -> float:
    words = [set(_WORD.findall(text.casefold())) for text in (one, other)]
    return len(words[0] & words[1]) / len(words[0] | words[1]) if words[0] | words[1] else 0.0
