"""Between a builder and its teacher: what is asked, and how an answer in the store becomes a chain.

A builder writes its rounds as a generator that yields lists of requests and returns its outcome. To collect,
somebody fulfils each list before asking for the next; to build, the same generator is run dry over a store
that has the answers already. So the two halves cannot disagree about what was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dataset_builders.chains import Chain, parse, well_formed
from dataset_builders.settings import BuilderSettings
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.prompts import PromptBook
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.protocol import Completion, Request, Sampling

NOT_RECORDED = "not recorded"
FAILED = "failed request"

Item = TypeVar("Item")
Read = TypeVar("Read")


class Answers(Protocol):
    """What a builder reads: `toolkit.store.Store`, or anything that answers like it."""

    def get(self, request: Request) -> Completion | None:
        """Return the completion of a request, None where there is none."""
        ...

    def failure(self, request: Request) -> str | None:
        """Return why a request has no completion, None where it was never asked or has one."""
        ...


@dataclass
class Step:
    """One filter: what came in, what came out, and why the rest didn't.

    Attributes:
        name: The prompt's kind, the side that was asked for, or what came ready-made (`pairs`, `chains`, `decomposed`).
        records: Records that reached this step.
        accepted: Records that passed it.
        completions: Completions it took.
        reasons: Records it rejected, by reason.
        outcomes: Accepted records by what became of them, e.g. right and wrong.
    """

    name: str
    records: int = 0
    accepted: int = 0
    completions: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def count(self, reason: str | None, outcome: str | None = None) -> None:
        """Count one record, rejected for a reason or accepted."""
        self.records += 1
        if reason is not None:
            # What an endpoint says about a failure differs from request to request; the row has it in full.
            self.reasons[FAILED if reason.startswith(FAILED) else reason] += 1
            return
        self.accepted += 1
        if outcome is not None:
            self.outcomes[outcome] += 1


@dataclass(frozen=True)
class Ask:
    """One thing that a builder asks for: what can be told of it before any answer is there.

    Attributes:
        kinds: Kinds of its prompts; each record gets one of them.
        tries: Most requests per record.
        shown: Most earlier completions that a prompt shows.
    """

    kinds: tuple[str, ...]
    tries: int = 1
    shown: int = 0


@dataclass
class Outcome:
    """What a builder made of its problems: records by split, and the filters they went through, in order."""

    train: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


Rounds = Generator[list[Request], None, Outcome]


class Asker:
    """Renders requests and reads their answers; remembers every request it made, in order.

    Args:
        settings: Prompts, sampling and limits.
        answers: The store.
        teacher_kind: Kind of teacher, for the provenance.
        model: Model that requests name.
    """

    def __init__(self, settings: BuilderSettings, answers: Answers, teacher_kind: str, model: str) -> None:
        self.book = PromptBook(Path(__file__).parent / "prompts", settings.prompts.model_dump())
        self.requests: list[Request] = []
        self._settings = settings
        self._answers = answers
        self._teacher_kind = teacher_kind
        self._model = model

    def request(
        self, kind: str, problem: Problem, sample_index: int, *, against: Problem | None = None, **slots: Any
    ) -> Request:
        """Return the request for one prompt of a kind.

        Args:
            kind: Kind of the prompt.
            problem: What it is rendered for.
            sample_index: Which sample of this prompt.
            against: What the same prompt is rendered for as the request's `contrast`; none where None.
            slots: Those of `toolkit.prompts.Template.render`.
        """
        text, label = self.book.render(kind, problem, **slots)
        contrast = None if against is None else self.book.render(kind, against, **slots)[0]
        # Few-shot prompts invite the teacher to go on with a question of its own.
        stop = ("\nQ:",) if kind == "contrastive" else ()
        sampling = Sampling(**self._settings.sampling.model_dump(), stop=stop)
        request = Request(self._model, (("user", text),), sampling, sample_index, label, contrast)
        self.requests.append(request)
        return request

    def chain(self, request: Request, problem: Problem, origin: str) -> Chain:
        """Return the chain that answers a request; a request without an answer gives one with a fault."""
        completion = self._answers.get(request)
        if completion is None:
            failure = self._answers.failure(request) or NOT_RECORDED
            unanswered = NOT_RECORDED if NOT_RECORDED in failure else f"{FAILED}: {failure}"
            return Chain(None, None, unanswered, origin, provenance=self._provenance(request, None))
        text = well_formed(completion.text)
        rationale, answer, fault = parse(text, problem, completion.finish_reason, self._settings.max_characters)
        mistake = completion.raw.get("procedural", {}).get("mistake")
        return Chain(rationale, answer, fault, origin, mistake, self._provenance(request, completion))

    def logprobs(self, request: Request) -> list[dict[str, Any]] | None:
        """Return the log-probabilities of a completion's tokens as they are published, None where there are none."""
        completion = self._answers.get(request)
        found = logprobs_of(completion) if completion else None
        return None if found is None else [token.columns(well_formed) for token in found]

    def _provenance(self, request: Request, completion: Completion | None) -> dict[str, Any]:
        # A recording made elsewhere doesn't say how it was sampled, and what we would have asked for is not it.
        known = completion is None or "imported" not in completion.raw
        return {
            "teacher": self._teacher_kind,
            "model": (completion.model if completion else "") or request.model,
            "template": request.template,
            "request": request.digest,
            "temperature": request.sampling.temperature if known else None,
            "top_p": request.sampling.top_p if known else None,
            "max_tokens": request.sampling.max_tokens if known else None,
            "sample_index": request.sample_index,
            "prompt_tokens": completion.prompt_tokens if completion else 0,
            "completion_tokens": completion.completion_tokens if completion else 0,
            "finish_reason": completion.finish_reason if completion else None,
            "completion": well_formed(completion.text) if completion else None,
        }


