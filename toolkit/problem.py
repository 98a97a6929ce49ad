"""What a problem is. Where problems come from is in `problem_sources`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer.

    Attributes:
        id: Unique and stable name; every seed and every join uses it, never a position.
        task: Task or family the question belongs to, e.g. `ordering` or `bbh/navigate`.
        question: Full text as a reader sees it, answer options included.
        answer: Gold answer.
        kind: How answers are compared (`toolkit.answers`): number, choice, boolean, text, math or auto.
        choices: Answer options in order, without their letters; empty where there are none.
        task_description: One sentence that says what the task asks for; may be empty.
        split: `train`, `validation` or `test`.
        pair: What it shares with the questions that are edits of it, or that it is an edit of; empty for most.
    """

    id: str
    task: str
    question: str
    answer: str
    kind: str = "auto"
    choices: tuple[str, ...] = ()
    task_description: str = ""
    split: str = "train"
    pair: str = ""


QUESTION_COLUMNS = ("id", "task", "task_description", "question", "choices", "kind")


def question_columns(problem: Problem) -> dict[str, Any]:
    """Return a problem's columns under the names that records have, so that one prompt template serves both.

    Without the gold answer: nothing that a student is asked may hold it.
    """
    return {name: list(problem.choices) if name == "choices" else getattr(problem, name) for name in QUESTION_COLUMNS}
