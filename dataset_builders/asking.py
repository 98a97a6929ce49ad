"""Between a builder and its teacher: what is asked, and how an answer in the store becomes a chain.

A builder says in `rounds` what to ask, and in `records` what comes of the answers. Both go through the problems and
read the store by the same functions, so they cannot disagree about what was asked. What has to be kept lies on disk, so
that memory is the same for any number of problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from dataset_builders.chains import Chain, parse, unreadable, well_formed
from dataset_builders.inputs import PROMPTS
from dataset_builders.settings import BuilderSettings
from toolkit.errors import UserError
from toolkit.on_disk import DiskCounter, DiskList
from toolkit.problem import Problem
from toolkit.program_answers import program_in
from toolkit.prompts import PromptBook
from toolkit.teachers.kinds import asked_of
from toolkit.teachers.logprobs import logprobs_of
from toolkit.teachers.protocol import Completion, Request, Sampling
from toolkit.thinking import split_thinking

NOT_RECORDED = "not recorded"
FAILED = "failed request"
UNPAIRED = "unpaired"

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
        teacher: Whose records they are, where a build has several teachers; else empty.
    """

    name: str
    records: int = 0
    accepted: int = 0
    completions: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    teacher: str = ""

    @property
    def title(self) -> str:
        """What it is called where the filters of several teachers are listed together."""
        return f"{self.name} of {self.teacher}" if self.teacher else self.name

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


Record = dict[str, Any]


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
    """What a builder made of its problems: records by split, and the filters they went through, in order.

    Those of `unpaired` are right and have no partner; most builders have none.
    """

    train: Sequence[Record] = ()
    rejected: Sequence[Record] = ()
    steps: list[Step] = field(default_factory=list)
    unpaired: Sequence[Record] = ()


@dataclass(frozen=True)
class Requests(Generic[Item]):
    """The requests of one round: as many as there are items, each made when its turn comes, and not kept."""

    items: Sequence[Item]
    make: Callable[[Item], Request]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Request]:
        return map(self.make, self.items)


Rounds = Iterator[Requests[Any]]


class Asker:
    """Renders requests and reads their answers.

    Attributes:
        book: The prompt templates.
        heard: Told of every completion that is read, once of each.

    Args:
        settings: Prompts, sampling and limits.
        answers: The store.
        teacher_kind: Kind of teacher, for the provenance.
        model: Model that requests name.
    """

    def __init__(self, settings: BuilderSettings, answers: Answers, teacher_kind: str, model: str) -> None:
        self.book = PromptBook(PROMPTS, settings.prompts.model_dump())
        self.heard: Callable[[Completion], None] | None = None
        self._read = DiskCounter()
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
        return asked_of(self._settings.teacher, request)

    def chain(self, request: Request, problem: Problem, origin: str) -> Chain:
        """Return the chain that answers a request; a request without an answer gives one with a fault."""
        completion = self._heard(request)
        if completion is None:
            return self._unanswered(request, origin)
        text = well_formed(completion.text)
        rationale, answer, fault = parse(text, problem, completion.finish_reason, self._settings.max_characters)
        return Chain(rationale, answer, fault, origin, _mistake(completion), self._provenance(request, completion))

    def program(self, request: Request, origin: str) -> Chain:
        """Return the program that answers a request, which has no answer before it is run; else as `chain`."""
        completion = self._heard(request)
        if completion is None:
            return self._unanswered(request, origin)
        text = well_formed(completion.text)
        fault = unreadable(text, completion.finish_reason, self._settings.max_characters)
        program = None if fault else program_in(text)
        return Chain(program, None, fault, origin, _mistake(completion), self._provenance(request, completion))

    def text(self, request: Request, origin: str) -> Chain:
        """Return the text that answers a request, all of it, as the rationale of a chain without an answer."""
        completion = self._heard(request)
        if completion is None:
            return self._unanswered(request, origin)
        text = well_formed(completion.text)
        fault = unreadable(text, completion.finish_reason, self._settings.max_characters)
        return Chain(None if fault else text, None, fault, origin, provenance=self._provenance(request, completion))

    def _heard(self, request: Request) -> Completion | None:
        completion = self._answers.get(request)
        if completion is None:
            return None
        if self.heard is not None and self._read.count(request.digest) == 1:
            self.heard(completion)
        # Older versions knew fewer forms of thinking, and stored it with the answer. What is split stays as it is.
        answer, thought = split_thinking(completion.text)
        if answer == completion.text:
            return completion
        return replace(completion, text=answer, reasoning=completion.reasoning or thought)

    def _unanswered(self, request: Request, origin: str) -> Chain:
        failure = self._answers.failure(request) or NOT_RECORDED
        unanswered = NOT_RECORDED if NOT_RECORDED in failure else f"{FAILED}: {failure}"
        return Chain(None, None, unanswered, origin, provenance=self._provenance(request, None))

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
            "prompt_tokens": (completion.prompt_tokens or None) if completion else None,
            "completion_tokens": written_tokens(completion) if completion else None,
            "finish_reason": completion.finish_reason if completion else None,
            "completion": well_formed(completion.text) if completion else None,
        }