def replay(rounds: Rounds) -> Outcome:
    """Run a builder's rounds over a store that has their answers; asks nobody.

    Raises:
        UserError: Two records have one id (`datasets` 5 no longer notices).
    """
    while True:
        try:
            next(rounds)
        except StopIteration as finished:
            outcome: Outcome = finished.value
            break
    seen: set[str] = set()
    for record in [*outcome.train, *outcome.rejected]:
        if record["id"] in seen:
            raise UserError(f"two records are called {record['id']!r}; ids must be unique")
        seen.add(record["id"])
    return outcome


def until_accepted(
    step: Step,
    items: Sequence[Item],
    tries: int,
    make_request: Callable[[Item, int], Request],
    judge: Callable[[Item, Request], tuple[Read, str | None]],
) -> Generator[list[Request], None, list[tuple[Read, str | None]]]:
    """Ask once for every item, and again, with another sample index, while the answer is not as asked.

    A request that got no completion is not tried again: the collector has done that already.

    Args:
        step: Counts records, completions and reasons.
        items: What is asked for.
        tries: Most requests per item.
        make_request: Makes the request of an item and an attempt (0, 1, ...).
        judge: Reads the answer to a request: what was read, and why it is rejected or None.

    Returns:
        What was read last and its fault, per item; where only the first tries were answered, the last answer counts.
    """
    verdicts: dict[int, tuple[Read, str | None]] = {}
    pending = list(range(len(items)))
    for attempt in range(tries):
        if not pending:
            break
        requests = [make_request(items[index], attempt) for index in pending]
        yield requests
        again = []
        for index, request in zip(pending, requests, strict=True):
            read, fault = judge(items[index], request)
            unanswered = is_unanswered(fault)
            step.completions += not unanswered
            if not (unanswered and attempt):  # what came of the last try says more
                verdicts[index] = read, fault
            if fault is not None and not unanswered:
                again.append(index)
        pending = again
    for _, fault in verdicts.values():
        step.count(fault)
    return [verdicts[index] for index in range(len(items))]


def is_unanswered(fault: str | None) -> bool:
    """Whether a fault says that there is no completion at all."""
    return fault is not None and fault.startswith((NOT_RECORDED, FAILED))


def samples_of(problems: Sequence[Problem], samples: int) -> list[tuple[str, Problem, int]]:
    """Return (record id, problem, sample index) for every chain that is asked for."""
    return [
        (problem.id if samples == 1 else f"{problem.id}#{index}", problem, index)
        for problem in problems
        for index in range(samples)
    ]
