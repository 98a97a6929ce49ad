"""`dual_cots`: for every question a right and a wrong chain of thought with similar paths, and where they differ.

EDIT's data pipeline (arXiv 2405.19737, section 3.2): a plain CoT prompt for every problem; an answer-hint prompt
rectifies the chains that came out wrong; a contrastive prompt corrupts those that came out right.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from dataset_builders.asking import Ask, Asker, Record, Requests, Retried, Rounds, Step, is_unanswered, record_id
from dataset_builders.chains import Chain, dual_record, is_right, sft_record, whole
from dataset_builders.columns import QUESTION, REASON, RIGHT, SFT, WRONG, Columns, text_paths
from dataset_builders.pairs import paired_chains
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import DualCotsSettings, Pairs
from toolkit.on_disk import DiskList
from toolkit.problem import Problem
from toolkit.prompts import Exemplar
from toolkit.teachers.protocol import Request

# Exemplars come from the first pairs of a task only: once there are so many, another problem changes nobody's prompt.
_EXEMPLAR_POOL = 16


@dataclass(frozen=True)
class Dual:
    """A dual CoT in the making: its problem, the chains it has so far, and why it was given up, if it was."""

    id: str
    problem: Problem
    sample: int
    right: Chain | None = None
    wrong: Chain | None = None
    reason: str | None = None


class DualCots(CotsBuilder):
    """Dual chains of thought with the spans of their key steps; see `DualCotsSettings`."""

    SETTINGS = DualCotsSettings
    WHAT = (
        "For every question a right and a wrong chain of thought that take similar paths, and the spans where they "
        "part: data for EDIT (arXiv 2405.19737) and other methods that learn from key reasoning steps."
    )
    RECORD: ClassVar[Columns] = {**QUESTION, **REASON, "right": RIGHT, "wrong": WRONG}
    SFT_RECORD: ClassVar[Columns] = SFT
    COLUMNS = text_paths(RECORD) - {"reason"}
    CHAINS = ("right", "wrong")

    @classmethod
    def asks(cls, settings: DualCotsSettings) -> tuple[Ask, ...]:
        """See `CotsBuilder.asks`."""
        return Ask(("cot",)), Ask(("answer_hint", "contrastive"), settings.tries, shown=1 + 2 * settings.exemplars)

    @staticmethod
    def rounds(problems: Sequence[Problem], asker: Asker, settings: DualCotsSettings) -> Rounds:
        """Yield what to ask, round by round: chains, answer hints where they are wrong, corruptions where right."""
        if settings.pairs is None:
            yield from _Asked(problems, asker, settings).rounds()

    @staticmethod
    def records(
        problems: Sequence[Problem], asker: Asker, settings: DualCotsSettings, steps: list[Step]
    ) -> Iterator[Record]:
        """Yield the records; see `CotsBuilder.records`."""
        if settings.pairs is not None:
            duals = _paired(settings.pairs, settings.max_characters, steps)
        else:
            duals = _Asked(problems, asker, settings).duals(steps)
        for dual in duals:
            yield dual_record(dual.problem, dual.id, dual.right, dual.wrong, dual.reason)

    @staticmethod
    def sft(record: Record) -> Record:
        """Return a record's right chain as prompt and completion."""
        return sft_record(record, record["right"])


def _paired(pairs: Pairs, max_characters: int, steps: list[Step]) -> Iterator[Dual]:
    """Judge ready-made chains by the rules that a teacher's are judged by."""
    step = Step("pairs")
    steps.append(step)
    for problem, right, wrong in paired_chains(pairs, max_characters):
        reason = None
        if right.fault or wrong.fault:
            reason = f"right chain: {right.fault}" if right.fault else f"wrong chain: {wrong.fault}"
        elif not is_right(right, problem):
            reason = "right chain is wrong"
        elif is_right(wrong, problem):
            reason = "wrong chain is right"
        elif right.rationale == wrong.rationale:
            reason = "both rationales are the same"
        step.count(reason)
        step.completions += 2
        yield Dual(problem.id, problem, 0, right, wrong, reason)


