"""Asks a teacher for completions and puts them in a store: never twice, never more than a window at once.

A sliding window without barriers: as soon as one request is answered and on disk the next one is asked. It reads no
completion; builders do that afterwards, from the store.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Literal

from pydantic import Field

from toolkit.errors import UserError
from toolkit.schema import Strict
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request, Teacher, TeacherError

Progress = Callable[[int, int | None, int], None]
"""Called with (requests done, requests in all or None where unknown, requests failed) whenever one of them changes."""

Sleep = Callable[[float], Awaitable[None]]


class CollectSettings(Strict):
    """How a teacher is asked.

    Attributes:
        concurrency: Requests in flight at once. More is faster until the server's own limit; then it only waits.
        max_attempts: Tries of one request before it counts as failed.
        backoff: Seconds; the wait before try n+1 is drawn from [0, backoff * 2**(n-1)] (full jitter).
        max_wait: Longest wait in seconds. A server that asks for a longer one fails the request for this run.
        max_failure_rate: Share of requests that may stay without a completion before the run is an error.
        retry_failed: Ask again what failed for good in an earlier run. What ran out of tries is always asked again.
    """

    mode: Literal["online", "batch"] = "online"
    concurrency: int = Field(default=32, ge=1, le=1000)
    max_cost_usd: float | None = Field(default=None, ge=0)
    max_attempts: int = Field(default=6, ge=1)
    backoff: float = Field(default=0.5, ge=0)
    max_wait: float = Field(default=120.0, ge=0)
    max_failure_rate: float = Field(default=0.1, ge=0, le=1)
    retry_failed: bool = False


@dataclass
class Tally:
    """Where a collection stands; one object, changed as it goes on.

    Attributes:
        total: Requests in all; None where unknown.
        done: Requests that need nothing more: cached, answered or failed.
        cached: Requests that needed no asking: the store had the answer, or the same request came before in this run.
        asked: Requests that were put to the teacher, however many tries each took.
        answered: Requests of this run whose completion is on disk.
        failed: Requests without a completion, those included that failed for good earlier and were not asked again.
        in_flight: Requests that the teacher has at this moment.
        window: Requests that may be in flight at this moment.
        prompt_tokens: Prompt tokens billed for this run's answers.
        completion_tokens: Completion tokens billed for this run's answers.
    """

    total: int | None = 0
    done: int = 0
    cached: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    window: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class CollectReport:
    """What one run did.

    Attributes:
        asked: Requests that were put to the teacher, however many tries each took.
        answered: Requests of this run that got a completion.
        cached: Requests that needed no asking: the store had the answer, or the same request came before in this run.
        failed: Requests without a completion, those included that failed for good earlier and were not asked again.
        prompt_tokens: Prompt tokens billed for this run's answers.
        completion_tokens: Completion tokens billed for this run's answers.
    """

    asked: int = 0
    answered: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: CollectReport) -> CollectReport:
        return CollectReport(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class TeacherUnavailable(UserError):
    """No request of this run can be answered: bad key, unknown model, unreachable host."""


async def collect(
    requests: Iterable[Request],
    teacher: Teacher,
    store: Store,
    settings: CollectSettings,
    progress: Progress | None = None,
    *,
    sleep: Sleep = asyncio.sleep,
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
        settings: Window, retries and the failures allowed.
        progress: Told about every change; silent where None.
        sleep: Waits between tries; tests pass their own.
        rng: Draws the jitter of the waits; it never influences what is asked.

    Raises:
        TeacherUnavailable: The teacher cannot answer any request. Answers that were on their way are kept.
        UserError: More requests failed than `settings.max_failure_rate` allows.
    """
    collection = _Collection(teacher, store, settings, progress, sleep, rng or random.Random())
    try:
        return await collection.run(requests)
    finally:
        await teacher.close()


async def collect_rounds(
    rounds: Iterable[Iterable[Request]],
    teacher: Teacher,
    store: Store,
    settings: CollectSettings,
    progress: Progress | None = None,
) -> CollectReport:
    """Collect round after round and return the sum; a round is drawn once all before it are in the store.

    So `rounds` may be a generator that reads the store to decide what to ask next.

    Raises:
        TeacherUnavailable: As `collect`.
        UserError: As `collect`, for each round by itself: a bad round is not followed by another one.
    """
    report = CollectReport()
    for requests in rounds:
        report += await collect(requests, teacher, store, settings, progress)
    return report


@contextmanager
def progress_line(description: str) -> Iterator[Progress]:
    """Show progress as one line with rate and time left; shows nothing where there is no terminal."""
    from tqdm import tqdm

    with tqdm(desc=description, unit=" requests", disable=None) as bar:

        def show(done: int, total: int | None, failed: int) -> None:
            if total != bar.total or done < bar.n:  # the next round
                bar.reset(total)
            if failed:
                bar.set_postfix(failed=failed, refresh=False)
            bar.update(done - bar.n)

        yield show


