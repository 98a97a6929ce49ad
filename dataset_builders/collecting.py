"""Has every teacher of a build asked for what the store lacks, several side by side.

Each has a part of the build (`parts`). The cap on what the data may cost is one for all of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from dataset_builders.asking import Answers, written_tokens
from dataset_builders.parts import NoAnswers, Part, parts_of
from dataset_builders.recordings import import_recordings
from toolkit.collect import Collection, TeacherUnavailable, collection_of, one_by_one
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import FREE, Price
from toolkit.progress import live_line, together
from toolkit.ray_collection import collect_over_ray
from toolkit.spending import Ledger, dollars, is_counted
from toolkit.store import Standing, Store
from toolkit.tally import CollectReport
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.protocol import Completion, Request, TeacherError

if TYPE_CHECKING:
    from dataset_builders.published import CotsBuilder
    from toolkit.ray_verdicts import Verdicts
    from toolkit.tally import Progress


Asked = tuple[Part, Iterator[Iterable[Request]], Ledger]
"""What a teacher has to do, the rounds of its requests, and where it is counted what they cost."""


def collect_parts(
    builder: type[CotsBuilder],
    settings: Any,
    problems: Sequence[Any],
    store: Store | None,
    show_progress: bool,
    verdicts: Verdicts | None,
    ask: bool = True,
) -> tuple[list[Part], CollectReport, Ledger]:
    """Bring every answer of every teacher into the store, over Ray where there are verdicts.

    Those in this process come first, one after the other: they share its machine. Then all servers are asked side by
    side, each at its own pace; but over Ray one after the other, as each has all workers. Before any of several is
    asked, the servers among them are checked, so that nothing is paid where another one has a bad key. Where nobody may
    be asked, the store has to have all answers.

    Returns:
        The parts of the build, what was asked, and what the run has spent.

    Raises:
        UserError: As `toolkit.collect.collect`, and of `parts_of`; a cap without a price of every teacher; or
            an answer is missing that may not be asked for.
    """
    if settings.recordings:
        (reader,) = (teacher for teacher in settings.teachers if teacher.kind == "recorded")
        import_recordings(settings.recordings, reader.store)
    parts = parts_of(settings)
    ledgers = _ledgers(parts, store)
    answers = store or NoAnswers()
    reading = _Reading(answers)

    def rehearse(part: Part) -> None:
        deque(builder.records(problems, part.asker(answers), part.settings, []), maxlen=0)

    def rounds(part: Part) -> Iterator[Iterable[Request]]:
        drawn = builder.rounds(problems, part.asker(reading), part.settings)
        return drawn if verdicts is None else verdicts.ahead_of(drawn, lambda: rehearse(part))

    report = CollectReport()
    if store is not None and not ask:
        for part in parts:
            _require_answers(rounds(part), store)
    elif store is not None:
        if len(parts) > 1:
            asyncio.run(_check([part for part in parts if part.kind == "openai" and _is_open(part, rounds, store)]))
        asked = [(part, rounds(part), ledger) for part, ledger in zip(parts, ledgers, strict=True)]
        here = [each for each in asked if each[0].price is FREE]
        servers = [each for each in asked if each[0].price is not FREE]
        groups = [[each] for each in here] + ([servers] if verdicts is None else [[each] for each in servers])
        for group in filter(None, groups):
            report += _ask(group, store, reading, show_progress, over_ray=verdicts is not None)
    elif verdicts is not None:
        verdicts.rehearse(lambda: rehearse(parts[0]))
    return parts, report, _telling(ledgers)


def _ledgers(parts: Sequence[Part], store: Store | None) -> list[Ledger]:
    """Return a ledger for every part; they count the same money, some of which earlier runs have spent."""
    collect = parts[0].settings.collect
    first = Ledger(parts[0].price, None if store is None else collect.max_cost_usd, collect.mode == "batch")
    ledgers = [first, *(first.beside(part.price) for part in parts[1:])]
    for part, ledger in zip(parts, ledgers, strict=True):
        if store is not None and part.price is not None and not part.price.is_free:
            for billed in store.billed(part.model):
                ledger.remember(billed)
            for request, uncounted in store.uncounted(part.model):
                ledger.remember(uncounted, request)
            ledger.remember_loss(store.lost(part.model))
    return ledgers


def _telling(ledgers: Sequence[Ledger]) -> Ledger:
    """Return the ledger that tells what all together spend; not known where one teacher's price is not."""
    return next(
        chain(
            (ledger for ledger in ledgers if ledger.price is None),
            (ledger for ledger in ledgers if ledger.price is not None and not ledger.price.is_free),
            ledgers,
        )
    )


