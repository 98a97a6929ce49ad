"""From rows to problems: which column holds what, and everything that can be wrong with a row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import model_validator

from toolkit.errors import UserError
from toolkit.named_files import DataFile
from toolkit.on_disk import DiskCounter
from toolkit.problem import Problem
from toolkit.problem_choices import LETTERS, AnswerNames, chosen, read_options
from toolkit.problem_files import Row, read_rows
from toolkit.problem_values import clean, is_missing, written
from toolkit.schema import Strict
from toolkit.views import fill, lookup

Kind = Literal["number", "choice", "boolean", "text", "math", "auto"]
MOST_FAULTS = 10


class Columns(Strict):
    """Which column holds what; a dotted path goes into nested columns (`choices.text`).

    Attributes:
        question: A column, or a template over several: `{Body}. {Question}`.
        answer: Gold answer. With `choices` it may be a label (a letter where the options have none), the option's text,
            or its index from 0.
        id: Unique id; without it the task and a digest of the question are the id.
        task: Task name.
        choices: Answer options: a list of texts or of objects `{label, text}`, an object with the lists `label` and
            `text` or with a text for each letter, or JSON of one of these. They are written below the question as
            `(A) ...` lines, and the gold answer becomes a letter in parentheses.
        answer_names: Whether the gold answer is a `label`, a `text` or an `index`. Without it whatever fits counts, and
            an answer that names one option in one way and another in another (`2` of the options 2, 3, 4) is a fault.
        task_description: One sentence that says what the task asks for.
        pair: What a question shares with its edits and with no other one: of such questions an evaluation also tells
            how often all are answered right, and how often the answer changes.
    """

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    task: str | None = None
    choices: str | None = None
    answer_names: AnswerNames | None = None
    task_description: str | None = None
    pair: str | None = None

    @model_validator(mode="after")
    def _names_an_option(self) -> Self:
        if self.answer_names and not self.choices:
            raise ValueError("answer_names: says how an answer names one of the options, and `choices` is missing")
        return self


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
    if answer_pattern or not columns.choices:
        gold = _gold(gold, answer_pattern, columns.answer)
    choices: tuple[str, ...] = ()
    if columns.choices:
        options = read_options(lookup(row.data, columns.choices), columns.choices)
        choices = options.texts
        gold = f"({LETTERS[chosen(gold, options, columns.answer, columns.answer_names)]})"
        listed = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        question = "\n".join([question, "Options:", *listed])
        kind = "choice"
    return Problem(
        id=_text(columns.id, row) if columns.id else f"{name}/{digest(question)[:12]}",
        task=name,
        question=question,
        answer=gold,
        kind=kind,
        choices=choices,
        task_description=_text(columns.task_description, row) if columns.task_description else "",
        pair=_text(columns.pair, row) if columns.pair else "",
    )


def _text(template: str, row: Row) -> str:
    text = fill(template, row.data)
    if not text.strip():
        raise UserError(f"column {template!r} is empty")
    return clean(text, template)


def _gold(value: Any, pattern: str | None, column: str) -> str:
    """Return a gold answer as text: `51.0` is 51, true is yes."""
    if is_missing(value):
        raise UserError(f"no gold answer: column {column!r} has no value")
    try:
        text = written(value, column)
    except UserError as error:
        raise UserError(f"no gold answer: {error}") from None
    if pattern and text:
        found = list(re.finditer(pattern, text))
        if not found:
            raise UserError(f"no gold answer: answer_pattern {pattern!r} does not match column {column!r}")
        text = (found[-1][found[-1].re.groups] or "").strip()
    if not text:
        raise UserError(f"no gold answer: column {column!r} is empty")
    return text
