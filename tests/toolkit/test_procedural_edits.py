"""The embedded teacher on prompts for edits and refutations: right, and in each of the ways in which it errs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from toolkit import bank
from toolkit.answers import extract, split_answer
from toolkit.bank.chain import Pen
from toolkit.problem import Problem
from toolkit.problem_sources import ProceduralProblems, load_problems
from toolkit.prompts import PromptBook
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher, read_prompt
from toolkit.teachers.protocol import Request

BOOK = PromptBook(Path(__file__).parents[2] / "dataset_builders" / "prompts")
PROBLEMS = load_problems(ProceduralProblems(tasks=("contests", "duels"), n=80), "train")
FAITHFUL = {"error_rate": 0.0, "hint_failure_rate": 0.0, "corrupt_failure_rate": 0.0, "garble_rate": 0.0}


def other(problem: Problem) -> str:
    return "no" if problem.answer == "yes" else "yes"


def asked(kind: str, problem: Problem, sample: int = 0, **rates: float) -> tuple[str, str | None]:
    """Return what the teacher writes and the mistake it labels."""
    prompt, _ = BOOK.render(kind, problem, other=other(problem), field="question", text=problem.question)
    teacher = ProceduralTeacher(ProceduralConfig(**{**FAITHFUL, **rates}))
    completion = teacher.answer(Request("procedural-v1", (("user", prompt),), sample_index=sample))
    return completion.text, completion.raw["procedural"]["mistake"]


def answer_of(question: str) -> str:
    found = bank.read(question)
    assert found is not None
    return found[0].solve(found[1], Pen(0))


@pytest.mark.parametrize(
    ("kind", "read"), [("explain", "rationalise"), ("edit", "edit"), ("blind_label", "cot"), ("refute", "refute")]
)
def test_the_kind_of_a_prompt_is_told_from_its_text(kind: str, read: str) -> None:
    prompt, _ = BOOK.render(kind, PROBLEMS[0], other=other(PROBLEMS[0]), field="question", text=PROBLEMS[0].question)
    query = read_prompt(prompt)
    assert query is not None
    assert (query.kind, query.question) == (read, PROBLEMS[0].question)


def test_an_edit_has_the_wanted_answer_and_differs_in_one_word() -> None:
    for problem in PROBLEMS:
        text, mistake = asked("edit", problem)
        words = zip(problem.question.split(), text.split(), strict=True)
        assert (mistake, answer_of(text), sum(a != b for a, b in words)) == (None, other(problem), 1)


def test_samples_of_an_edit_differ() -> None:
    assert len({asked("edit", PROBLEMS[0], sample)[0] for sample in range(8)}) > 2


def test_an_edit_that_errs_keeps_the_answer_or_is_another_question() -> None:
    mistakes: Counter[str | None] = Counter()
    for problem in PROBLEMS:
        text, mistake = asked("edit", problem, corrupt_failure_rate=1.0)
        mistakes[mistake] += 1
        assert answer_of(text) == (problem.answer if mistake == "no flip" else other(problem))
    assert set(mistakes) == {"no flip", "too large"}
    assert min(mistakes.values()) > 15


def test_a_refutation_names_the_wrong_answer_only_to_deny_it_and_ends_in_the_right_one() -> None:
    for problem in PROBLEMS:
        text, mistake = asked("refute", problem)
        rationale, answer = split_answer(text)
        assert (mistake, answer) == (None, problem.answer)
        assert f"not {other(problem)}." in rationale
        assert split_answer(rationale)[1] is None


def test_a_refutation_that_errs_argues_for_the_wrong_answer_whatever_it_names_at_the_end() -> None:
    ends: Counter[str | None] = Counter()
    for problem in PROBLEMS:
        text, mistake = asked("refute", problem, hint_failure_rate=1.0)
        rationale, answer = split_answer(text)
        ends["wrong" if answer == other(problem) else "right"] += 1
        assert mistake == "argues for it"
        assert answer == other(problem) or extract(split_answer(rationale)[1] or "", "boolean") == other(problem)
    assert min(ends["wrong"], ends["right"]) > 15


def test_blind_labels_err_as_often_as_plain_chains_do() -> None:
    wrong: Any = [asked("blind_label", problem, error_rate=0.27)[1] is not None for problem in PROBLEMS]
    assert 0.12 < sum(wrong) / len(wrong) < 0.42
