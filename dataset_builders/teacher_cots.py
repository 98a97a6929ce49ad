"""`teacher_cots`: the chains of thought that a teacher sampled for each question, as they are.

What Std-CoT, Fine-tune-CoT and SCoTD train on: n samples per question, kept if right, or all of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dataset_builders.asking import Ask, Asker, Outcome, Rounds, Step, is_unanswered, samples_of
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
    OPTIONAL: ClassVar[dict[str, Columns]] = {
        "sampling.top_logprobs": {"chain": {"logprobs": LOGPROBS}},
        "demonstrations": {"demonstrations": DEMONSTRATIONS},
    }
    CHAINS = ("chain",)
    ROW_CODE = ("toolkit.draws",)

    @classmethod
    def tables(cls, outcome: Outcome) -> dict[str, Columns]:
        """Return the columns of each config, with those that were asked for: log-probabilities, demonstrations."""
        tables = super().tables(outcome)
        chain = cls.RECORD["chain"]
        assert isinstance(chain, dict)
        records = (*outcome.train, *outcome.rejected)
        if any("logprobs" in record["chain"] for record in records):
            tables["default"] = {**tables["default"], "chain": {**chain, "logprobs": LOGPROBS}}
        if any("demonstrations" in record for record in records):
            tables["default"] = {**tables["default"], "demonstrations": DEMONSTRATIONS}
        return tables

    @classmethod
    def asks(cls, settings: TeacherCotsSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return (Ask(("cot",)),)

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
        return _demonstrated(outcome, settings) if settings.demonstrations else outcome

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


def _demonstrated(outcome: Outcome, settings: TeacherCotsSettings) -> Outcome:
    """Give every record its demonstrations, and reject those for which there are none.

    One chain demonstrates a question, its first right one, so that the questions shown with a record all differ.
    """
    step = Step("demonstrations")
    pools: dict[str, dict[str, dict[str, Any]]] = {}
    for record in outcome.train:
        if record["correct"]:
            pools.setdefault(record["task"], {}).setdefault(record["question"], record)
    # By id: whom a record is shown with does not depend on the order of the problems.
    ordered = {task: sorted(pool.values(), key=lambda record: str(record["id"])) for task, pool in pools.items()}
    train = []
    for record in outcome.train:
        shown = _partners(record, ordered.get(record["task"], []), settings)
        reason = None if shown else "no right chain of another question of the task to demonstrate"
        step.count(reason)
        if reason:
            outcome.rejected.append({**record, "reason": reason})
            continue
        asked = [f"Q: {other['question']}\nA: " for other in shown]
        chains = [whole(other["chain"]["rationale"], other["answer"]) for other in shown]
        columns = {
            "answers": "".join(f"{ask}{other['answer']}\n\n" for ask, other in zip(asked, shown, strict=True)),
            "chains": "".join(f"{ask}{chain}\n\n" for ask, chain in zip(asked, chains, strict=True)),
        }
        train.append({**record, "demonstrations": columns})
    rejected = [{**record, "demonstrations": None} for record in outcome.rejected]
    return Outcome(train, rejected, [*outcome.steps, step])


def _partners(
    record: dict[str, Any], pool: list[dict[str, Any]], settings: TeacherCotsSettings
) -> list[dict[str, Any]]:
    """Draw the records that demonstrate for one: of other questions, a function of (seed, its id) and of the pool."""
    # One more than is wanted: the record's own question may be among them.
    drawn = some(settings.demonstrations + 1, len(pool), "demonstrations", settings.seed, record["id"])
    others = [pool[position] for position in drawn if pool[position]["question"] != record["question"]]
    return others[: settings.demonstrations]
