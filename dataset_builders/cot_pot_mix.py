"""`cot_pot_mix`: for every question chains of thought and programs with the same answer, in pairs.

What Mixed Distillation trains on (arXiv 2312.10730), as far as its abstract tells: two kinds of rationale per question,
of high quality and well balanced. A record is one of each kind, so that any selection of records is balanced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from dataset_builders.asking import UNPAIRED, Ask, Asker, Record, Requests, Rounds, Step, is_unanswered, record_id
from dataset_builders.chains import Chain, is_right, question_columns, sft_record
from dataset_builders.columns import CHAIN, PROVENANCE, QUESTION, REASON, SFT, Column, Columns, text_paths
from dataset_builders.cot_pot_settings import CotPotMixSettings
from dataset_builders.published import CotsBuilder
from dataset_builders.written_mix import Written
from toolkit import program_jail
from toolkit.answers import kind_of, matches
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_sources import open_problems
from toolkit.program_answers import ProgramAnswer, fingerprint, run_all
from toolkit.programs import TIERS, Runner
from toolkit.teachers.protocol import Request
from toolkit.votes import Ballot, alike, vote

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "ans"
_RUN_AT_ONCE = 64  # problems whose programs run together

Kind = Literal["cot", "pot"]
One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Thought:
    """One chain of thought or program of a problem.

    Attributes:
        kind: Which of the two.
        sample: Which one of its kind.
        chain: It; the answer of a program is its value.
        ran: What came of running a program; None for a chain, and for a program that was not run.
        reason: Why it is rejected, None for a right one.
    """

    kind: Kind
    sample: int
    chain: Chain
    ran: ProgramAnswer | None = None
    reason: str | None = None


class CotPotMix(CotsBuilder):
    """One record per pair of a chain and a program; see `CotPotMixSettings`."""

    SETTINGS = CotPotMixSettings
    WHAT = (
        "For every question chains of thought and Python programs that lead to the same answer, in pairs: data for "
        "Mixed Distillation (arXiv 2312.10730), whose student learns both and may put both to a vote. Programs are a "
        "model's output: run them in a sandbox alone, as was done here."
    )
    RECORD: ClassVar[Columns] = {
        **QUESTION,
        "answer": Column(
            "string", "Gold answer; with `labels: agreement` the one agreed on, nobody having seen a gold one"
        ),
        **REASON,
        "cot": {
            **CHAIN,
            "mistake": Column("string", "Kind of its mistake, where the teacher labels it"),
            "provenance": PROVENANCE,
        },
        "pot": {
            "rationale": Column("string", "The program, which leaves its answer in the variable `ans`"),
            "answer": Column("string", "Its value, as an answer is written; null where it has none"),
            "status": Column(
                "string",
                "What came of running it: ok, wrong, no_value, syntax, runtime, timeout, memory, import, unsupported; "
                "null where there was nothing to run",
            ),
            "tier": Column(
                "int64", "Where it ran: 1 in an interpreter of a subset, 2 in a jailed CPython; null as above"
            ),
            "mistake": Column("string", "Kind of its mistake, where the teacher labels it"),
            "provenance": PROVENANCE,
        },
    }
    SFT_RECORD: ClassVar[Columns] = {
        **SFT,
        "prompt": Column("string", "What the student reads: task description and question, and which kind is wanted"),
        "completion": Column("string", "What it learns to write: the chain and its answer clause, or the program"),
    }
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("cot", "pot")
    SFT_ROWS = 2

    @classmethod
    def inputs(cls, settings: CotPotMixSettings, hub_dir: Path) -> tuple[Sequence[Problem], Sequence[Problem]]:
        """Return the problems to ask, or that ready-made texts belong to, and the held-out ones."""
        if settings.written is None or settings.problems is None:
            return super().inputs(settings, hub_dir)
        is_train = getattr(settings.problems, "split", None) == "train"
        return open_problems(settings.problems, "train"), [] if is_train else open_problems(settings.problems, "test")

    @classmethod
    def asks(cls, settings: CotPotMixSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return (Ask(("cot", "pot")),)

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: CotPotMixSettings) -> Rounds:
        """Yield the one round of requests, the chains of a problem before its programs; none for ready-made texts."""
        samples = settings.cots + settings.programs

        def request(place: int) -> Request:
            index, sample = divmod(place, samples)
            if sample < settings.cots:
                return asker.request("cot", problems[index], sample)
            return asker.request("pot", problems[index], sample - settings.cots)

        if settings.written is None:
            yield Requests(range(len(problems) * samples), request)

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: CotPotMixSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`. Programs run here, some problems' at once."""
        source = (
            _Asked(asker, settings) if settings.written is None else Written(settings.written, settings.max_characters)
        )
        names = ("cot", "pot") if settings.written is None else ("written_cot", "written_pot")
        counts = {"cot": Step(names[0]), "pot": Step(names[1]), "balance": Step("balance")}
        steps += counts.values()
        if settings.jail and (reason := program_jail.unavailable()):
            raise UserError(f"dataset.config.jail: found true, but there is no jail on this machine: {reason}")
        with Runner(tiers=TIERS if settings.jail else TIERS[:1]) as runner:
            for start in range(0, len(problems), _RUN_AT_ONCE):
                told = [_asked_for(problem, settings) for problem in problems[start : start + _RUN_AT_ONCE]]
                cots = [[Thought("cot", i, one) for i, one in enumerate(source.cots(problem))] for problem in told]
                pots = [[Thought("pot", i, one) for i, one in enumerate(source.programs(problem))] for problem in told]
                for problem, chains, programs in zip(told, cots, _run(pots, runner), strict=True):
                    yield from _of_problem(problem, [*chains, *programs], settings, counts)

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's chain of thought as prompt and completion."""
        return sft_record(record, record["cot"])

    @classmethod
    def sft_rows(cls, record: Record) -> Sequence[Record]:
        """Return a record's chain of thought and its program, each as prompt and completion."""
        cot = cls.sft(record)
        prompt = cot["prompt"].removesuffix("A:\n") + "Program:\n"
        pot = {**cot, "prompt": prompt, "completion": record["pot"]["rationale"]}
        return {**cot, "id": f"{cot['id']}/cot"}, {**pot, "id": f"{cot['id']}/pot"}


