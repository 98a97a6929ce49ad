"""Asks a teacher for completions and puts them in a store: never twice, never more than a window at once.

A sliding window without barriers: as soon as one request is answered and on disk the next one is asked. It reads no
completion; builders do that afterwards, from the store.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sized
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from toolkit.collect_settings import CollectSettings
from toolkit.cut_answers import CutAnswers
from toolkit.errors import UserError
from toolkit.pacing import Clock, Pace, Sent
from toolkit.spending import Ledger
from toolkit.store import Store
from toolkit.store_writing import Outcome, Writer
from toolkit.tally import CollectReport, Progress, Tally
from toolkit.teachers.protocol import Completion, Request, Teacher, TeacherError

Sleep = Callable[[float], Awaitable[None]]

_LET_OTHERS_RUN = 256  # requests found in the store in a row, after which answers that came meanwhile are looked at


class TeacherUnavailable(UserError):
    """No request of this run can be answered: bad key, unknown model, unreachable host."""


class CostCapReached(UserError):
    """What is left below `max_cost_usd` may not be enough for the next request."""


async def collect(
    requests: Iterable[Request],
    teacher: Teacher,
    store: Store,
    settings: CollectSettings,
    progress: Progress | None = None,
    *,
    ledger: Ledger | None = None,
    sleep: Sleep = asyncio.sleep,
    clock: Clock = time.monotonic,
    rng: random.Random | None = None,
) -> CollectReport:
    """Bring a completion of every request into the store, asking only for what it lacks.

    `requests` is read as the window moves, so a generator of any length is fine. The teacher's `check` runs once,
    and only if something has to be asked; its connections are released at the end. An interruption at any moment
    (exception, cancellation, `kill -9`) loses at most the requests in flight.

    Args:
        requests: What to ask; identical requests are asked once.
        teacher: Who is asked.
        store: Where completions and failures go.
        settings: Window, rate limits, retries and the failures allowed.
        progress: Told about every change; silent where None.
        ledger: Counts what is spent, and knows what the store's answers have cost; nobody does where None, and then
            there can be no `settings.max_cost_usd`.
        sleep: Waits between tries; tests pass their own.
        clock: Tells the seconds by which rates and deadlines are measured; tests pass their own.
        rng: Draws the jitter of the waits; it never influences what is asked.

    Raises:
        TeacherUnavailable: The teacher cannot answer any request. Answers that were on their way are kept.
        CostCapReached: The cap leaves no room for the next request. It is never exceeded.
        UserError: More requests failed than `settings.max_failure_rate` allows, or the store cannot be written.
    """
    collection = collection_of(teacher, store, settings, progress, ledger, sleep, clock, rng)
    return await collection.collect(one_by_one([requests]))


def collection_of(
    teacher: Teacher,
    store: Store,
    settings: CollectSettings,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
    sleep: Sleep = asyncio.sleep,
    clock: Clock = time.monotonic,
    rng: random.Random | None = None,
) -> Collection:
    """Return what collects round after round; what batches of earlier runs will cost is set aside from now on.

    Arguments and errors are those of `collect`.
    """
    kind: type[Collection] = Collection
    if settings.mode == "batch":
        from toolkit.batches import BatchCollection  # imports this module

        kind = BatchCollection
    return kind(teacher, store, settings, progress, ledger, sleep, clock, rng or random.Random())


async def one_by_one(rounds: Iterable[Iterable[Request]]) -> AsyncIterator[Iterable[Request]]:
    """Yield rounds, each drawn when it is asked for."""
    for requests in rounds:
        yield requests


class _Stopped(Exception):
    """The run has ended before this request was answered; why stands in `Collection.ending`."""


@dataclass
class _Endpoint:
    """Who answers the requests of one model: its pace, whose turn it is to be sent, and the rests that it asked for."""

    pace: Pace
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    rests: set[asyncio.Future[None]] = field(default_factory=set)


class Collection:
    """State of one run. All but the writing runs in one thread, so plain attributes need no locks."""

    goes_on = False  # whether what is in flight when this ends is answered all the same

    def __init__(
        self,
        teacher: Teacher,
        store: Store,
        settings: CollectSettings,
        progress: Progress | None,
        ledger: Ledger | None,
        sleep: Sleep,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        if settings.max_cost_usd is not None and ledger is None:
            raise UserError(f"max_cost_usd: found {settings.max_cost_usd:g}, and nobody counts what is spent")
        self.teacher, self.store, self.settings = teacher, store, settings
        self.progress, self.ledger = progress, ledger
        self.sleep, self.clock, self.rng = sleep, clock, rng
        self.tally = Tally()
        self.cut = CutAnswers(store)
        self.endpoints: dict[str, _Endpoint] = {}
        self.open_digests: set[str] = set()
        self.failed: set[str] = set()
        self.reasons: Counter[str] = Counter()
        self.ending: Callable[[], Exception] | None = None
        self.pauses: set[asyncio.Future[None]] = set()
        self.changed = asyncio.Event()
        self.writer = Writer(store, self._written, self._stop)
        if ledger is not None:
            ledger.watch(self.changed.set)
        self.opened = ExitStack()
        self.is_open = False

    async def collect(self, rounds: AsyncIterable[Iterable[Request]]) -> CollectReport:
        """Do round after round, release all that is held, and return the sum; once only.

        A round is drawn once all before it are in the store, so `rounds` may read the store to decide what to ask next.
        Failures are counted for each round by itself: a bad round is not followed by another one.
        """
        report = CollectReport()
        try:
            async for requests in rounds:
                report += await self.run(requests)
        finally:
            if self.ledger is not None:
                self.ledger.abandon(goes_on=self.goes_on)
            try:
                await self.teacher.close()
            finally:
                self.writer.close()
                self.opened.close()
        return report

    async def run(self, requests: Iterable[Request]) -> CollectReport:
        """Do one round."""
        before = replace(self.tally)
        size = len(requests) if isinstance(requests, Sized) else None
        self.tally.total = None if size is None or self.tally.total is None else self.tally.total + size
        self.failed.clear()
        self.reasons.clear()
        to_ask = self._to_ask(requests)
        first = next((request for request in to_ask if request is not None), None)
        if first is not None:
            await self._open()
            await self._ask_all(itertools.chain([first], to_ask))
        if self.ending is not None:
            raise self.ending()
        report = self.tally.since(before)
        self._refuse_too_many_failures(report)
        return report

    async def _open(self) -> None:
        """Get ready to ask: be the only one who collects into this store, and have the teacher checked."""
        if self.is_open:
            return
        self.opened.enter_context(self.store.collecting())
        try:
            await self.teacher.check()
        except TeacherError as error:
            raise self._unavailable(error) from None
        self.is_open = True

    def _to_ask(self, requests: Iterable[Request]) -> Iterator[Request | None]:
        """Yield what has to be asked, deciding about each request only when the window has room for it.

        A None between them asks for nothing but a moment for others.
        """
        skipped = 0
        for request in requests:
            if request.digest in self.open_digests or request.digest in self.failed:
                self.tally.cached += 1
                self._did_one()
                continue
            standing = self.store.standing(request)
            if standing == "answered":
                self.tally.cached += 1
                self._did_one()
            elif standing == "refused" and not self.settings.retry_failed:
                self._count_failure(request, self.store.failure(request) or "")
            else:
                self.open_digests.add(request.digest)
                self.tally.asked += 1
                yield request
                continue
            skipped += 1
            if skipped % _LET_OTHERS_RUN == 0:
                yield None

    async def _ask_all(self, requests: Iterator[Request | None]) -> None:
        workers = [asyncio.create_task(self._work(requests)) for _ in range(self.settings.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in [*workers, *self.pauses]:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await self.writer.drain()  # what was answered in the very moment of an interruption

    async def _work(self, requests: Iterator[Request | None]) -> None:
        """Be one slot of the window: the workers share one iterator, and each takes the next request when free."""
        for request in requests:
            if request is None:
                await asyncio.sleep(0)
                continue
            try:
                outcome = await self._answer(request)
            except _Stopped:
                return
            await self.writer.save(request, outcome)
            if self.ending is not None:
                return

    async def _answer(self, request: Request) -> Outcome:
        """Ask until there is an answer, or a reason not to ask again."""
        # A loop rather than tenacity: the wait depends on the error, ends early when the run stops, and an answer at
        # the first try, the usual case, costs nothing.
        endpoint = self._endpoint_of(request)
        ends: float | None = None
        for attempt in itertools.count(1):
            sent = await self._send(request, endpoint)
            if ends is None and self.settings.deadline is not None:
                ends = self.clock() + self.settings.deadline
            outcome = await self._try(request, ends)
            self._settle(request, endpoint, sent, outcome)
            if isinstance(outcome, Completion) or outcome.kind == "permanent":
                return outcome
            if outcome.kind == "fatal":
                self._stop(partial(self._unavailable, outcome))
                raise _Stopped
            wait = self._wait_after(attempt, outcome, ends)
            if isinstance(wait, TeacherError):
                if outcome.overloaded and (outcome.retry_after or 0) > self.settings.max_wait:  # so it is for all
                    self._stop(partial(self._unavailable, wait))
                return wait
            if outcome.overloaded and outcome.retry_after:
                rest = self._begin_pause(outcome.retry_after)
                endpoint.rests.add(rest)
                rest.add_done_callback(endpoint.rests.discard)
            await asyncio.wait([self._begin_pause(wait)])
        raise AssertionError("itertools.count never ends")

    async def _send(self, request: Request, endpoint: _Endpoint) -> Sent:
        """Wait until this request may be sent: the endpoint rests no more, and window, rates and cap have room.

        First come, first served, so that none starves, however large it is.
        """
        async with endpoint.turn:
            while self.ending is None:
                if endpoint.rests:
                    await asyncio.wait(endpoint.rests)
                elif not endpoint.pace.window.has_room:
                    await self._change()
                elif (wait := endpoint.pace.wait(request)) > 0:
                    await asyncio.wait([self._begin_pause(wait)])
                elif self.ledger is None or self.ledger.reserve(request):
                    self.tally.in_flight += 1
                    return endpoint.pace.send(request)
                elif self.ledger.reserved:  # by requests in flight, of whichever teacher
                    await self._change()
                else:
                    self._stop(self._cap_reached)
        raise _Stopped

    async def _try(self, request: Request, ends: float | None) -> Outcome:
        try:
            if ends is None:
                return await self.teacher.complete(request)
            async with asyncio.timeout(max(0.0, ends - self.clock())):
                return await self.teacher.complete(request)
        except TeacherError as error:
            return error
        except TimeoutError:
            return TeacherError("retry", "no answer within the deadline", billed=True)

    def _settle(self, request: Request, endpoint: _Endpoint, sent: Sent, outcome: Outcome) -> None:
        endpoint.pace.settle(sent, outcome)
        if self.ledger is not None:
            self.ledger.settle(request, outcome)
        self.tally.in_flight -= 1
        self.tally.window = sum(each.pace.window.size for each in self.endpoints.values())
        self.changed.set()
        self._tell()

    def _wait_after(self, attempt: int, error: TeacherError, ends: float | None) -> float | TeacherError:
        """Return how long to wait after this failed try, or the failure if there should be no other one."""
        if attempt >= self.settings.max_attempts:
            return TeacherError("retry", f"{error.reason} ({attempt} tries)")
        wait = self.rng.uniform(0, min(self.settings.backoff * 2 ** (attempt - 1), self.settings.max_wait))
        if error.retry_after is not None:
            if error.retry_after > self.settings.max_wait:
                reason = f"asked to wait {error.retry_after:.0f} s, longer than max_wait: {error.reason}"
                return TeacherError("retry", reason)
            wait += error.retry_after  # never early, and not all requests in the same instant
        if ends is not None and self.clock() + wait >= ends:
            return TeacherError("retry", f"{error.reason} ({attempt} tries within {self.settings.deadline:g} s)")
        return wait

    def _begin_pause(self, seconds: float) -> asyncio.Future[None]:
        """Begin a wait that ends early when the run stops; it is waited for by `asyncio.wait`, which minds no end."""
        pause = asyncio.ensure_future(self.sleep(seconds))
        if self.ending is not None:
            pause.cancel()
        self.pauses.add(pause)
        pause.add_done_callback(self.pauses.discard)
        return pause

    async def _change(self) -> None:
        """Return when a request has come back, of this run or of one that spends the same money, or the run stops."""
        self.changed.clear()
        await self.changed.wait()

    def _stop(self, ending: Callable[[], Exception]) -> None:
        """Ask nothing more. Requests in flight are paid for, so their answers are waited for; pauses are cut."""
        self.ending = self.ending or ending
        for pause in self.pauses:
            pause.cancel()
        self.changed.set()

    def _endpoint_of(self, request: Request) -> _Endpoint:
        endpoint = self.endpoints.get(request.model)
        if endpoint is None:
            limits = self.settings
            rates = limits.requests_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute
            endpoint = self.endpoints[request.model] = _Endpoint(Pace(limits.concurrency, *rates, self.clock))
            self.tally.window += limits.concurrency
        return endpoint

    def _written(self, request: Request, outcome: Outcome) -> None:
        """Count an outcome that is on disk."""
        self.open_digests.discard(request.digest)
        if isinstance(outcome, TeacherError):
            self._count_failure(request, outcome.reason)
            return
        self.tally.answered += 1
        self.tally.prompt_tokens += outcome.prompt_tokens
        self.tally.completion_tokens += outcome.completion_tokens
        self._did_one()
        if self.teacher.kind != "recorded" and (reason := self.cut.note(request, outcome)):  # a recording costs nothing
            self._stop(partial(self._unavailable, TeacherError("fatal", reason)))

    def _count_failure(self, request: Request, reason: str) -> None:
        self.failed.add(request.digest)
        self.reasons[reason] += 1
        self.tally.failed += 1
        self._did_one()

    def _did_one(self) -> None:
        self.tally.done += 1
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.tally)

    def _unavailable(self, error: TeacherError) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"the {self.teacher.kind} teacher ({self.teacher.model}) cannot answer: {error.reason}. {self._kept()}"
        )

    def _cap_reached(self) -> CostCapReached:
        cap, spent = self.settings.max_cost_usd, self.ledger.spent if self.ledger else 0.0
        total = self.tally.total
        left = "" if total is None else f"{total - self.tally.done} of {total} requests are still open. "
        return CostCapReached(
            f"max_cost_usd: {spent:.4f} of {cap or 0:g} US dollars are spent, and the next request to "
            f"{self.teacher.model} might cost more than what is left. {left}Raise it to go on. {self._kept()}"
        )

    def _kept(self) -> str:
        return (
            f"{self.tally.answered} completions of this run are kept in {self.store.path}; "
            "the same command asks only for the rest."
        )

    def _refuse_too_many_failures(self, report: CollectReport) -> None:
        allowed = self.settings.max_failure_rate
        total = report.cached + report.answered + report.failed
        if report.failed <= allowed * total:
            return
        reasons = "; ".join(f"{count}x {reason}" for reason, count in self.reasons.most_common(3))
        raise UserError(
            f"{report.failed} of {total} requests to the {self.teacher.kind} teacher ({self.teacher.model}) got no "
            f"completion, more than max_failure_rate {allowed:g} allows. Most common: {reasons}. The answers are kept "
            f"in {self.store.path}. The same command asks again what ran out of tries; what failed for good is "
            "asked again with retry_failed: true."
        )
