"""Completions judged by the one extractor and matcher, and what the judgements add up to: scores, files, tables."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import answer_readings, answers, math_equality
from toolkit.decode_procedures import Answered
from toolkit.decoding import majority_vote
from toolkit.problem import Problem
from toolkit.text_tables import aligned, markdown_table

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """What a set of judged completions adds up to.

    Attributes:
        n: Problems.
        accuracy: Share of problems answered right; with several samples, by their majority answer.
        standard_error: Of that share, sqrt(p (1 - p) / n).
        parse_failure_rate: Share of answers in which none was found; these count as wrong.
        truncated_rate: Share of answers one of whose completions was cut off at `max_new_tokens`.
        generated_tokens: Mean tokens written for an answer, over all turns.
    """

    n: int
    accuracy: float
    standard_error: float
    parse_failure_rate: float
    truncated_rate: float
    generated_tokens: float


def judge(problems: Sequence[Problem], answered: Sequence[Sequence[Answered]]) -> list[Row]:
    """One row per answer: what was asked, what came back, what was read out of it and whether that is right.

    `voted` is the majority answer of the problem's samples and `solved` says whether it is right; with one sample they
    equal `predicted` and `correct`.
    `prompt` and `completion` are those of the last turn, `tokens` and `stopped` tell of all turns; where there were
    several, `turns` has them.

    Args:
        problems: What was asked.
        answered: The samples of each problem.
    """
    rows = []
    for problem, samples in zip(problems, answered, strict=True):
        kind = answers.kind_of(problem.answer, problem.kind)
        predictions = [answers.extract(sample.answer, kind, problem.choices) for sample in samples]
        vote = majority_vote(predictions, kind, problem.choices)
        solved = answers.matches(vote, problem.answer, kind, problem.choices)
        for index, (sample, predicted) in enumerate(zip(samples, predictions, strict=True)):
            last = sample.turns[-1]
            turns = [
                {"view": turn.view, "prompt": turn.prompt, "completion": turn.generation.text}
                | {"tokens": turn.generation.tokens, "stopped": turn.generation.stopped}
                for turn in sample.turns
            ]
            rows.append(
                {
                    "id": problem.id,
                    "task": problem.task,
                    "question": problem.question,
                    "gold": problem.answer,
                    "kind": kind,
                    "prompt": last.prompt,
                    "pair": problem.pair,
                    "sample": index,
                    "completion": last.generation.text,
                    "predicted": predicted,
                    "parsed": predicted is not None,
                    "correct": answers.matches(predicted, problem.answer, kind, problem.choices),
                    "voted": vote,
                    "solved": solved,
                    "tokens": sum(turn.generation.tokens for turn in sample.turns),
                    "stopped": all(turn.generation.stopped for turn in sample.turns),
                    "extractor": extractor(),
                    "turns": turns if len(turns) > 1 else [],
                }
            )
    return rows


def score_rows(rows: Sequence[Row]) -> Score:
    """Add rows of `judge` up; there must be at least one."""
    solved = [row["solved"] for row in rows if row["sample"] == 0]
    accuracy = sum(solved) / len(solved)
    return Score(
        n=len(solved),
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / len(solved)),
        parse_failure_rate=sum(not row["parsed"] for row in rows) / len(rows),
        truncated_rate=sum(not row["stopped"] for row in rows) / len(rows),
        generated_tokens=sum(row["tokens"] for row in rows) / len(rows),
    )


def score_by_task(rows: Iterable[Row]) -> dict[str, Score]:
    """The score of each task, by name."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row)
    return {task: score_rows(tasks[task]) for task in sorted(tasks)}


@functools.cache
def extractor() -> str:
    """Name and version of the code that reads and compares answers; the version is a digest of that code."""
    source = "".join(inspect.getsource(module) for module in (answers, answer_readings, math_equality))
    return f"toolkit.answers@{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def write_scores(path: Path, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the summaries of students (by name, then by set) as JSON; shares are between 0 and 1."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"students": scores}, indent=1, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def format_scores_table(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], markdown: bool = False) -> str:
    """The table of students (rows) against sets (columns): accuracy and standard error in %, n, parse failures.

    Args:
        scores: Summaries by student, then by set; a set that a student has no score on stays empty.
        markdown: A Markdown table, otherwise aligned text.
    """
    sets = list(dict.fromkeys(name for summaries in scores.values() for name in summaries))
    header = ["student", *(label for name in sets for label in (f"{name}, %", "n", "unparsed"))]
    body = [
        [student, *(cell for name in sets for cell in _cells(summaries.get(name)))]
        for student, summaries in scores.items()
    ]
    if markdown:
        return markdown_table(header, body)
    legend = "accuracy ± standard error; unparsed: completions in which no answer was found, which count as wrong"
    return f"{aligned(header, body)}\n{legend}"


def _cells(summary: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if summary is None:
        return "", "", ""
    accuracy = f"{100 * summary['accuracy']:.1f} ± {100 * summary['standard_error']:.1f}"
    return accuracy, str(summary["n"]), f"{100 * summary['parse_failure_rate']:.1f} %"
