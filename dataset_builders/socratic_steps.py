"""`socratic_steps`: every question taken apart into sub-questions and their answers.

What Socratic CoT (arXiv 2212.00193) and DialCoT (arXiv 2310.05074) train on: one student asks itself the next
sub-question, or answers it, until the final one is settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from dataset_builders.asking import Ask, Asker, Record, Retried, Rounds, Step
from dataset_builders.chains import Chain, is_right, question_columns, sft_record, whole
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, STEPS, Column, Columns, text_paths
from dataset_builders.decomposition import Steps, decomposed_chains, numbered_steps, step_columns
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import Decomposed, SocraticStepsSettings
from toolkit.problem import Problem
from toolkit.teachers.protocol import Request

TakenApart = tuple[Steps, Chain]
"""The steps of a question, and the chain that they make."""


class SocraticSteps(CotsBuilder):
    """One record per question; see `SocraticStepsSettings`."""

    SETTINGS = SocraticStepsSettings
    WHAT = (
        "Questions taken apart into sub-questions, each with its answer: data for Socratic CoT (arXiv 2212.00193), "
        "DialCoT (arXiv 2310.05074) and other methods in which a student asks itself."
    )
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        **REASON,
        "steps": STEPS,
        "chain": {
            "rationale": Column("string", "The answers of the steps, a line each"),
            "answer": CHAIN["answer"],
            "provenance": PROVENANCE,
        },
    }
    SFT_RECORD: ClassVar[Columns] = {
        **SFT,
        "completion": Column(
            "string", "What it learns to write: each sub-question and its answer, then the answer clause"
        ),
    }
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("chain",)

    @classmethod
    def asks(cls, settings: SocraticStepsSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return (Ask(("socratic",), settings.tries),)

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: SocraticStepsSettings) -> Rounds:
        """Yield what to ask, again while the steps are not as they should be."""
        if settings.decomposed is None:
            yield from _asked(asker, settings).rounds(problems)

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: SocraticStepsSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`."""
        if settings.decomposed is not None:
            step = Step("decomposed")
            taken = _ready_made(settings.decomposed, settings, step)
        else:
            step = Step("socratic")
            asked = _asked(asker, settings)
            taken = ((problem, *asked.verdict(problem, step)) for problem in problems)
        steps.append(step)
        for problem, (pieces, chain), reason in taken:
            yield {
                **question_columns(problem, problem.id),
                "reason": reason,
                "steps": step_columns(pieces),
                "chain": {
                    "rationale": chain.rationale,
                    "answer": chain.answer,
                    "provenance": chain.provenance,
                },
            }

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's steps as prompt and completion."""
        dialogue = "\n".join(f"{step['label']}: {step['question']}\n{step['answer']}" for step in record["steps"])
        return {
            **sft_record(record, record["chain"]),
            "completion": whole(dialogue, record["chain"]["answer"]),
        }


def _asked(asker: Asker, settings: SocraticStepsSettings) -> Retried[Problem, TakenApart]:
    def ask(problem: Problem, attempt: int) -> Request:
        return asker.request("socratic", problem, attempt)

    def judge(problem: Problem, request: Request) -> tuple[TakenApart, str | None]:
        chain = asker.chain(request, problem, "teacher")
        if chain.fault is not None:
            return ([], chain), chain.fault
        steps, fault = numbered_steps(chain.rationale or "")
        if fault is None:
            chain = replace(chain, rationale="\n".join(answer for _, answer in steps))
            fault = _too_few(steps, settings)
        if fault is None and not is_right(chain, problem):
            fault = "final answer is wrong"
        return (steps, chain), fault

    return Retried(settings.tries, ask, judge)


def _ready_made(
    decomposed: Decomposed, settings: SocraticStepsSettings, step: Step
) -> Iterator[tuple[Problem, TakenApart, str | None]]:
    """Judge ready-made steps by the rules that a teacher's are judged by."""
    for problem, steps, chain in decomposed_chains(decomposed, settings.max_characters):
        reason = chain.fault or _too_few(steps, settings)
        step.count(reason)
        step.completions += 1
        yield problem, (steps, chain), reason


def _too_few(steps: Steps, settings: SocraticStepsSettings) -> str | None:
    return f"fewer than {settings.min_steps} sub-questions" if len(steps) < settings.min_steps else None