class _Asked:
    """Duals out of a teacher's answers: its wrong chains are rectified, its right ones corrupted."""

    def __init__(self, problems: Sequence[Problem], asker: Asker, settings: DualCotsSettings) -> None:
        self._problems, self._asker, self._settings = problems, asker, settings
        self._rectified = Retried(settings.tries, self._hint, self._judge_rectified)
        self._corrupted = Retried(settings.tries, self._contrast, self._judge_corrupted)
        # The first rectified pairs of each task, in the order of the problems.
        self._exemplars: defaultdict[str, list[Dual]] = defaultdict(list)

    def rounds(self) -> Rounds:
        yield Requests(range(len(self._problems) * self._settings.samples), self._first_request)
        wrong, right = DiskList[Dual](), DiskList[Dual]()
        for problem in self._problems:
            for dual in self._started(problem, Step("cot")):
                if dual.reason is None:
                    (wrong if dual.right is None else right).append(dual)
        yield from self._rectified.rounds(wrong)
        for dual in wrong:
            if len(self._exemplars[dual.problem.task]) < _EXEMPLAR_POOL:
                self._rectify(dual, Step("answer_hint"))
        yield from self._corrupted.rounds(right)

    def duals(self, steps: list[Step]) -> Iterator[Dual]:
        cot, rectified, corrupted = Step("cot"), Step("answer_hint"), Step("contrastive")
        steps += [cot, rectified, corrupted]
        duals = DiskList[Dual]()
        for problem in self._problems:
            for dual in self._started(problem, cot):
                is_wrong = dual.right is None and dual.reason is None
                duals.append(self._rectify(dual, rectified) if is_wrong else dual)
        for dual in duals:
            if dual.wrong is None:
                wrong, fault = self._corrupted.verdict(dual, corrupted)
                dual = replace(dual, wrong=wrong, reason=fault and f"contrastive: {fault}")
            yield dual

    def _started(self, problem: Problem, step: Step) -> list[Dual]:
        """Return the duals of a problem's samples, each with its first chain on the side where it belongs."""
        duals = []
        seen: set[str | None] = set()
        for sample in range(self._settings.samples):
            chain = self._asker.chain(self._asker.request("cot", problem, sample), problem, "teacher")
            fault = chain.fault
            if fault is None and chain.rationale in seen:
                fault = "the same chain as another sample"
            seen.add(chain.rationale)
            right = fault is None and is_right(chain, problem)
            step.count(fault, "right" if right else "wrong")
            step.completions += not is_unanswered(fault)
            dual = Dual(record_id(problem, sample, self._settings.samples), problem, sample)
            duals.append(
                replace(dual, right=chain) if right else replace(dual, wrong=chain, reason=fault and f"cot: {fault}")
            )
        return duals

    def _rectify(self, dual: Dual, step: Step) -> Dual:
        """Return a dual with its rectified chain, which becomes an exemplar as long as its task has few."""
        right, fault = self._rectified.verdict(dual, step)
        dual = replace(dual, right=right, reason=fault and f"answer_hint: {fault}")
        pool = self._exemplars[dual.problem.task]
        if fault is None and len(pool) < _EXEMPLAR_POOL:
            pool.append(dual)
        return dual

    def _first_request(self, place: int) -> Request:
        index, sample = divmod(place, self._settings.samples)
        return self._asker.request("cot", self._problems[index], sample)

    def _hint(self, dual: Dual, attempt: int) -> Request:
        return self._asker.request("answer_hint", dual.problem, self._index(dual, attempt))

    def _contrast(self, dual: Dual, attempt: int) -> Request:
        shown = _draw(self._exemplars[dual.problem.task], dual, self._settings)
        return self._asker.request(
            "contrastive", dual.problem, self._index(dual, attempt), right=_text(dual.right), exemplars=shown
        )

    def _index(self, dual: Dual, attempt: int) -> int:
        # Attempt 0 has the sample index of the chain it starts from; no two samples share an index.
        return dual.sample + attempt * self._settings.samples

    def _judge_rectified(self, dual: Dual, request: Request) -> tuple[Chain, str | None]:
        right = self._asker.chain(request, dual.problem, "rectified")
        if right.fault is None and not is_right(right, dual.problem):
            return right, "hint ignored"
        return right, right.fault or _sameness(right, dual.wrong)

    def _judge_corrupted(self, dual: Dual, request: Request) -> tuple[Chain, str | None]:
        wrong = self._asker.chain(request, dual.problem, "corrupted")
        if wrong.fault is None and is_right(wrong, dual.problem):
            return wrong, "corruption came out right"
        return wrong, wrong.fault or _sameness(wrong, dual.right)


def _sameness(chain: Chain, other: Chain | None) -> str | None:
    assert other is not None
    return "both rationales are the same" if chain.rationale == other.rationale else None


def _text(chain: Chain | None) -> str:
    assert chain is not None
    return whole(chain.rationale or "", chain.answer or "")


def _draw(pool: list[Dual], dual: Dual, settings: DualCotsSettings) -> list[Exemplar]:
    """Draw exemplars for one dual: the smallest digests of (seed, its id, the exemplar's id), other questions only."""

    def rank(other: Dual) -> str:
        return hashlib.sha256(f"{settings.seed}\0{dual.id}\0{other.id}".encode()).hexdigest()

    others = [other for other in pool if other.problem.question != dual.problem.question]
    drawn = sorted(others, key=rank)[: settings.exemplars]
    return [Exemplar(other.problem.question, _text(other.right), _text(other.wrong)) for other in drawn]