class _Collection:
    """State of one `collect`. Everything runs in one thread, so plain attributes need no locks."""

    def __init__(
        self,
        teacher: Teacher,
        store: Store,
        settings: CollectSettings,
        progress: Progress | None,
        sleep: Sleep,
        rng: random.Random,
    ) -> None:
        self.teacher, self.store, self.settings = teacher, store, settings
        self.progress, self.sleep, self.rng = progress, sleep, rng
        self.counts = Counter[str]()
        self.total: int | None = None
        self.in_flight: set[str] = set()
        self.failed: set[str] = set()
        self.reasons: Counter[str] = Counter()
        self.fatal: TeacherError | None = None
        self.pauses: set[asyncio.Future[None]] = set()
        self.unsaved: list[tuple[Request, Completion | TeacherError]] = []
        self.saved: asyncio.Future[None] | None = None

    async def run(self, requests: Iterable[Request]) -> CollectReport:
        self.total = len(requests) if isinstance(requests, Sized) else None
        open_requests = self._to_ask(requests)
        first = next(open_requests, None)
        if first is not None:
            try:
                await self.teacher.check()
            except TeacherError as error:
                raise self._unavailable(error) from None
            await self._ask_all(itertools.chain([first], open_requests))
        if self.fatal is not None:
            raise self._unavailable(self.fatal)
        report = CollectReport(**self.counts)
        self._refuse_too_many_failures(report)
        return report

    def _to_ask(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Yield what has to be asked, deciding about each request only when the window has room for it."""
        for request in requests:
            standing = self.store.standing(request)
            if standing == "answered" or request.digest in self.in_flight or request.digest in self.failed:
                self._count(cached=1)
            elif standing == "refused" and not self.settings.retry_failed:
                self._count_failure(request, self.store.failure(request) or "")
            else:
                self.in_flight.add(request.digest)
                self._count(asked=1)
                yield request

    async def _ask_all(self, requests: Iterator[Request]) -> None:
        workers = [asyncio.create_task(self._work(requests)) for _ in range(self.settings.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._commit()  # what was answered in the very moment of an interruption

    async def _work(self, requests: Iterator[Request]) -> None:
        """Be one slot of the window: the workers share one iterator, and each takes the next request when free."""
        outcome: Completion | TeacherError
        for request in requests:
            if self.fatal is not None:
                return
            try:
                outcome = await self._answer(request)
            except TeacherError as error:
                if error.kind == "fatal":
                    self._stop(error)
                    return
                outcome = error
            await self._save(request, outcome)

    async def _answer(self, request: Request) -> Completion:
        # A loop rather than tenacity: the wait depends on the error, ends early when the run stops, and an answer at
        # the first try, the usual case, costs nothing.
        for attempt in itertools.count(1):
            try:
                return await self.teacher.complete(request)
            except TeacherError as error:
                if error.kind != "retry":
                    raise
                wait = self._wait_after(attempt, error)
            if self.fatal is None:
                await self._pause(wait)
            if self.fatal is not None:
                raise self.fatal
        raise AssertionError("itertools.count never ends")

    def _wait_after(self, attempt: int, error: TeacherError) -> float:
        """Return how long to wait after this failed try, or raise if there should be no other one."""
        if attempt >= self.settings.max_attempts:
            raise TeacherError("retry", f"{error.reason} ({attempt} tries)")
        jitter = self.rng.uniform(0, min(self.settings.backoff * 2 ** (attempt - 1), self.settings.max_wait))
        if error.retry_after is None:
            return jitter
        if error.retry_after > self.settings.max_wait:
            reason = f"asked to wait {error.retry_after:.0f} s, longer than max_wait: {error.reason}"
            raise TeacherError("retry", reason)
        return error.retry_after + jitter  # never early, and not all requests in the same instant

    async def _pause(self, seconds: float) -> None:
        pause = asyncio.ensure_future(self.sleep(seconds))
        self.pauses.add(pause)
        try:
            await asyncio.wait([pause])  # unlike awaiting it, this returns when `_stop` cancels it
        finally:
            self.pauses.discard(pause)
            pause.cancel()

    def _stop(self, error: TeacherError) -> None:
        """Ask nothing more. Requests in flight are paid for, so their answers are waited for; pauses are cut."""
        self.fatal = self.fatal or error
        for pause in self.pauses:
            pause.cancel()

    def _save(self, request: Request, outcome: Completion | TeacherError) -> Awaitable[None]:
        """Return when the outcome is on disk. Outcomes of the same turn of the event loop share one transaction."""
        if self.saved is None:
            loop = asyncio.get_running_loop()
            self.saved = loop.create_future()
            loop.call_soon(self._commit)
        self.unsaved.append((request, outcome))
        return self.saved

    def _commit(self) -> None:
        outcomes, saved = self.unsaved, self.saved
        self.unsaved, self.saved = [], None
        if saved is None:
            return
        try:
            self._write(outcomes)
        except Exception as error:
            if saved.done():  # the waiting workers are cancelled already
                raise
            saved.set_exception(error)
        else:
            if not saved.done():
                saved.set_result(None)

    def _write(self, outcomes: list[tuple[Request, Completion | TeacherError]]) -> None:
        answers = [(request, outcome) for request, outcome in outcomes if isinstance(outcome, Completion)]
        if answers:
            self.store.put_many(answers)
        for request, completion in answers:
            self.in_flight.discard(request.digest)
            self._count(
                answered=1,
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=completion.completion_tokens,
            )
        for request, outcome in outcomes:
            if isinstance(outcome, TeacherError):
                self.store.put_failure(request, outcome.reason, permanent=outcome.kind == "permanent")
                self.in_flight.discard(request.digest)
                self._count_failure(request, outcome.reason)

    def _count_failure(self, request: Request, reason: str) -> None:
        self.failed.add(request.digest)
        self.reasons[reason] += 1
        self._count(failed=1)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            self.counts[name] += number
        if self.progress is not None:
            done = self.counts["cached"] + self.counts["answered"] + self.counts["failed"]
            self.progress(done, self.total, self.counts["failed"])

    def _unavailable(self, error: TeacherError) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"the {self.teacher.kind} teacher ({self.teacher.model}) cannot answer: {error.reason}. "
            f"{self.counts['answered']} completions of this run are kept in {self.store.path}; "
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
