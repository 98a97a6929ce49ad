"""`counterfactual_rationales`: for every question reasoning for the gold answer, and reasoning for a wrong one.

What SCOTT trains on (arXiv 2305.01879): a student that has to follow either reasoning to its own answer cannot leave
the reasoning aside. Both sides answer the same prompt, in which an answer is given and its reasons are asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from dataset_builders.asking import Ask, Asker, Outcome, Rounds, Step, until_accepted
from dataset_builders.chains import Chain, is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.other_answers import OtherAnswers
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import CounterfactualRationalesSettings
from toolkit.answers import kind_of
from toolkit.problem import Problem
from toolkit.teachers.protocol import Request

Side = Literal["factual", "counterfactual"]


@dataclass
class Both:
    """A record in the making: its problem with either answer, the chains it has so far, why it was given up.

    Attributes:
        factual_problem: The problem, with its own gold answer.
        counterfactual_problem: The same with the wrong answer as if it were gold; None where there is none.
        factual: Reasoning for the gold answer.
        counterfactual: Reasoning for the wrong answer.
        reason: Why the record is rejected, None where it isn't.
    """

    factual_problem: Problem
    counterfactual_problem: Problem | None
    factual: Chain | None = None
    counterfactual: Chain | None = None
    reason: str | None = None


class CounterfactualRationales(CotsBuilder):
    """One record per question; see `CounterfactualRationalesSettings`."""

    SETTINGS = CounterfactualRationalesSettings
    WHAT = (
        "For every question reasoning that leads to the gold answer and reasoning that leads to a wrong one: data for "
        "SCOTT (arXiv 2305.01879) and other methods that tie a student's answer to its reasoning."
    )
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        **REASON,
        "factual": {
            **CHAIN,
            "answer": Column("string", "The gold answer, which was given"),
            "provenance": PROVENANCE,
        },
        "counterfactual": {
            **CHAIN,
            "answer": Column("string", "The wrong answer, which was given"),
            "provenance": PROVENANCE,
        },
    }
    SFT_RECORD: ClassVar[Columns] = SFT
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("factual", "counterfactual")

    @classmethod
    def asks(cls, settings: CounterfactualRationalesSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return Ask(("rationalise",), settings.tries), Ask(("rationalise",), settings.tries)

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: CounterfactualRationalesSettings) -> Rounds:
        """Yield what to ask, the factual side first, and return the records; see `dataset_builders.asking`."""
        drawn = Step("other_answer")
        records = _with_other_answers(problems, settings, drawn)
        steps = [drawn]
        sides: tuple[Side, ...] = ("factual", "counterfactual")
        for side in sides:
            step = Step(side)
            yield from _one_side(side, step, [both for both in records if both.reason is None], asker, settings)
            steps.append(step)
        rows = [_row(both) for both in records]
        return Outcome(
            train=[row for row in rows if row["reason"] is None],
            rejected=[row for row in rows if row["reason"] is not None],
            steps=steps,
        )

    @staticmethod
    def sft(record: dict[str, Any]) -> dict[str, Any]:
        """Return a record's factual side as prompt and completion."""
        return sft_record(record, record["factual"])


def _with_other_answers(
    problems: Sequence[Problem], settings: CounterfactualRationalesSettings, step: Step
) -> list[Both]:
    """Draw a wrong answer for every problem."""
    others = OtherAnswers(problems, settings.seed)
    records = []
    for problem in problems:
        answer, reason = others.draw(problem)
        # The kind is the gold's on both sides: what a wrong answer looks like does not change how answers are read.
        kind = kind_of(problem.answer, problem.kind)
        counterfactual = None if answer is None else replace(problem, answer=answer, kind=kind)
        step.count(reason)
        records.append(Both(problem, counterfactual, reason=reason))
    return records


def _one_side(
    side: Side, step: Step, records: list[Both], asker: Asker, settings: CounterfactualRationalesSettings
) -> Generator[list[Request], None, None]:
    """Ask for the reasoning of one side until it ends in the answer that was given."""

    def ask(both: Both, attempt: int) -> Request:
        given, other = both.factual_problem, both.counterfactual_problem
        assert other is not None
        if side == "counterfactual":
            given, other = other, given
        return asker.request("rationalise", given, attempt, against=other if settings.contrastive else None)

    verdicts = yield from until_accepted(step, records, settings.tries, ask, partial(_judge, side=side, asker=asker))
    for both, (chain, fault) in zip(records, verdicts, strict=True):
        setattr(both, side, chain)
        both.reason = fault and f"{side}: {fault}"


def _judge(both: Both, request: Request, side: Side, asker: Asker) -> tuple[Chain, str | None]:
    given = both.factual_problem if side == "factual" else both.counterfactual_problem
    assert given is not None
    chain = asker.chain(request, given, "teacher")
    if chain.fault is not None:
        return chain, chain.fault
    if side == "counterfactual" and is_right(chain, both.factual_problem):
        return chain, "reasoning ends in the gold answer all the same"
    if not is_right(chain, given):
        return chain, "reasoning ends in another answer than the one given"
    if both.factual is not None and chain.rationale == both.factual.rationale:
        return chain, "both rationales are the same"
    return replace(chain, answer=given.answer), None


def _row(both: Both) -> dict[str, Any]:
    sides = {"factual": both.factual, "counterfactual": both.counterfactual}
    return {
        **question_columns(both.factual_problem, both.factual_problem.id),
        "reason": both.reason,
        **{
            side: chain and {"rationale": chain.rationale, "answer": chain.answer, "provenance": chain.provenance}
            for side, chain in sides.items()
        },
    }
