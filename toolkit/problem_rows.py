"""From rows to problems: which column holds what, and everything that can be wrong with a row."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from toolkit.errors import UserError
from toolkit.named_files import DataFile
from toolkit.on_disk import DiskCounter
from toolkit.problem import Problem
from toolkit.problem_files import Row, read_rows
from toolkit.schema import Strict
from toolkit.views import fill, lookup

Kind = Literal["number", "choice", "boolean", "text", "math", "auto"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_FAULTS = 10


class Columns(Strict):
    """Which column holds what; a dotted path goes into nested columns (`choices.text`).

    Attributes:
        question: A column, or a template over several: `{Body}. {Question}`.
        answer: Gold answer. With `choices` it may be a label, a letter, the option's text, or its index from 0.
        id: Unique id; without it the task and a digest of the question are the id.
        task: Task name.
        choices: List of answer options, or an object with the lists `text` and `label`. They are written below the
            question as `(A) ...` lines, and the gold answer becomes a letter in parentheses.
        task_description: One sentence that says what the task asks for.
        pair: What a question shares with its edits and with no other one: of such questions an evaluation also tells
            how often all are answered right, and how often the answer changes.
    """

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    task: str | None = None
    choices: str | None = None
    task_description: str | None = None
    pair: str | None = None


class DescriptionFile(Strict):
    """Task descriptions in a column of some JSON file's rows, such as the teacher data that EDIT's authors released.

    Attributes:
        path: File or glob pattern.
        task: Column of the task name.
        description: Column of the description; the first row of a task counts.
    """

    path: DataFile
    task: str = "task_name"
    description: str = "task_description"

    def check_row(self, row: Row) -> None:
        """Check that a row has both columns.

        Raises:
            UserError: It has not.
        """
        fill(self.task, row.data)
        fill(self.description, row.data)

    def load(self) -> dict[str, str]:
        """Return the description per task.

        Raises:
            UserError: A missing file, or a row without one of the two columns.
        """
        described: dict[str, str] = {}
        for row in read_rows(self.path):
            try:
                described.setdefault(fill(self.task, row.data), fill(self.description, row.data))
            except UserError as error:
                raise UserError(f"{row.place}: {row.fault or error}") from None
        return described


def problems_of_rows(
    rows: Iterable[Row], columns: Columns, answer_pattern: str | None, kind: Kind, task: str
) -> Iterator[tuple[Row, Problem]]:
    """Yield every row with its problem. Faults are told at the end, so nothing should be done about any before.

    Raises:
        UserError: Faulty rows, or an id that occurs twice; the first faults are listed with their places.
    """
    faults: list[str] = []
    more = 0
    ids = DiskCounter()
    for row in rows:
        try:
            problem = _problem(row, columns, answer_pattern, kind, task.replace("{stem}", row.stem))
            count, place = ids.note(row.place, problem.id)
            if count > 1 and columns.id is not None:
                raise UserError(f"id {problem.id!r} is already the id of {place}")
        except UserError as error:
            if len(faults) == MOST_FAULTS:
                more += 1
            else:
                faults.append(f"{row.place}: {error}")
            continue
        # The same question twice is no fault (BBH has some); a count tells the two apart.
        yield row, replace(problem, id=f"{problem.id}-{count}") if count > 1 else problem
    if faults:
        raise UserError("\n".join([*faults, *([f"... and {more} more rows"] if more else [])]))


def digest(*content: object) -> str:
    """Return the SHA-256 (hex) of some plain values; every choice that must not depend on order is made by it."""
    return hashlib.sha256("\0".join(map(str, content)).encode()).hexdigest()


def _problem(row: Row, columns: Columns, answer_pattern: str | None, kind: Kind, task: str) -> Problem:
    if row.fault:
        raise UserError(row.fault)
    name = _text(columns.task, row) if columns.task else task
    question = _text(columns.question, row)
    gold = lookup(row.data, columns.answer)
    choices: tuple[str, ...] = ()
    if columns.choices:
        choices, labels = _options(lookup(row.data, columns.choices), columns.choices)
        gold = f"({LETTERS[_chosen(gold, choices, labels)]})"
        listed = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        question = "\n".join([question, "Options:", *listed])
        kind = "choice"
    return Problem(
        id=_text(columns.id, row) if columns.id else f"{name}/{digest(question)[:12]}",
        task=name,
        question=question,
        answer=_gold(gold, answer_pattern, columns.answer),
        kind=kind,
        choices=choices,
        task_description=_text(columns.task_description, row) if columns.task_description else "",
        pair=_text(columns.pair, row) if columns.pair else "",
    )


def _text(template: str, row: Row) -> str:
    text = fill(template, row.data)
    if not text.strip():
        raise UserError(f"column {template!r} is empty")
    return _clean(text, template)


def _clean(text: str, column: str) -> str:
    if "\0" in text:
        raise UserError(f"column {column!r} holds a NUL byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"column {column!r} is not valid Unicode (a lone surrogate)") from None
    return text


def _gold(value: Any, pattern: str | None, column: str) -> str:
    """Return a gold answer as text: `51.0` is 51, true is yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"no gold answer: column {column!r} has no value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise UserError(f"gold answer in column {column!r} is a {type(value).__name__}, not a text or number")
    text = _clean(str(value), column).strip()
    if pattern and text:
        found = list(re.finditer(pattern, text))
        if not found:
            raise UserError(f"no gold answer: answer_pattern {pattern!r} does not match column {column!r}")
        text = (found[-1][found[-1].re.groups] or "").strip()
    if not text:
        raise UserError(f"no gold answer: column {column!r} is empty")
    return text


def _options(value: Any, column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the texts of the answer options and their labels."""
    labels: tuple[str, ...] = ()
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        value, labels = value["text"], tuple(str(label) for label in value["label"])
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= len(LETTERS):
        raise UserError(f"column {column!r} is no list of 2 to {len(LETTERS)} answer options")
    texts = tuple(_clean(str(option), column).strip() for option in value)
    # Options that carry their own letters (`A)21`, `(B) five`) lose them: they are lettered anew below the question.
    own = [re.match(rf"\(?{letter}[).:]\s*", text) for letter, text in zip(LETTERS, texts, strict=False)]
    if all(own):
        texts = tuple(text[match.end() :] for text, match in zip(texts, own, strict=True) if match)
    return texts, labels


def _chosen(gold: Any, choices: tuple[str, ...], labels: tuple[str, ...]) -> int:
    """Return the index of the option that the gold answer names: by label, letter, text or index from 0."""
    if gold is None or gold == "":
        raise UserError("no gold answer: the column of the right option has no value")
    name = str(gold).strip()
    letter = name.strip("().").upper()
    if name in labels:
        return labels.index(name)
    if isinstance(gold, int) and 0 <= gold < len(choices):
        return gold
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return LETTERS.index(letter)
    if name in choices:
        return choices.index(name)
    if name.isdecimal() and int(name) < len(choices):
        return int(name)
    raise UserError(f"gold answer {name!r} names none of the options {list(choices)}")
