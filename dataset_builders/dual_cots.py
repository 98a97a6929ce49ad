"""`dual_cots`: for every question a right and a wrong chain of thought with similar paths, and where they differ.

EDIT's data pipeline (arXiv 2405.19737, section 3.2): a plain CoT prompt for every problem; an answer-hint prompt
rectifies the chains that came out wrong; a contrastive prompt corrupts those that came out right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from dataset_builders.asking import Ask, Asker, Outcome, Rounds, Step, is_unanswered, samples_of, until_accepted
from dataset_builders.chains import Chain, dual_record, is_right, sft_record, whole
from dataset_builders.columns import QUESTION, REASON, RIGHT, SFT, WRONG, Columns, text_paths
from dataset_builders.pairs import paired_chains
from dataset_builders.published import CotsBuilder
from dataset_builders.settings import DualCotsSettings
from toolkit.problem import Problem
from toolkit.prompts import Exemplar
from toolkit.teachers.protocol import Request

# Exemplars come from the first pairs of a task only: once there are so many, another problem changes nobody's prompt.
_EXEMPLAR_POOL = 16


@dataclass
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
        """Yield what to ask, round by round, and return the records; see `dataset_builders.asking`."""
        if settings.pairs is not None:
            duals, steps = _paired(settings)
        else:
            duals, steps = yield from _asked(problems, asker, settings)
        records = [dual_record(dual.problem, dual.id, dual.right, dual.wrong, dual.reason) for dual in duals]
        return Outcome(
            train=[record for record in records if record["reason"] is None],
            rejected=[record for record in records if record["reason"] is not None],
            steps=steps,
        )

    @staticmethod
    def sft(record: dict[str, Any]) -> dict[str, Any]:
        """Return a record's right chain as prompt and completion."""
        return sft_record(record, record["right"])


def _paired(settings: DualCotsSettings) -> tuple[list[Dual], list[Step]]:
    """Judge ready-made chains by the rules that a teacher's are judged by."""
    assert settings.pairs is not None
    step = Step("pairs")
    duals = []
    for problem, right, wrong in paired_chains(settings.pairs, settings.max_characters):
        dual = Dual(problem.id, problem, 0, right, wrong)
        if right.fault or wrong.fault:
            dual.reason = f"right chain: {right.fault}" if right.fault else f"wrong chain: {wrong.fault}"
        elif not is_right(right, problem):
            dual.reason = "right chain is wrong"
        elif is_right(wrong, problem):
            dual.reason = "wrong chain is right"
        elif right.rationale == wrong.rationale:
            dual.reason = "both rationales are the same"
        step.count(dual.reason)
        step.completions += 2
        duals.append(dual)
    return duals, [step]


def _asked(
    problems: Sequence[Problem], asker: Asker, settings: DualCotsSettings
) -> Generator[list[Request], None, tuple[list[Dual], list[Step]]]:
    """Ask for chains, rectify the wrong ones, corrupt the right ones."""
    duals = [Dual(name, problem, index) for name, problem, index in samples_of(problems, settings.samples)]
    cot = yield from _first_chains(duals, asker)
    rectify, corrupt = Step("answer_hint"), Step("contrastive")

    def index_of(dual: Dual, attempt: int) -> int:
        # Attempt 0 has the sample index of the chain it starts from; no two samples share an index.
        return dual.sample + attempt * settings.samples

    def hint(dual: Dual, attempt: int) -> Request:
        return asker.request("answer_hint", dual.problem, index_of(dual, attempt))

    wrong = [dual for dual in duals if dual.wrong is not None and dual.reason is None]
    right = [dual for dual in duals if dual.right is not None and dual.reason is None]
    rectified = yield from until_accepted(rectify, wrong, settings.tries, hint, partial(_rectified, asker=asker))
    for dual, (chain, fault) in zip(wrong, rectified, strict=True):
        dual.right, dual.reason = chain, fault and f"answer_hint: {fault}"
    exemplars = _exemplar_pools(wrong)

    def contrast(dual: Dual, attempt: int) -> Request:
        shown = _draw(exemplars.get(dual.problem.task, []), dual, settings)
        return asker.request(
            "contrastive", dual.problem, index_of(dual, attempt), right=_text(dual.right), exemplars=shown
        )

    corrupted = yield from until_accepted(corrupt, right, settings.tries, contrast, partial(_corrupted, asker=asker))
    for dual, (chain, fault) in zip(right, corrupted, strict=True):
        dual.wrong, dual.reason = chain, fault and f"contrastive: {fault}"
    return duals, [cot, rectify, corrupt]


def _first_chains(duals: list[Dual], asker: Asker) -> Generator[list[Request], None, Step]:
    """Ask one chain per dual and put it on the side it belongs to."""
    step = Step("cot")
    requests = [asker.request("cot", dual.problem, dual.sample) for dual in duals]
    yield requests
    seen: set[tuple[str, str | None]] = set()
    for dual, request in zip(duals, requests, strict=True):
        chain = asker.chain(request, dual.problem, "teacher")
        reason = chain.fault
        if reason is None and (dual.problem.id, chain.rationale) in seen:
            reason = "the same chain as another sample"
        seen.add((dual.problem.id, chain.rationale))
        right = reason is None and is_right(chain, dual.problem)
        dual.right, dual.wrong = (chain, None) if right else (None, chain)
        dual.reason = reason and f"cot: {reason}"
        step.count(reason, "right" if right else "wrong")
        step.completions += not is_unanswered(reason)
    return step


def _rectified(dual: Dual, request: Request, asker: Asker) -> tuple[Chain, str | None]:
    right = asker.chain(request, dual.problem, "rectified")
    if right.fault is None and not is_right(right, dual.problem):
        return right, "hint ignored"
    return right, right.fault or _sameness(right, dual.wrong)


def _corrupted(dual: Dual, request: Request, asker: Asker) -> tuple[Chain, str | None]:
    wrong = asker.chain(request, dual.problem, "corrupted")
    if wrong.fault is None and is_right(wrong, dual.problem):
        return wrong, "corruption came out right"
    return wrong, wrong.fault or _sameness(wrong, dual.right)


def _sameness(chain: Chain, other: Chain | None) -> str | None:
    assert other is not None
    return "both rationales are the same" if chain.rationale == other.rationale else None


def _text(chain: Chain | None) -> str:
    assert chain is not None
    return whole(chain.rationale or "", chain.answer or "")


def _exemplar_pools(rectified: list[Dual]) -> dict[str, list[Dual]]:
    """Return the first rectified pairs of each task, in the order of the problems."""
    pools: dict[str, list[Dual]] = {}
    for dual in rectified:
        if dual.reason is None and len(pools.setdefault(dual.problem.task, [])) < _EXEMPLAR_POOL:
            pools[dual.problem.task].append(dual)
    return pools


def _draw(pool: list[Dual], dual: Dual, settings: DualCotsSettings) -> list[Exemplar]:
    """Draw exemplars for one dual: the smallest digests of (seed, its id, the exemplar's id), other questions only."""

    def rank(other: Dual) -> str:
        return hashlib.sha256(f"{settings.seed}\0{dual.id}\0{other.id}".encode()).hexdigest()

    others = [other for other in pool if other.problem.question != dual.problem.question]
    drawn = sorted(others, key=rank)[: settings.exemplars]
    return [Exemplar(other.problem.question, _text(other.right), _text(other.wrong)) for other in drawn]
