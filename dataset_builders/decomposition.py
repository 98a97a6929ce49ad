"""A question taken apart: sub-questions with their answers, out of a teacher's completion or out of a file.

What is read here is judged by form only: that the pieces are there, in turn, each of one line. Final answers are
judged where all final answers are (`dataset_builders.chains`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dataset_builders.chains import Chain, ready_made, well_formed, without_marks
from dataset_builders.settings import Decomposed
from toolkit.problem import Problem
from toolkit.problem_files import read_rows
from toolkit.problem_rows import Columns, problems_of_rows
from toolkit.views import lookup

Steps = list[tuple[str, str]]
"""(sub-question, its answer), in order."""

SUB_QUESTION = "Sub-question"
FINAL_QUESTION = "Final question"

# "Q1:", "**A1:**", "- Q 1.", "### Q1)"; the colon may stand on either side of closing stars.
_MARK = re.compile(r"^[ \t>#*_-]*(?P<side>[QA])[ ]?(?P<number>[0-9]{1,3})[ ]?[*_]{0,3}[:.)][*_]{0,3}", re.MULTILINE)
_SEPARATOR = " ** "
_GOLD = r"#### (.+)"


def numbered_steps(text: str) -> tuple[Steps, str | None]:
    """Read "Q1: ..." and "A1: ..." lines; what stands above the first of them is left out.

    Blank lines, bold and list marks do not count.

    Returns:
        The steps, and what is wrong with their form or None. Where something is, there are no steps.
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return [], "no sub-questions"
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    pieces = [text[mark.end() : end].strip().strip("*").strip() for mark, end in zip(marks, ends, strict=True)]
    sides = [(mark["side"], int(mark["number"])) for mark in marks]
    questions, answers = sides[::2], sides[1::2]
    if [("A", number) for _, number in questions] != answers or any(side != "Q" for side, _ in questions):
        return [], "sub-questions and answers do not alternate"
    steps = list(zip(pieces[::2], pieces[1::2], strict=True))
    return _checked(steps)


def separated_steps(text: str) -> tuple[Steps, str | None]:
    """Read lines "sub-question ** sub-answer"; as `numbered_steps`."""
    lines = [line.partition(_SEPARATOR) for line in text.splitlines() if line.strip()]
    if not all(separator for _, separator, _ in lines):
        return [], "a line without sub-question"
    return _checked([(question.strip(), answer.strip()) for question, _, answer in lines])


def _checked(steps: Steps) -> tuple[Steps, str | None]:
    if any(not piece for step in steps for piece in step):
        return [], "an empty sub-question or answer"
    if any("\n" in piece for step in steps for piece in step):
        return [], "a sub-question or answer of several lines"
    return steps, None


def step_columns(steps: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return steps as the items of `dataset_builders.columns.STEPS`."""
    labels = [SUB_QUESTION] * (len(steps) - 1) + [FINAL_QUESTION]
    return [
        {"label": label, "question": question, "answer": answer}
        for label, (question, answer) in zip(labels[: len(steps)], steps, strict=True)
    ]


def decomposed_chains(decomposed: Decomposed, max_characters: int) -> Iterator[tuple[Problem, Steps, Chain]]:
    """Yield (problem, steps, chain) per row of a file of ready-made steps; a chain with a fault has no steps.

    Calculator marks (`<<3*4=12>>`) are taken out: no student here has the calculator they are for.

    Raises:
        UserError: The file is missing or empty, or a row has no question, no answer or no gold answer.
    """
    columns = Columns(question=decomposed.question, answer=decomposed.answer)
    for row, problem in problems_of_rows(read_rows(decomposed.path), columns, _GOLD, decomposed.kind, decomposed.task):
        raw = well_formed(str(lookup(row.data, decomposed.answer)))
        provenance = ready_made("decomposed", decomposed.model, raw)
        if len(raw) > max_characters:
            fault: str | None = f"longer than {max_characters} characters"
            steps: Steps = []
        else:
            steps, fault = separated_steps(without_marks(raw.rpartition("####")[0]))
        rationale = "\n".join(answer for _, answer in steps) or None
        yield problem, steps, Chain(rationale, problem.answer, fault, "decomposed", provenance=provenance)
