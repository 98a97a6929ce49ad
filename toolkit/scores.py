"""Completions judged by the one extractor and matcher, and what the judgements add up to: scores, files, tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.answers import extract, kind_of, matches
from toolkit.atomic_files import replace_text
from toolkit.decode_procedures import Answered
from toolkit.import_closure import closure_digest
from toolkit.problem import Problem
from toolkit.significance import clusters_of, over_questions
from toolkit.text_tables import aligned, markdown_table
from toolkit.votes import Ballot, agree, majority_vote, vote

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """What a set of judged completions adds up to.

    Attributes:
        n: Problems.
        accuracy: Share of problems answered right; with several samples, by their majority answer.
        standard_error: Of that share over questions, sqrt(p (1 - p) / n); of questions that are edits of one another,
            over their pairs (`toolkit.significance.over_questions`).
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


@dataclass(frozen=True, slots=True)
class Share:
    """A share of some answers.

    Attributes:
        share: Between 0 and 1; None of none.
        n: What it is a share of.
        standard_error: As of `Score`; None of none.
    """

    share: float | None
    n: int
    standard_error: float | None


def judge(problems: Sequence[Problem], answered: Sequence[Sequence[Answered]], prefer: str | None = None) -> list[Row]:
    """One row per answer: what was asked, what came back, what was read out of it and whether that is right.

    `voted` is the majority answer of the problem's samples and `solved` says whether it is right; with one sample they
    equal `predicted` and `correct`.
    `prompt` and `completion` are those of the last turn, `tokens` and `stopped` tell of all turns; where there were
    several, `turns` has them. `view` is that of the first turn, by which ways to an answer are told apart; where there
    are several ways, `agreed` says whether the first answers of all are one, and the vote is `toolkit.votes`'.

    Args:
        problems: What was asked.
        answered: The samples of each problem; of several ways, the first of each way first.
        prefer: The way that breaks ties between several.
    """
    rows = []
    for problem, samples in zip(problems, answered, strict=True):
        kind = kind_of(problem.answer, problem.kind)
        predictions = [extract(sample.answer, kind, problem.choices) for sample in samples]
        ballots = [
            Ballot(sample.turns[0].view, predicted) for sample, predicted in zip(samples, predictions, strict=True)
        ]
        ways = len({ballot.way for ballot in ballots})
        if ways > 1:
            elected = vote(ballots, kind, problem.choices, prefer)
            agreed = agree(ballots[:ways], kind, problem.choices)
        else:
            elected, agreed = majority_vote(predictions, kind, problem.choices), None
        solved = matches(elected, problem.answer, kind, problem.choices)
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
                    "view": sample.turns[0].view,
                    "prompt": last.prompt,
                    "pair": problem.pair,
                    "sample": index,
                    "completion": last.generation.text,
                    "status": sample.status,
                    "predicted": predicted,
                    "parsed": predicted is not None,
                    "correct": matches(predicted, problem.answer, kind, problem.choices),
                    "voted": elected,
                    "solved": solved,
                    "agreed": agreed,
                    "tokens": sum(turn.generation.tokens for turn in sample.turns),
                    "stopped": all(turn.generation.stopped for turn in sample.turns),
                    "extractor": extractor(),
                    "turns": turns if len(turns) > 1 else [],
                }
            )
    return rows


def score_rows(rows: Sequence[Row]) -> Score:
    """Add rows of `judge` up; there must be at least one."""
    asked = [row for row in rows if row["sample"] == 0]
    accuracy = over_questions([row["solved"] for row in asked], clusters_of(asked))
    return Score(
        n=len(asked),
        accuracy=accuracy.mean,
        standard_error=accuracy.standard_error,
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


def ways_report(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the ways did, each and together; only first answers count but for `vote`.

    `accuracy` of each way, `execution_rate` of each that writes programs, `agreement_rate`, `accuracy_given_agreement`,
    and `vote`, the accuracy of what was elected.
    """
    first = [row for row in rows if row["sample"] < len({row["view"] for row in rows})]
    ways: dict[str, list[Row]] = {}
    for row in first:
        ways.setdefault(row["view"], []).append(row)
    asked = next(iter(ways.values()))
    shares = {
        **{f"accuracy of {name}": _share(of_way, lambda row: row["correct"]) for name, of_way in ways.items()},
        **{
            f"execution rate of {name}": _share(of_way, lambda row: row["status"] == "ok")
            for name, of_way in ways.items()
            if any(row["status"] for row in of_way)
        },
        "agreement rate": _share(asked, lambda row: row["agreed"]),
        "accuracy given agreement": _share([row for row in asked if row["agreed"]], lambda row: row["correct"]),
        "accuracy of the vote": _share(asked, lambda row: row["solved"]),
    }
    return {name: asdict(share) for name, share in shares.items()}


def format_ways(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the shares of each student and set, one per line, with what a small set can tell apart.

    Args:
        scores: Summaries by student, then by set; those of students with one way are passed over.
    """
    lines = []
    reports = {(name, on): one["ways"] for name, sets in scores.items() for on, one in sets.items() if "ways" in one}
    for (student, on), report in reports.items():
        lines.append(f"{student} on {on}")
        for name, share in report.items():
            if share["n"]:
                told = f"{100 * share['share']:5.1f} ± {100 * share['standard_error']:.1f} %"
                lines.append(f"  {name:<26} {told}  of {share['n']}")
        vote = report["accuracy of the vote"]
        if vote["n"] < 500:
            least = 100 * 1.96 * math.sqrt(2) * vote["standard_error"]
            lines.append(
                f"  {vote['n']} questions are few: two such figures that differ by less than {least:.0f} points"
            )
            lines.append("  may well be the same")
    return "\n".join(lines)


def _share(rows: Sequence[Row], which: Callable[[Row], bool]) -> Share:
    if not rows:
        return Share(None, 0, None)
    share = over_questions([which(row) for row in rows], clusters_of(rows))
    return Share(share.mean, len(rows), share.standard_error)


def extractor() -> str:
    """Name and version of the code that reads and compares answers; the version is a digest of that code."""
    return f"toolkit.answers@{closure_digest('toolkit.answers')[:8]}"


def write_scores(path: Path, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the summaries of students (by name, then by set) as JSON; shares are between 0 and 1."""
    replace_text(path, json.dumps({"students": scores}, indent=1, ensure_ascii=False) + "\n")


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
    legend = (
        "accuracy ± standard error over questions, over pairs where questions are edits of one another\n"
        "unparsed: completions in which no answer was found, which count as wrong"
    )
    return f"{aligned(header, body)}\n{legend}"


def _cells(summary: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if summary is None:
        return "", "", ""
    accuracy = f"{100 * summary['accuracy']:.1f} ± {100 * summary['standard_error']:.1f}"
    return accuracy, str(summary["n"]), f"{100 * summary['parse_failure_rate']:.1f} %"