def _is_open(part: Part, rounds: Callable[[Part], Iterator[Iterable[Request]]], store: Store) -> bool:
    """Whether a teacher has to be asked for anything."""
    settled = settled_standings(part.settings.collect)
    return any(store.standing(request) not in settled for requests in rounds(part) for request in requests)


def _require_answers(rounds: Iterable[Iterable[Request]], store: Store) -> None:
    """See to it that a build has all its answers.

    Raises:
        UserError: A request of a round, behind which there may be more, was never sent.
    """
    for requests in rounds:
        standings = Counter(map(store.standing, requests))
        if missing := standings[None]:
            raise UserError(
                f"{store.path} lacks the answers to {missing} of {standings.total()} requests; `distill build` with "
                "this recipe asks for them"
            )


def settled_standings(collect: CollectSettings) -> set[Standing | None]:
    """Return the standings of requests that are not asked again."""
    return {"answered"} if collect.retry_failed else {"answered", "refused"}


async def _check(parts: Sequence[Part]) -> None:
    for part in parts:
        teacher = make_teacher(part.settings.teacher)
        try:
            await teacher.check()
        except TeacherError as error:
            raise TeacherUnavailable(
                f"the {teacher.kind} teacher ({teacher.model}) cannot answer: {error.reason}. No teacher was asked yet"
            ) from None
        finally:
            await teacher.close()


