"""`counterfactual_rationales`: for every question reasoning for the gold answer, and reasoning for a wrong one.

What SCOTT trains on (arXiv 2305.01879): a student that has to follow either reasoning to its own answer cannot leave
the reasoning aside. Both sides answer the same prompt, in which an answer is given and its reasons are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from dataset_builders.asking import Ask, Asker, Record, Retried, Rounds, Step
from dataset_builders.chains import Chain, is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.other_answers import OtherAnswers
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import CounterfactualRationalesSettings
from toolkit.answers import kind_of
from toolkit.on_disk import DiskList
from toolkit.problem import Problem
from toolkit.teachers.protocol import Request

Side = Literal["factual", "counterfactual"]


@dataclass(frozen=True)
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
        """Yield what to ask, the factual side first."""
        yield from _Asked(problems, asker, settings).rounds()

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: CounterfactualRationalesSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`."""
        return map(_row, _Asked(problems, asker, settings).made(steps))

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's factual side as prompt and completion."""
        return sft_record(record, record["factual"])


class _Asked:
    """Records in the making out of a teacher's answers."""

    def __init__(self, problems: Sequence[Problem], asker: Asker, settings: CounterfactualRationalesSettings) -> None:
        self._problems, self._asker, self._contrastive = problems, asker, settings.contrastive
        self._others = OtherAnswers(problems, settings.seed)
        self._sides: dict[Side, Retried[Both, Chain]] = {
            side: Retried(settings.tries, partial(self._ask, side), partial(self._judge, side))
            for side in ("factual", "counterfactual")
        }

    def rounds(self) -> Rounds:
        drawn = DiskList(both for both in map(self._draw, self._problems) if both.reason is None)
        yield from self._sides["factual"].rounds(drawn)
        begun = (self._with(both, "factual", Step("factual")) for both in drawn)
        yield from self._sides["counterfactual"].rounds(DiskList(both for both in begun if both.reason is None))

    def made(self, steps: list[Step]) -> Iterator[Both]:
        drawn, factual, counterfactual = Step("other_answer"), Step("factual"), Step("counterfactual")
        steps += [drawn, factual, counterfactual]
        for problem in self._problems:
            both = self._draw(problem)
            drawn.count(both.reason)
            both = self._with(both, "factual", factual)
            yield self._with(both, "counterfactual", counterfactual)

    def _draw(self, problem: Problem) -> Both:
        """Draw a wrong answer for a problem."""
        answer, reason = self._others.draw(problem)
        # The kind is the gold's on both sides: what a wrong answer looks like does not change how answers are read.
        kind = kind_of(problem.answer, problem.kind)
        return Both(problem, None if answer is None else replace(problem, answer=answer, kind=kind), reason=reason)

    def _with(self, both: Both, side: Side, step: Step) -> Both:
        """Return a record with the reasoning of one side, or as it is where it was given up before."""
        if both.reason is not None:
            return both
        chain, fault = self._sides[side].verdict(both, step)
        reason = fault and f"{side}: {fault}"
        if side == "factual":
            return replace(both, factual=chain, reason=reason)
        return replace(both, counterfactual=chain, reason=reason)

    def _ask(self, side: Side, both: Both, attempt: int) -> Request:
        given, other = both.factual_problem, both.counterfactual_problem
        assert other is not None
        if side == "counterfactual":
            given, other = other, given
        return self._asker.request("rationalise", given, attempt, against=other if self._contrastive else None)

    def _judge(self, side: Side, both: Both, request: Request) -> tuple[Chain, str | None]:
        given = both.factual_problem if side == "factual" else both.counterfactual_problem
        assert given is not None
        chain = self._asker.chain(request, given, "teacher")
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
