"""`teacher_cots`: the chains of thought that a teacher sampled for each question, as they are.

What Std-CoT, Fine-tune-CoT and SCoTD train on: n samples per question, kept if right, or all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import datasets

from dataset_builders.asking import Ask, Asker, Outcome, Record, Requests, Rounds, Step, is_unanswered, record_id
from dataset_builders.chains import Chain, is_right, question_columns, sft_record, whole
from dataset_builders.columns import (
    CHAIN,
    DEMONSTRATIONS,
    LOGPROBS,
    PROVENANCE,
    QUESTION,
    REASON,
    SFT,
    Column,
    Columns,
    text_paths,
)
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import TeacherCotsSettings, WrittenChains
from dataset_builders.written import written_chains
from toolkit.draws import some
from toolkit.on_disk import DiskCounter, DiskList
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

    VERSION = datasets.Version("1.1.0")
    CHANGES: ClassVar[dict[str, str]] = {
        "1.1.0": "`sft` holds right chains only, whatever `keep` says.",
        "1.0.0": "The first version.",
    }
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
    OPTIONAL: ClassVar[dict[str, Columns]] = {
        "sampling.top_logprobs": {"chain": {"logprobs": LOGPROBS}},
        "demonstrations": {"demonstrations": DEMONSTRATIONS},
    }
    CHAINS = ("chain",)

    @classmethod
    def tables(cls, outcome: Outcome) -> dict[str, Columns]:
        """Return the columns of each config, with those that were asked for: log-probabilities, demonstrations."""
        tables = super().tables(outcome)
        chain = cls.RECORD["chain"]
        assert isinstance(chain, dict)
        # All records of an outcome have the same columns.
        record: Record = next(iter(outcome.train or outcome.rejected), {"chain": {}})
        if "logprobs" in record["chain"]:
            tables["default"] = {**tables["default"], "chain": {**chain, "logprobs": LOGPROBS}}
        if "demonstrations" in record:
            tables["default"] = {**tables["default"], "demonstrations": DEMONSTRATIONS}
        return tables

    @classmethod
    def asks(cls, settings: TeacherCotsSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return (Ask(("cot",)),)

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: TeacherCotsSettings) -> Rounds:
        """Yield the one round of requests, none for ready-made chains."""

        def request(place: int) -> Request:
            index, sample = divmod(place, settings.samples)
            return asker.request("cot", problems[index], sample)

        if settings.chains is None:
            yield Requests(range(len(problems) * settings.samples), request)

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: TeacherCotsSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`."""
        if settings.chains is not None:
            step, samples = Step("chains"), _ready_made(settings.chains, settings.max_characters)
        else:
            step, samples = Step("cot"), _asked(problems, asker, settings)
        steps.append(step)
        records = _judged(samples, settings, step)
        yield from _demonstrated(records, settings, steps) if settings.demonstrations else records

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's chain as prompt and completion."""
        return sft_record(record, record["chain"])


def _asked(problems: Sequence[Problem], asker: Asker, settings: TeacherCotsSettings) -> Iterator[Sample]:
    """Read the samples of every problem."""
    for problem in problems:
        for index in range(settings.samples):
            request = asker.request("cot", problem, index)
            yield Sample(
                record_id(problem, index, settings.samples),
                problem.id,
                problem,
                asker.chain(request, problem, "teacher"),
                {"logprobs": asker.logprobs(request)} if settings.sampling.top_logprobs else {},
            )


def _ready_made(written: WrittenChains, max_characters: int) -> Iterator[Sample]:
    """Read chains that are there already, to be judged by the rules that a teacher's are judged by."""
    for problem, chain in written_chains(written, max_characters):
        # Every row is a problem with an id of its own; rows of one question are told by their text.
        yield Sample(problem.id, digest(problem.task, problem.question, problem.answer), problem, chain)


def _judged(samples: Iterator[Sample], settings: TeacherCotsSettings, step: Step) -> Iterator[Record]:
    """Make a record of every sample."""
    seen = DiskCounter()
    for sample in samples:
        chain, problem = sample.chain, sample.problem
        correct = is_right(chain, problem)
        reason = chain.fault
        if seen.count(sample.question, chain.rationale) > 1 and reason is None:
            reason = "the same chain as another sample"
        if reason is None and not correct and settings.keep == "right":
            reason = "final answer is wrong"
        step.count(reason, "right" if correct else "wrong")
        step.completions += not is_unanswered(reason)
        yield {
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


def _demonstrated(records: Iterator[Record], settings: TeacherCotsSettings, steps: list[Step]) -> Iterator[Record]:
    """Give every record its demonstrations, and reject those for which there are none.

    One chain demonstrates a question, its first right one, so that the questions shown with a record all differ.
    """
    train = DiskList[Record]()
    named: dict[str, list[tuple[str, int]]] = {}
    demonstrating = DiskCounter()
    for record in records:
        if record["reason"] is not None:
            yield {**record, "demonstrations": None}
            continue
        if record["correct"] and demonstrating.count(record["task"], record["question"]) == 1:
            named.setdefault(record["task"], []).append((record["id"], len(train)))
        train.append(record)
    # By id: whom a record is shown with does not depend on the order of the problems.
    pools = {task: array("Q", (place for _, place in sorted(named.pop(task)))) for task in list(named)}
    step = Step("demonstrations")
    steps.append(step)
    for record in train:
        shown = _partners(record, train, pools.get(record["task"], array("Q")), settings)
        reason = None if shown else "no right chain of another question of the task to demonstrate"
        step.count(reason)
        if reason:
            yield {**record, "reason": reason, "demonstrations": None}
            continue
        asked = [f"Q: {other['question']}\nA: " for other in shown]
        chains = [whole(other["chain"]["rationale"], other["answer"]) for other in shown]
        columns = {
            "answers": "".join(f"{ask}{other['answer']}\n\n" for ask, other in zip(asked, shown, strict=True)),
            "chains": "".join(f"{ask}{chain}\n\n" for ask, chain in zip(asked, chains, strict=True)),
        }
        yield {**record, "demonstrations": columns}


def _partners(
    record: Record, train: Sequence[Record], pool: Sequence[int], settings: TeacherCotsSettings
) -> list[Record]:
    """Draw the records that demonstrate for one: of other questions, a function of (seed, its id) and of the pool.

    Args:
        record: Whom they are shown with.
        train: The records.
        pool: Places in it of those that may demonstrate.
        settings: How many, and the seed.
    """
    # One more than is wanted: the record's own question may be among them.
    drawn = some(settings.demonstrations + 1, len(pool), "demonstrations", settings.seed, record["id"])
    others = (train[pool[position]] for position in drawn)
    return [other for other in others if other["question"] != record["question"]][: settings.demonstrations]
