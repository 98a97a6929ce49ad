"""`teacher_cots`: the chains of thought that a teacher sampled for each question, as they are.

What Std-CoT, Fine-tune-CoT and SCoTD train on: n samples per question, kept if right, or all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from dataset_builders.asking import Asker, Outcome, Rounds, Step, is_unanswered, samples_of
from dataset_builders.chains import is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, LOGPROBS, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import TeacherCotsSettings
from toolkit.problem import Problem


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
        """Yield the one round of requests and return the records; see `dataset_builders.asking`."""
        wanted = samples_of(problems, settings.samples)
        requests = [asker.request("cot", problem, index) for _, problem, index in wanted]
        yield requests
        outcome = Outcome(steps=[Step("cot")])
        seen: set[tuple[str, str | None]] = set()
        for (name, problem, _), request in zip(wanted, requests, strict=True):
            chain = asker.chain(request, problem, "teacher")
            correct = is_right(chain, problem)
            reason = chain.fault
            if reason is None and (problem.id, chain.rationale) in seen:
                reason = "the same chain as another sample"
            if reason is None and not correct and settings.keep == "right":
                reason = "final answer is wrong"
            seen.add((problem.id, chain.rationale))
            outcome.steps[0].count(reason, "right" if correct else "wrong")
            outcome.steps[0].completions += not is_unanswered(reason)
            (outcome.rejected if reason else outcome.train).append(
                {
                    **question_columns(problem, name),
                    "reason": reason,
                    "correct": correct,
                    "chain": {
                        "rationale": chain.rationale,
                        "answer": chain.answer,
                        "provenance": chain.provenance,
                        **({"logprobs": asker.logprobs(request)} if settings.sampling.top_logprobs else {}),
                    },
                }
            )
        return outcome

    @staticmethod
    def sft(record: dict[str, Any]) -> dict[str, Any]:
        """Return a record's chain as prompt and completion."""
        return sft_record(record, record["chain"])