class _Asked:
    """Chains and programs out of a teacher's answers."""

    def __init__(self, asker: Asker, settings: CotPotMixSettings) -> None:
        self._asker, self._settings = asker, settings

    def cots(self, problem: Problem) -> list[Chain]:
        """Return the chains of thought of a problem."""
        requests = (self._asker.request("cot", problem, sample) for sample in range(self._settings.cots))
        return [self._asker.chain(request, problem, "teacher") for request in requests]

    def programs(self, problem: Problem) -> list[Chain]:
        """Return the programs of a problem."""
        requests = (self._asker.request("pot", problem, sample) for sample in range(self._settings.programs))
        return [self._asker.program(request, "teacher") for request in requests]


def _asked_for(problem: Problem, settings: CotPotMixSettings) -> Problem:
    """Return a problem as its answers are read: without its gold answer where nobody is to look at that."""
    return replace(problem, answer="") if settings.labels == "agreement" else problem


def _run(programs: Sequence[Sequence[Thought]], runner: Runner) -> Iterator[list[Thought]]:
    """Run the programs of some problems; yield those of each problem, with what came of them."""
    sources = [one.chain.rationale or "" for one in chain.from_iterable(programs) if one.chain.fault is None]
    answers = iter(run_all(sources, VARIABLE, runner))
    for of_problem in programs:
        ran = [(one, next(answers) if one.chain.fault is None else None) for one in of_problem]
        yield [
            replace(one, ran=came, chain=replace(one.chain, answer=came.answer)) if came is not None else one
            for one, came in ran
        ]


def _of_problem(
    problem: Problem, thoughts: list[Thought], settings: CotPotMixSettings, counts: dict[str, Step]
) -> Iterator[Record]:
    """Yield the records of a problem: pairs, those without a partner, those rejected."""
    gold = problem.answer
    if settings.labels == "agreement":
        gold = _agreed(problem, thoughts) or ""
    problem = replace(problem, answer=gold)
    judged: dict[Kind, list[Thought]] = {"cot": [], "pot": []}
    seen: set[str] = set()
    for thought in thoughts:
        made = _judged(thought, problem, settings, seen)
        counts[made.kind].count(made.reason)
        counts[made.kind].completions += not is_unanswered(made.chain.fault)
        judged[made.kind].append(made)
    right = {kind: [one for one in all_ if one.reason is None] for kind, all_ in judged.items()}
    pairs, cots, pots = balanced(right["cot"], right["pot"], settings.pairs)
    counts["balance"].count(_without_a_pair(right) if not pairs else None)
    for index, (cot, pot) in enumerate(pairs):
        yield _row(problem, record_id(problem, index, len(pairs)), cot, pot, None)
    for thought in (*cots, *pots):
        of_pairs = "more than the other kind has" if len(pairs) < settings.pairs else f"more than {settings.pairs}"
        yield _alone(problem, thought, f"{UNPAIRED}: {of_pairs}")
    for thought in (*judged["cot"], *judged["pot"]):
        if thought.reason is not None:
            yield _alone(problem, thought, f"{thought.kind}: {thought.reason}")


