"""`teacher_cots`: the chains of thought that a teacher sampled for each question, as they are.

What Std-CoT, Fine-tune-CoT and SCoTD train on: n samples per question, kept if right, or all of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dataset_builders.asking import Asker, Outcome, Rounds, Step, is_unanswered, samples_of
from dataset_builders.chains import Chain, is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, LOGPROBS, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import TeacherCotsSettings, WrittenChains
from dataset_builders.written import written_chains
from toolkit.problem import Problem
from toolkit.problem_rows import digest
from toolkit.teachers.protocol import Request


@dataclass(frozen=True)
class Sample:
    """One chain as it came.

    Attributes:
        id: The record's id.
        question: What the samples of one question have in common and no other has.
        problem: What the chain answers.
        chain: The chain.
        logprobs: The column of this name, where it was asked for.
    """

    id: str
    question: str
    problem: Problem
    chain: Chain
    logprobs: dict[str, Any] = field(default_factory=dict)


class TeacherCots(CotsBuilder):
    """One record per sampled chain; see `TeacherCotsSettings`."""

    SETTINGS = TeacherCotsSettings
    WHAT = "Chains of thought that a teacher sampled for each question: data for Std-CoT, Fine-tune-CoT and SCoTD."
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        **REASON,
        "correct": Column("bool", "Whether the chain's final answer is the gold one"),
        "chain": {**CHAIN, "provenance": PROVENANCE},
    }
    SFT_RECORD: ClassVar[Columns] = SFT
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("chain",)

    @classmethod
    def tables(cls, outcome: Outcome) -> dict[str, Columns]:
        """Return the columns of each config; chains have `logprobs` where the teacher was asked for them."""
        tables = super().tables(outcome)
        chain = cls.RECORD["chain"]
        assert isinstance(chain, dict)
        if any("logprobs" in record["chain"] for record in (*outcome.train, *outcome.rejected)):
            tables["default"] = {**cls.RECORD, "chain": {**chain, "logprobs": LOGPROBS}}
        return tables

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: TeacherCotsSettings) -> Rounds:
        """Yield the one round of requests, none for ready-made chains, and return the records."""
        if settings.chains is not None:
            step, samples = Step("chains"), _ready_made(settings.chains, settings.max_characters)
        else:
            step = Step("cot")
            samples = yield from _asked(problems, asker, settings)
        outcome = Outcome(steps=[step])
        seen: set[tuple[str, str | None]] = set()
        for sample in samples:
            chain, problem = sample.chain, sample.problem
            correct = is_right(chain, problem)
            reason = chain.fault
            if reason is None and (sample.question, chain.rationale) in seen:
                reason = "the same chain as another sample"
            if reason is None and not correct and settings.keep == "right":
                reason = "final answer is wrong"
            seen.add((sample.question, chain.rationale))
            step.count(reason, "right" if correct else "wrong")
            step.completions += not is_unanswered(reason)
            (outcome.rejected if reason else outcome.train).append(
                {
                    **question_columns(problem, sample.id),
                    "reason": reason,
                    "correct": correct,
                    "chain": {
                        "rationale": chain.rationale,
                        "answer": chain.answer,
                        "provenance": chain.provenance,
                        **sample.logprobs,
                    },
                }
            )
        return outcome

    @staticmethod
    def sft(record: dict[str, Any]) -> dict[str, Any]:
        """Return a record's chain as prompt and completion."""
        return sft_record(record, record["chain"])


def _asked(
    problems: Sequence[Problem], asker: Asker, settings: TeacherCotsSettings
) -> Generator[list[Request], None, list[Sample]]:
    """Ask for the samples of every problem."""
    wanted = samples_of(problems, settings.samples)
    requests = [asker.request("cot", problem, index) for _, problem, index in wanted]
    yield requests
    return [
        Sample(
            name,
            problem.id,
            problem,
            asker.chain(request, problem, "teacher"),
            {"logprobs": asker.logprobs(request)} if settings.sampling.top_logprobs else {},
        )
        for (name, problem, _), request in zip(wanted, requests, strict=True)
    ]


def _ready_made(written: WrittenChains, max_characters: int) -> list[Sample]:
    """Read chains that are there already, to be judged by the rules that a teacher's are judged by."""
    return [
        # Every row is a problem with an id of its own; rows of one question are told by their text.
        Sample(problem.id, digest(problem.task, problem.question, problem.answer), problem, chain)
        for problem, chain in written_chains(written, max_characters)
    ]