def written_tokens(completion: Completion) -> int | None:
    """Return the tokens of a completion as billed; None where an endpoint did not tell, as of a text of none."""
    has_text = bool(completion.text or completion.reasoning)
    if completion.completion_tokens or (completion.prompt_tokens and not has_text):
        return completion.completion_tokens
    return None


def marked(records: Iterable[Record], steps: Sequence[Step], teacher: str) -> Iterator[Record]:
    """Yield the records of one of several teachers with its name in their ids, and mark its steps after the last one.

    Where there is one teacher, its name is empty and nothing is changed.
    """
    for record in records:
        yield {**record, "id": f"{record['id']}@{teacher}"} if teacher else record
    for step in steps:
        step.teacher = teacher


def _mistake(completion: Completion) -> str | None:
    """Return the label of a completion's mistake, where the teacher gives one."""
    label: str | None = completion.raw.get("procedural", {}).get("mistake")
    return label


def sorted_out(records: Iterable[Record], steps: list[Step]) -> Outcome:
    """Sort records into `train` and, where they have a reason, `unpaired` or `rejected`; all of them lie on disk.

    Raises:
        UserError: Two records have one id (`datasets` 5 no longer notices).
    """
    train, rejected, unpaired = DiskList[Record](), DiskList[Record](), DiskList[Record]()
    seen = DiskCounter()
    for record in records:
        if seen.count(record["id"]) > 1:
            raise UserError(f"two records are called {record['id']!r}; ids must be unique")
        reason = record["reason"]
        (train if reason is None else unpaired if reason.startswith(UNPAIRED) else rejected).append(record)
    return Outcome(train, rejected, steps, unpaired)


@dataclass(frozen=True)
class Retried(Generic[Item, Read]):
    """A prompt that is put again, with another sample index, while the answer is not as asked.

    A request that got no completion is not tried again: the collector has done that already.

    Attributes:
        tries: Most requests per item.
        request: Makes the request of an item and an attempt (0, 1, ...).
        judge: Reads the answer to a request: what was read, and why it is rejected or None.
    """

    tries: int
    request: Callable[[Item, int], Request]
    judge: Callable[[Item, Request], tuple[Read, str | None]]

    def rounds(self, items: Sequence[Item]) -> Rounds:
        """Yield a round for every try, as long as there is anything to ask."""
        for attempt in range(self.tries):
            if attempt:
                items = DiskList(item for item in items if self._is_rejected(item, attempt - 1))
            if not items:
                break
            yield Requests(items, partial(self._asked, attempt))

    def verdict(self, item: Item, step: Step) -> tuple[Read, str | None]:
        """Return what was read last and its fault; where only the first tries were answered, the last answer counts.

        Args:
            item: What was asked for.
            step: Counts the record, its completions and its fault.
        """
        for attempt in range(self.tries):
            read, fault = self.judge(item, self.request(item, attempt))
            unanswered = is_unanswered(fault)
            step.completions += not unanswered
            if not (unanswered and attempt):  # what came of the last try says more
                found = read, fault
            if fault is None or unanswered:
                break
        step.count(found[1])
        return found

    def _asked(self, attempt: int, item: Item) -> Request:
        return self.request(item, attempt)

    def _is_rejected(self, item: Item, attempt: int) -> bool:
        _, fault = self.judge(item, self.request(item, attempt))
        return fault is not None and not is_unanswered(fault)


def is_unanswered(fault: str | None) -> bool:
    """Whether a fault says that there is no completion at all."""
    return fault is not None and fault.startswith((NOT_RECORDED, FAILED))


def record_id(problem: Problem, sample: int, samples: int) -> str:
    """Return the id of the record that is made of a problem's sample."""
    return problem.id if samples == 1 else f"{problem.id}#{sample}"