def balanced(
    ones: Sequence[One], others: Sequence[Other], most: int
) -> tuple[list[tuple[One, Other]], list[One], list[Other]]:
    """Pair the first of two kinds, as many as there are of both and at most `most`.

    Returns:
        The pairs, and what is left of each kind.
    """
    pairs = list(zip(ones, others, strict=False))[:most]
    return pairs, list(ones[len(pairs) :]), list(others[len(pairs) :])


def _agreed(problem: Problem, thoughts: Sequence[Thought]) -> str | None:
    """Return the answer with the most votes, None where it is not one of both kinds."""
    ballots = [Ballot(one.kind, one.chain.answer) for one in thoughts if one.chain.fault is None]
    kind = _kind(problem, ballots)
    agreed = vote(ballots, kind, problem.choices)
    ways = {ballot.way for ballot in ballots if alike(ballot.answer, agreed, kind, problem.choices)}
    return agreed if len(ways) == 2 else None


def _kind(problem: Problem, ballots: Sequence[Ballot]) -> str:
    """Return how answers are compared; where nothing says it, the value of the first program that has one does."""
    value = next((ballot.answer for ballot in ballots if ballot.way == "pot" and ballot.answer is not None), "")
    return kind_of(value, problem.kind)


def _judged(thought: Thought, problem: Problem, settings: CotPotMixSettings, seen: set[str]) -> Thought:
    """Return a chain or a program with the reason for which it is rejected, if there is one."""
    chain, ran = thought.chain, thought.ran
    if chain.fault is not None:
        return replace(thought, reason=chain.fault)
    if ran is not None and ran.status != "ok":
        return replace(thought, reason=ran.status)
    if not problem.answer:
        return replace(thought, reason="no answer that both kinds agree on")
    if settings.labels == "agreement":
        right = alike(chain.answer, problem.answer, kind_of(problem.answer, problem.kind), problem.choices)
    elif ran is not None:
        right = matches(chain.answer, problem.answer, problem.kind, problem.choices)
    else:
        right = is_right(chain, problem)
    if ran is not None and not right:
        return replace(thought, ran=replace(ran, status="wrong"), reason="wrong")
    if not right:
        return replace(thought, reason="final answer is wrong")
    mark = (
        fingerprint(chain.rationale or "") if ran is not None else " ".join((chain.rationale or "").casefold().split())
    )
    if f"{thought.kind} {mark}" in seen:
        return replace(thought, reason="the same as another sample")
    seen.add(f"{thought.kind} {mark}")
    return thought


def _without_a_pair(right: dict[Kind, list[Thought]]) -> str:
    names: dict[Kind, str] = {"cot": "chain of thought", "pot": "program"}
    return " and ".join(f"no right {name}" for kind, name in names.items() if not right[kind])


def _alone(problem: Problem, thought: Thought, reason: str) -> Record:
    cot, pot = (thought, None) if thought.kind == "cot" else (None, thought)
    return _row(problem, f"{problem.id}/{thought.kind}{thought.sample}", cot, pot, reason)


def _row(problem: Problem, name: str, cot: Thought | None, pot: Thought | None, reason: str | None) -> dict[str, Any]:
    return {
        **question_columns(problem, name),
        "reason": reason,
        "cot": cot and _columns(cot),
        "pot": pot and _columns(pot),
    }


def _columns(thought: Thought) -> dict[str, Any]:
    chain, ran = thought.chain, thought.ran
    columns: dict[str, Any] = {"rationale": chain.rationale, "answer": chain.answer, "mistake": chain.mistake}
    if thought.kind == "pot":
        columns |= {"status": ran and ran.status, "tier": ran and ran.tier}
    return {**columns, "provenance": chain.provenance}