class _Reading:
    """The answers that rounds are drawn from; where they are drawn in a thread, that ends at its next look."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.is_over = False

    def get(self, request: Request) -> Completion | None:
        """Return an answer, as of `Answers`."""
        self._go_on()
        return self._answers.get(request)

    def failure(self, request: Request) -> str | None:
        """Return why there is no answer, as of `Answers`."""
        self._go_on()
        return self._answers.failure(request)

    def _go_on(self) -> None:
        if self.is_over:
            raise CancelledError


def _ask(asked: Sequence[Asked], store: Store, reading: _Reading, show_progress: bool, over_ray: bool) -> CollectReport:
    """Ask teachers side by side for what the store lacks of their answers.

    Raises:
        UserError: One of them stopped; the others were asked to their ends.
    """
    with ExitStack() as shown:
        progress: list[Progress | None] = [None] * len(asked)
        if show_progress:
            part = asked[0][0]
            name = part.name or make_teacher(part.settings.teacher).model
            title = f"asking {name if len(asked) == 1 else f'{len(asked)} teachers'}"
            line = live_line(title, _telling([ledger for _, _, ledger in asked]))
            progress[:] = together(shown.enter_context(line), len(asked))
        if over_ray:
            ((part, rounds, ledger),) = asked
            with _losses_noted(part, store, ledger):
                return collect_over_ray(rounds, part.settings.teacher, store, part.collect, progress[0], ledger)
        return asyncio.run(_ask_side_by_side(asked, store, reading, progress))


async def _ask_side_by_side(
    asked: Sequence[Asked], store: Store, reading: _Reading, progress: Sequence[Progress | None]
) -> CollectReport:
    # All of them are there before one begins: what the batches of earlier runs cost is set aside for each.
    collections = [
        collection_of(make_teacher(part.settings.teacher), store, part.collect, told, ledger)
        for (part, _, ledger), told in zip(asked, progress, strict=True)
    ]
    drawing = asyncio.Lock()

    async def ask(asked: Asked, collection: Collection) -> CollectReport:
        part, rounds, ledger = asked
        with _losses_noted(part, store, ledger):
            drawn = one_by_one(rounds) if len(collections) == 1 else _drawn_aside(rounds, drawing, reading)
            return await collection.collect(drawn)

    # What one is asked goes on when another one stops: it is not lost, and what is in flight would be.
    ends = await asyncio.gather(*map(ask, asked, collections), return_exceptions=True)
    faults = [end for end in ends if isinstance(end, BaseException)]
    said = list(dict.fromkeys(str(fault) for fault in faults if isinstance(fault, UserError)))
    if len(said) > 1 and all(isinstance(fault, UserError) for fault in faults):
        raise UserError("\n".join(said))
    for fault in sorted(faults, key=lambda fault: isinstance(fault, UserError)):
        raise fault
    return sum((end for end in ends if isinstance(end, CollectReport)), CollectReport())


async def _drawn_aside(
    rounds: Iterator[Iterable[Request]], drawing: asyncio.Lock, reading: _Reading
) -> AsyncIterator[Iterable[Request]]:
    """Yield rounds that are drawn in a thread: to read and judge the answers so far may take long.

    Meanwhile the answers to another teacher's requests are waited for. One thread draws at a time.
    """
    while True:
        async with drawing:
            try:
                requests = await asyncio.to_thread(next, rounds, None)
            except asyncio.CancelledError:
                reading.is_over = True
                raise
        if requests is None:
            return
        yield requests


@contextmanager
def _losses_noted(part: Part, store: Store, ledger: Ledger) -> Iterator[None]:
    """Note in the store what is lost on the way on tries without an answer."""
    try:
        yield
    finally:
        if ledger.own_lost > 0:
            store.add_loss(part.model, ledger.own_lost)


class Usage:
    """Tokens of the completions that rows are made from, and what they cost.

    Attributes:
        tokens: `completions`, how many of them are `uncounted`, and `prompt_tokens` and `completion_tokens` of the
            others.

    Args:
        price: What their tokens cost; None where it is not known.
    """

    def __init__(self, price: Price | None) -> None:
        self.tokens = Counter(completions=0)
        self._ledger = Ledger(price, None)

    def __call__(self, completion: Completion) -> None:
        """Add a completion."""
        self._ledger.remember(completion)
        self.tokens["completions"] += 1
        written = written_tokens(completion)
        if not is_counted(completion) or written is None:
            self.tokens["uncounted"] += 1
        else:
            self.tokens.update(prompt_tokens=completion.prompt_tokens, completion_tokens=written)

    @property
    def spent(self) -> float:
        """USD for the completions; NaN where no price is known."""
        return self._ledger.spent

    def cost(self) -> str:
        """Say what the completions cost; nothing of those by a teacher that nobody pays."""
        price = self._ledger.price
        if price is None:
            return "not known, as no price is stated for this teacher"
        if price.is_free:
            return ""
        uncounted = self.tokens["uncounted"]
        if not uncounted:
            return f"{dollars(self.spent)} at {price}"
        if uncounted == self.tokens["completions"]:
            return "unknown, as the teacher did not count tokens"
        return f"{dollars(self.spent)} at {price}, without {uncounted} completions whose tokens were not counted"


def cost_of(parts: Sequence[Part], usages: Sequence[Usage]) -> str:
    """Say what the completions of every teacher cost, and all together; nothing where nobody is paid."""
    costs = [usage.cost() for usage in usages]
    if len(parts) == 1 or not any(costs):
        return costs[0]
    told = [f"{part.name}: {cost or 'nothing'}" for part, cost in zip(parts, costs, strict=True)]
    return "; ".join([*told, f"together {dollars(sum(usage.spent for usage in usages))}"])
