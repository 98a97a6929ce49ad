"""Answers got in two ways and put to the vote: reasoning in words beside programs, of one student or of two.

One greedy answer of each way comes first; only where the two differ are there more. Who is trusted in a tie is found on
questions of its own, never on those that are scored.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.answers import extract, kind_of
from toolkit.decode_procedures import Answered, Procedure, converse
from toolkit.decoding import Decoding
from toolkit.errors import UserError
from toolkit.evaluation import Asker, EvaluationResult, Key, about, finished_in, identity, with_values, write_rows
from toolkit.import_closure import closure_digest
from toolkit.problem import Problem, question_columns
from toolkit.scores import Row, judge, score_by_task, score_rows, ways_report
from toolkit.votes import Ballot, agree


@dataclass(frozen=True)
class Way:
    """One way to an answer.

    Attributes:
        model: The student that takes it.
        tokenizer: Its tokenizer.
        procedure: How an answer is got; the view of its first turn is the way's name.
    """

    model: Any
    tokenizer: Any
    procedure: Procedure

    @property
    def name(self) -> str:
        """The view of the first turn."""
        return self.procedure.turns[0].view


@dataclass(frozen=True)
class Trust:
    """Which way wins a tie, and how that was found.

    Attributes:
        prefer: Name of the way that was right more often where the first answers differ; the first way of equals.
        n: Questions that were asked.
        disagreements: Those on which the first answers differ.
        right: How often each way is right on these.
    """

    prefer: str
    n: int
    disagreements: int
    right: dict[str, int]


def find_trust(
    ways: Sequence[Way],
    problems: Sequence[Problem],
    settings: Decoding,
    *,
    prompt_format: str = "plain",
    batch_size: int,
    seed: int,
    path: Path,
    earlier: Sequence[Path] = (),
    title: str = "development",
) -> Trust:
    """Find out which way to trust, by one greedy answer of each; arguments as of `evaluate_ways`.

    Raises:
        UserError: There are no problems.
    """
    if not problems:
        raise UserError("evaluation.development: there are no questions but those of the sets that are scored")
    drawn = _Drawn(ways, settings, prompt_format, batch_size, seed, earlier)
    rows = drawn.rows(problems, 1, path, title, None)
    apart = [row for row in rows if not row["agreed"]]
    right = {way.name: sum(row["correct"] for row in apart if row["view"] == way.name) for way in ways}
    return Trust(max(right, key=lambda name: right[name]), len(problems), len(apart) // len(ways), right)


def evaluate_ways(
    ways: Sequence[Way],
    problems: Sequence[Problem],
    settings: Decoding,
    trust: Trust,
    *,
    prompt_format: str = "plain",
    batch_size: int,
    seed: int,
    path: Path,
    earlier: Sequence[Path] = (),
    title: str = "evaluation",
) -> EvaluationResult:
    """Let every way answer problems, and judge what is elected.

    Args:
        ways: The ways, of different names.
        problems: What is asked; ids are unique.
        settings: How answers are drawn after each way's first, which is greedy; `samples` counts that one.
        trust: Which way wins a tie.
        prompt_format: `plain` or `chat`.
        batch_size: Completions in flight at once; does not change the result.
        seed: Seed of sampled decoding.
        path: Parquet file of all completions.
        earlier: As of `evaluation.evaluate_student`.
        title: Stands before the progress bar.

    Raises:
        UserError: There are no problems, or a prompt does not fit into the student.
    """
    if not problems:
        raise UserError(f"{title}: there are no problems to score on")
    drawn = _Drawn(ways, settings, prompt_format, batch_size, seed, earlier)
    rows = drawn.rows(problems, settings.samples, path, title, trust.prefer)
    first, *others = (about(settings, way.procedure, seed) for way in ways)
    beside = [turn for other in others for turn in other["turns"]]
    told = {**first, "beside": beside, "voter": _voter(), "trust": asdict(trust)}
    return EvaluationResult(score_rows(rows), score_by_task(rows), rows, path, told, ways_report(rows))


class _Drawn:
    """Draws the answers of some ways."""

    def __init__(
        self,
        ways: Sequence[Way],
        settings: Decoding,
        prompt_format: str,
        batch_size: int,
        seed: int,
        earlier: Sequence[Path],
    ) -> None:
        self._ways, self._settings, self._earlier = ways, settings, earlier
        self._about = (prompt_format, batch_size, seed)
        keys = [identity(way.model, way.tokenizer, way.procedure, settings, prompt_format, seed) for way in ways]
        self._key = hashlib.sha256("".join(keys).encode()).hexdigest()

    def rows(self, problems: Sequence[Problem], samples: int, path: Path, title: str, prefer: str | None) -> list[Row]:
        """Return the judged answers to problems: of each way one, and `samples` in all where these differ."""
        parts = path.with_name(path.name + ".parts")
        done = finished_in([*self._earlier, path, *parts.glob("*.parquet")], self._key)
        prompt_format, batch_size, seed = self._about
        answered: dict[str, list[Answered]] = {problem.id: [] for problem in problems}

        def ask(some: Sequence[Problem], places: Sequence[int], settings: Decoding) -> None:
            got: dict[Key, Answered] = {}
            for number, way in enumerate(self._ways):
                student = (way.model, way.tokenizer)
                asker = Asker(*student, settings, prompt_format, batch_size, seed, parts, self._key, done)
                conversations = {
                    # Each answer has a number of its own, the first of every way before the second of any.
                    (problem.id, place * len(self._ways) + number): converse(
                        way.procedure, question_columns(problem), asker.frame
                    )
                    for problem in some
                    for place in places
                }
                got |= with_values(way.procedure, asker.hold(conversations, f"{title}, {way.name}"))
            for name, sample in sorted(got, key=lambda key: key[1]):
                answered[name].append(got[name, sample])

        ask(problems, [0], replace(self._settings, samples=1, temperature=0.0, top_p=1.0))
        apart = [problem for problem in problems if not _agree(problem, answered[problem.id])]
        ask(apart, range(1, samples), self._settings)
        rows = judge(problems, [answered[problem.id] for problem in problems], prefer)
        write_rows(path, rows, self._key)
        shutil.rmtree(parts, ignore_errors=True)
        return rows


def _agree(problem: Problem, answered: Sequence[Answered]) -> bool:
    kind = kind_of(problem.answer, problem.kind)
    ballots = [Ballot(one.turns[0].view, extract(one.answer, kind, problem.choices)) for one in answered]
    return agree(ballots, kind, problem.choices)


def _voter() -> str:
    return f"toolkit.votes@{closure_digest('toolkit.votes')[:8]}"
