from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.waits import Waits
from toolkit.collect import CostCapReached, TeacherUnavailable, collect, collection_of, one_by_one
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.spending import Ledger, bound
from toolkit.store import Store
from toolkit.tally import CollectReport, Progress, Tally
from toolkit.teachers.protocol import Completion, Request, TeacherError
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Ask, Reply, completion

RETRY = TeacherError("retry", "HTTP 503: busy")
PERMANENT = TeacherError("permanent", "HTTP 400: too long")
FATAL = TeacherError("fatal", "key refused (HTTP 401)")


def ask(question: str) -> Request:
    return Request("gpt", (("user", question),))


def asks(number: int) -> list[Request]:
    return [ask(f"question {n}") for n in range(number)]


class ScriptedTeacher:
    """Answers by a function of (question, try); an error it returns is raised."""

    kind = "scripted"
    model = "gpt"

    def __init__(self, script: Callable[[str, int], Completion | TeacherError] | None = None) -> None:
        self.script = script or (lambda question, _: Completion(f"answer to {question}", prompt_tokens=2))
        self.tries: Counter[str] = Counter()
        self.checks = 0
        self.closed = 0
        self.in_flight = 0
        self.most_in_flight = 0

    async def complete(self, request: Request) -> Completion:
        question = request.messages[-1][1]
        self.tries[question] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        outcome = self.script(question, self.tries[question])
        if isinstance(outcome, TeacherError):
            raise outcome
        return outcome

    async def check(self) -> None:
        self.checks += 1

    async def close(self) -> None:
        self.closed += 1


def run(requests: Any, teacher: ScriptedTeacher, store: Store, sleep: Waits | None = None, **settings: Any) -> Any:
    chosen = CollectSettings(**{"max_failure_rate": 1.0, **settings})
    return asyncio.run(collect(requests, teacher, store, chosen, sleep=sleep or Waits(), rng=random.Random(0)))


def test_every_request_is_answered_and_stored(store: Store) -> None:
    report = run(asks(10), ScriptedTeacher(), store)
    assert report == CollectReport(asked=10, answered=10, prompt_tokens=20)
    assert store.get(ask("question 7")) == Completion("answer to question 7", prompt_tokens=2)


def test_a_second_run_asks_nothing_and_checks_nothing(store: Store) -> None:
    run(asks(10), ScriptedTeacher(), store)
    second = ScriptedTeacher()
    assert run(asks(10), second, store) == CollectReport(cached=10)
    assert (second.tries, second.checks) == (Counter(), 0)


def test_one_more_request_asks_only_for_itself(store: Store) -> None:
    run(asks(10), ScriptedTeacher(), store)
    second = ScriptedTeacher()
    run(asks(11), second, store)
    assert second.tries == {"question 10": 1}


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_identical_requests_are_asked_once(store: Store, concurrency: int) -> None:
    teacher = ScriptedTeacher()
    report = run([*asks(4), *asks(4), ask("question 0")], teacher, store, concurrency=concurrency)
    assert set(teacher.tries.values()) == {1}
    assert (report.asked, report.cached) == (4, 5)


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_a_failing_request_named_twice_fails_once(store: Store, concurrency: int) -> None:
    teacher = ScriptedTeacher(lambda *_: PERMANENT)
    report = run([ask("a"), ask("b"), ask("a")], teacher, store, concurrency=concurrency)
    assert teacher.tries == {"a": 1, "b": 1}
    assert (report.failed, report.cached) == (2, 1)


def test_no_more_requests_than_the_window_are_in_flight(store: Store) -> None:
    teacher = ScriptedTeacher()
    run(asks(40), teacher, store, concurrency=7)
    assert teacher.most_in_flight == 7


def test_requests_are_drawn_only_as_the_window_moves(store: Store) -> None:
    teacher = ScriptedTeacher()
    ahead = []

    def endless() -> Iterator[Request]:
        for number, request in enumerate(asks(100), start=1):
            ahead.append(number - store.stats().completions)
            yield request

    run(endless(), teacher, store, concurrency=5)
    assert max(ahead) <= 6


def test_a_slow_answer_holds_up_no_other_request(store: Store) -> None:
    class OneSlow(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            if request.messages[-1][1] == "question 0":
                while sum(self.tries.values()) < 49:
                    await asyncio.sleep(0)
            return await super().complete(request)

    assert run(asks(50), OneSlow(), store, concurrency=2).answered == 50


def test_a_slot_asks_again_only_when_its_answer_is_on_disk(store: Store) -> None:
    behind = []

    class Watching(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            behind.append(sum(self.tries.values()) - reader.stats().completions)
            return await super().complete(request)

    with Store(store.path, read_only=True) as reader:
        run(asks(30), Watching(), store, concurrency=4)
    assert max(behind) < 4


def test_a_busy_teacher_is_asked_again(store: Store) -> None:
    teacher = ScriptedTeacher(lambda _, attempt: RETRY if attempt < 4 else Completion("at last"))
    assert run(asks(3), teacher, store).answered == 3
    assert set(teacher.tries.values()) == {4}


def test_waits_are_drawn_below_a_doubling_ceiling(store: Store) -> None:
    waits = Waits()
    run(asks(200), ScriptedTeacher(lambda *_: RETRY), store, waits, max_attempts=5, backoff=1.0, max_wait=3.0)
    ceilings = [1.0, 2.0, 3.0, 3.0]
    assert len(waits.seconds) == 200 * 4
    assert 0 <= min(waits.seconds) < 0.05
    assert 2.9 < max(waits.seconds) <= ceilings[-1]


def test_retry_after_is_never_cut_short(store: Store) -> None:
    waits = Waits()
    limited = TeacherError("retry", "HTTP 429", retry_after=20)
    run(asks(50), ScriptedTeacher(lambda _, n: limited if n == 1 else Completion("")), store, waits, backoff=0.5)
    assert all(20 <= seconds <= 20.5 for seconds in waits.seconds)
    assert len(set(waits.seconds)) == 50


def test_a_longer_wait_than_allowed_fails_the_request_for_now(store: Store) -> None:
    limited = TeacherError("retry", "HTTP 429: quota of the day", retry_after=86400)
    waits = Waits()
    assert run(asks(1), ScriptedTeacher(lambda *_: limited), store, waits).failed == 1
    assert waits.seconds == []
    assert store.failure(ask("question 0")) == "asked to wait 86400 s, longer than max_wait: HTTP 429: quota of the day"


def test_an_endpoint_that_is_spent_for_longer_is_not_asked_by_the_others(store: Store) -> None:
    spent = TeacherError("retry", "HTTP 429: quota of the day", retry_after=86400, overloaded=True)
    teacher = ScriptedTeacher(lambda *_: spent)
    with pytest.raises(TeacherUnavailable, match=r"asked to wait 86400 s, longer than max_wait: HTTP 429"):
        run(asks(100), teacher, store, concurrency=3)
    assert sum(teacher.tries.values()) == 3
    assert run(asks(100), ScriptedTeacher(), store).answered == 100


def test_what_ran_out_of_tries_is_asked_again_by_the_next_run(store: Store) -> None:
    assert run(asks(2), ScriptedTeacher(lambda *_: RETRY), store, max_attempts=3).failed == 2
    assert store.failure(ask("question 0")) == "HTTP 503: busy (3 tries)"
    assert run(asks(2), ScriptedTeacher(), store) == CollectReport(asked=2, answered=2, prompt_tokens=4)


def test_what_failed_for_good_is_asked_again_only_on_request(store: Store) -> None:
    run(asks(2), ScriptedTeacher(lambda *_: PERMANENT), store)
    second = ScriptedTeacher()
    assert run(asks(2), second, store) == CollectReport(failed=2)
    assert second.tries == {}
    assert run(asks(2), second, store, retry_failed=True).answered == 2


def test_a_permanent_failure_is_not_retried_and_stops_nobody_else(store: Store) -> None:
    teacher = ScriptedTeacher(lambda question, _: PERMANENT if question == "question 3" else Completion("fine"))
    report = run(asks(9), teacher, store)
    assert (report.answered, report.failed, teacher.tries["question 3"]) == (8, 1, 1)


def test_too_many_failures_are_an_error_that_counts_the_reasons(store: Store) -> None:
    teacher = ScriptedTeacher(lambda question, _: Completion("") if question[-1] in "01234" else PERMANENT)
    with pytest.raises(
        UserError, match=r"5 of 10 requests.*max_failure_rate 0\.4.*5x HTTP 400: too long.*retry_failed"
    ):
        run(asks(10), teacher, store, max_failure_rate=0.4)
    assert store.stats().completions == 5


def test_failures_up_to_the_allowed_rate_are_reported_only(store: Store) -> None:
    teacher = ScriptedTeacher(lambda question, _: Completion("") if question[-1] in "01234" else PERMANENT)
    assert run(asks(10), teacher, store, max_failure_rate=0.5).failed == 5


def test_a_fatal_error_ends_the_run_and_keeps_what_was_on_its_way(store: Store) -> None:
    teacher = ScriptedTeacher(lambda question, _: FATAL if question == "question 4" else Completion("fine"))
    with pytest.raises(TeacherUnavailable, match=r"key refused \(HTTP 401\)\. 7 completions of this run are kept"):
        run(asks(100), teacher, store, concurrency=4)
    assert store.stats().completions == sum(teacher.tries.values()) - 1 == 7
    assert store.stats().failures == 0


def test_a_fatal_error_cuts_waits_short(store: Store) -> None:
    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    teacher = ScriptedTeacher(lambda question, _: FATAL if question == "question 1" else RETRY)
    settings = CollectSettings(concurrency=2)
    with pytest.raises(TeacherUnavailable):
        asyncio.run(collect(asks(5), teacher, store, settings, sleep=for_ever))
    assert store.stats().failures == 0


def test_the_teacher_is_checked_before_the_first_request(store: Store) -> None:
    class Unreachable(ScriptedTeacher):
        async def check(self) -> None:
            raise TeacherError("fatal", "http://nowhere cannot be reached")

    teacher = Unreachable()
    with pytest.raises(TeacherUnavailable, match="cannot be reached"):
        run(asks(5), teacher, store)
    assert (teacher.tries, teacher.closed) == (Counter(), 1)


def test_a_defect_in_a_teacher_surfaces_and_loses_no_answer(store: Store) -> None:
    def script(question: str, _: int) -> Completion:
        if question == "question 5":
            raise ZeroDivisionError("a defect")
        return Completion("fine")

    teacher = ScriptedTeacher(script)
    with pytest.raises(ZeroDivisionError):
        run(asks(20), teacher, store, concurrency=1)
    assert (store.stats().completions, teacher.closed) == (5, 1)


def test_cancellation_keeps_every_answer(store: Store) -> None:
    answered = []

    class Counting(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            completion = await super().complete(request)
            answered.append(request)
            if len(answered) == 33:
                task.cancel()
            return completion

    async def interrupted() -> None:
        nonlocal task
        task = asyncio.create_task(collect(asks(100), Counting(), store, CollectSettings(concurrency=8)))
        await task

    task: asyncio.Task[CollectReport]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    kept = store.stats().completions
    assert kept == len(answered)
    assert run(asks(100), ScriptedTeacher(), store).asked == 100 - kept


def test_a_store_that_cannot_be_written_ends_the_run(store: Store) -> None:
    with Store(store.path, read_only=True) as reader, pytest.raises(UserError, match="readonly"):
        run(asks(50), ScriptedTeacher(), reader)


def test_no_requests_are_no_work(store: Store) -> None:
    teacher = ScriptedTeacher()
    assert run([], teacher, store, max_failure_rate=0.0) == CollectReport()
    assert teacher.checks == 0


def test_progress_counts_up_to_the_total(store: Store) -> None:
    store.put(ask("question 0"), Completion("known"))
    teacher = ScriptedTeacher(lambda question, _: PERMANENT if question == "question 1" else Completion(""))
    seen: list[Tally] = []
    settings = CollectSettings(max_failure_rate=1.0)
    asyncio.run(collect(asks(6), teacher, store, settings, lambda tally: seen.append(replace(tally))))
    assert seen[-1] == Tally(total=6, done=6, cached=1, asked=5, answered=4, failed=1, window=32)
    assert [tally.done for tally in seen] == sorted(tally.done for tally in seen)
    assert max(tally.in_flight for tally in seen) > 0


def test_a_round_is_drawn_when_the_one_before_is_in_the_store(store: Store) -> None:
    def rounds() -> Iterator[list[Request]]:
        yield asks(5)
        answers = [store.get(request) for request in asks(5)]
        yield [ask(f"hint after {answer.text}") for answer in answers if answer is not None]

    collection = collection_of(ScriptedTeacher(), store, CollectSettings())
    report = asyncio.run(collection.collect(one_by_one(rounds())))
    assert report == CollectReport(asked=10, answered=10, prompt_tokens=20)
    assert store.get(ask("hint after answer to question 4")) is not None


def test_a_bad_round_is_not_followed_by_another(store: Store) -> None:
    drawn = []

    def rounds() -> Iterator[list[Request]]:
        for number in range(3):
            drawn.append(number)
            yield [ask(f"round {number}")]

    collection = collection_of(ScriptedTeacher(lambda *_: PERMANENT), store, CollectSettings())
    with pytest.raises(UserError, match="1 of 1 requests"):
        asyncio.run(collection.collect(one_by_one(rounds())))
    assert drawn == [0]


COLLECTOR = """
import asyncio, sys
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request
requests = [Request("m", (("user", f"q{n}"),)) for n in range(40)]
teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=sys.argv[1]))
asyncio.run(collect(requests, teacher, Store(sys.argv[2]), CollectSettings(concurrency=4)))
"""


def start_collector(server: FaultServer, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COLLECTOR, server.url, str(path)])


def stored(path: Path) -> set[str]:
    with Store(path) as store:
        return {f"q{n}" for n in range(40) if store.get(Request("m", (("user", f"q{n}"),))) is not None}


def test_kill_9_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    def stop_after_ten(ask: Ask) -> Reply:
        return completion("fine") if ask.number <= 10 else Reply(behaviour="hang")

    path = tmp_path / "s.db"
    with FaultServer(stop_after_ten) as server:
        killed = start_collector(server, path)
        server.wait_for_asks(14)  # ten answered and on disk, four in flight
        killed.kill()
        killed.wait()
        answered = {ask.prompt for ask in server.asks[:10]}
    assert stored(path) == answered
    with FaultServer(lambda _: completion("fine")) as server:
        assert start_collector(server, path).wait() == 0
        assert server.asked_per_prompt() == dict.fromkeys({f"q{n}" for n in range(40)} - answered, 1)


def kill_in_the_middle_of_answers(path: Path, moment: int) -> set[str]:
    """Run a collector that is killed as its request of that number arrives, and return what it asked."""
    running: list[subprocess.Popen[bytes]] = []

    def script(ask: Ask) -> Reply:
        if ask.number == moment:
            os.kill(running[0].pid, signal.SIGKILL)
        return completion("fine")

    with FaultServer(script) as server:
        running.append(start_collector(server, path))
        assert running[0].wait() == -signal.SIGKILL
        return set(server.asked_per_prompt())


def test_kill_9_in_the_middle_of_answers_asks_nothing_twice_that_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for moment in (3, 17):
        before = stored(path)
        assert not before & kill_in_the_middle_of_answers(path, moment)
        assert len(stored(path) - before) >= moment - 4
    before = stored(path)
    with FaultServer(lambda _: completion("fine")) as server:
        assert start_collector(server, path).wait() == 0
        assert set(server.asked_per_prompt()) == {f"q{n}" for n in range(40)} - before
    assert len(stored(path)) == 40


# Giving way, rate limits, deadlines


BUSY = TeacherError("retry", "HTTP 429: slow down", overloaded=True)


class AtOnce(Executor):
    """Writes at once and in this thread, as time would go on while another one writes."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args))
        return done


class Time(Waits):
    """A clock that only sleeping moves on, by the sleeper that wakes first."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sleepers: list[float] = []

    def clock(self) -> float:
        return self.now

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        wakes = self.now + seconds
        self.sleepers.append(wakes)
        while self.now < wakes:
            before = self.now, len(self.seconds)
            for _ in range(20):  # whoever can do something does it before time goes on
                await asyncio.sleep(0)
            if before == (self.now, len(self.seconds)) and wakes == min(self.sleepers):
                self.now = max(self.now, wakes)
        self.sleepers.remove(wakes)


def run_in(
    time: Time, requests: Any, teacher: ScriptedTeacher, store: Store, progress: Progress | None = None, **settings: Any
) -> CollectReport:
    chosen = CollectSettings(**{"max_failure_rate": 1.0, **settings})
    with patch("toolkit.store_writing.ThreadPoolExecutor", AtOnce):
        return asyncio.run(
            collect(requests, teacher, store, chosen, progress, sleep=time, clock=time.clock, rng=random.Random(0))
        )


class Limited(ScriptedTeacher):
    """Has room for so many requests at once, and takes a second for each; remembers when each came."""

    def __init__(self, time: Time, room: int = 1000, usage: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.time, self.room, self.usage = time, room, usage
        self.came: list[float] = []
        self.complaints = 0

    async def complete(self, request: Request) -> Completion:
        self.came.append(self.time.now)
        self.in_flight += 1
        try:
            if self.in_flight > self.room:
                self.complaints += 1
                raise BUSY
            await self.time(1.0)
        finally:
            self.in_flight -= 1
        return Completion("fine", prompt_tokens=self.usage[0], completion_tokens=self.usage[1])


def test_a_server_that_never_complains_gets_the_whole_window_at_once(store: Store) -> None:
    time = Time()
    teacher = Limited(time)
    run_in(time, asks(60), teacher, store, concurrency=20)
    assert Counter(teacher.came) == {0.0: 20, 1.0: 20, 2.0: 20}


def test_the_window_gives_way_to_a_server_that_has_less_room(store: Store) -> None:
    time = Time()
    teacher = Limited(time, room=5)
    windows: list[int] = []
    report = run_in(
        time, asks(300), teacher, store, lambda tally: windows.append(tally.window), concurrency=40, max_attempts=50
    )
    assert report.answered == 300
    assert windows[0] == 20, "forty complaints of one moment halve it once"
    assert max(windows[len(windows) // 2 :]) <= 7, "about as many as the server has room for"
    assert teacher.complaints < 300 / 2
    assert time.now < 2 * 300 / 5


def test_while_an_endpoint_rests_nobody_asks_it(store: Store) -> None:
    time = Time()
    rest = TeacherError("retry", "HTTP 503", retry_after=30, overloaded=True)

    class Resting(Limited):
        async def complete(self, request: Request) -> Completion:
            if self.time.now == 2.0 and not self.complaints:
                self.came.append(self.time.now)
                self.complaints = 1
                raise rest
            return await super().complete(request)

    teacher = Resting(time)
    assert run_in(time, asks(20), teacher, store, concurrency=2).answered == 20
    assert not [moment for moment in teacher.came if 2.0 < moment < 32.0]
    assert min(moment for moment in teacher.came if moment > 2.0) == 32.0


def test_requests_keep_to_their_rate(store: Store) -> None:
    time = Time()
    teacher = Limited(time)
    run_in(time, asks(100), teacher, store, concurrency=100, requests_per_minute=305)  # five a second
    assert Counter(teacher.came)[0.0] == 5
    assert time.now == pytest.approx((100 - 5) / 5 + 1)


def test_tokens_keep_to_their_rate_and_nothing_starves(store: Store) -> None:
    time = Time()
    teacher = Limited(time, usage=(10, 50))  # larger than the bucket of a second
    run_in(time, asks(30), teacher, store, concurrency=30, output_tokens_per_minute=1220)  # twenty a second
    assert 30 * 50 / 20 - 5 <= time.now <= 30 * 50 / 20 + 1024 / 20 + 1, "the first one is reserved at its max_tokens"


def test_each_model_has_a_pace_of_its_own(store: Store) -> None:
    time = Time()
    teacher = Limited(time)
    requests = [Request(model, (("user", str(n)),)) for n in range(10) for model in ("a", "b")]
    run_in(time, requests, teacher, store, concurrency=20, requests_per_minute=61)
    assert Counter(teacher.came) == {float(second): 2 for second in range(10)}


def test_no_try_begins_after_the_deadline(store: Store) -> None:
    time = Time()
    late = TeacherError("retry", "HTTP 500", retry_after=4)
    teacher = ScriptedTeacher(lambda *_: late)
    assert run_in(time, asks(1), teacher, store, deadline=10, backoff=0).failed == 1
    assert teacher.tries == {"question 0": 3}, "at 0, 4 and 8 s"
    assert store.failure(ask("question 0")) == "HTTP 500 (3 tries within 10 s)"
    assert run(asks(1), ScriptedTeacher(), store).answered == 1, "another run asks again"


def test_a_try_is_cut_at_the_deadline(store: Store) -> None:
    class Silent(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    assert run(asks(2), Silent(), store, deadline=0.05).failed == 2
    assert store.failure(ask("question 0")) == "no answer within the deadline (1 tries within 0.05 s)"


# What it costs


class Purse:
    """A ledger in which every request costs one, and may cost three."""

    def __init__(self, cap: float) -> None:
        self.cap, self.spent, self.reserved = cap, 0.0, 0.0
        self.most_at_risk = 0.0
        self.settled: list[Completion | TeacherError] = []

    def watch(self, told: Callable[[], None]) -> None:
        """There is no other ledger of this money."""

    def abandon(self, goes_on: bool) -> None:
        assert not goes_on
        self.spent, self.reserved = self.spent + self.reserved, 0.0

    def reserve(self, request: Request) -> bool:
        if self.spent + self.reserved + 3 > self.cap:
            return False
        self.reserved += 3
        self.most_at_risk = max(self.most_at_risk, self.spent + self.reserved)
        return True

    def settle(self, request: Request, outcome: Completion | TeacherError) -> None:
        self.reserved -= 3
        self.settled.append(outcome)
        if isinstance(outcome, Completion):
            self.spent += 1
        elif outcome.billed:
            self.spent += 3


def run_with(purse: Purse, requests: Any, teacher: ScriptedTeacher, store: Store, **settings: Any) -> CollectReport:
    chosen = CollectSettings(**{"max_failure_rate": 1.0, "max_cost_usd": purse.cap, **settings})
    return asyncio.run(collect(requests, teacher, store, chosen, ledger=purse, sleep=Waits(), rng=random.Random(0)))


def test_the_cap_is_never_exceeded_and_what_was_answered_is_kept(store: Store) -> None:
    purse = Purse(cap=20)
    teacher = ScriptedTeacher()
    with pytest.raises(CostCapReached, match=r"18\.0000 of 20 US dollars.*82 of 100 requests.*18 completions"):
        run_with(purse, asks(100), teacher, store, concurrency=5)
    assert store.stats().completions == sum(teacher.tries.values()) == 18
    assert (purse.reserved, store.stats().failures) == (0, 0)
    assert purse.most_at_risk <= 20


def test_room_below_the_cap_is_waited_for_while_requests_are_in_flight(store: Store) -> None:
    purse = Purse(cap=12)  # four at once at first, though eight might be
    teacher = ScriptedTeacher()
    assert run_with(purse, asks(10), teacher, store, concurrency=8).answered == 10
    assert teacher.most_in_flight == 4


def test_every_try_is_settled(store: Store) -> None:
    lost = TeacherError("retry", "connection lost", billed=True)
    purse = Purse(cap=100)
    outcomes = {1: RETRY, 2: lost}
    run_with(purse, asks(1), ScriptedTeacher(lambda _, n: outcomes.get(n) or Completion("")), store)
    assert purse.settled == [RETRY, lost, Completion("")]
    assert (purse.reserved, purse.spent) == (0, 4)


def test_money_for_requests_that_were_given_up_is_waited_for_no_longer(store: Store) -> None:
    price = Price(input=1.0, output=2.0)
    most = bound(ask("a"), price)
    broken = Ledger(price, 2.5 * most)
    other = broken.beside(price)

    class Broken(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(0.05)  # the other one waits by now
            if request == ask("b"):
                raise RuntimeError("a mistake of ours")
            await asyncio.Event().wait()
            raise AssertionError

    async def both() -> list[Any]:
        settings = CollectSettings(concurrency=2, max_cost_usd=2.5 * most)
        runs = (
            collect([ask("a"), ask("b")], Broken(), store, settings, ledger=broken),
            collect([ask("c")], ScriptedTeacher(), store, settings, ledger=other),
        )
        async with asyncio.timeout(30):
            return await asyncio.gather(*runs, return_exceptions=True)

    first, second = asyncio.run(both())
    assert str(first) == "a mistake of ours"
    assert isinstance(second, CostCapReached)
    assert (broken.own_lost, broken.reserved) == (2 * most, 0)


def test_a_cap_that_nobody_watches_is_refused(store: Store) -> None:
    teacher = ScriptedTeacher()
    with pytest.raises(UserError, match="max_cost_usd: found 5"):
        run(asks(1), teacher, store, max_cost_usd=5)
    assert teacher.tries == Counter()


# Writing


class FullDisk:
    """A store whose disk is full for so many writes."""

    def __init__(self, store: Store, writes: float) -> None:
        self.store, self.writes = store, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def put_many(self, answers: Any) -> None:
        if self.writes > 0:
            self.writes -= 1
            raise UserError("database or disk is full")
        self.store.put_many(answers)


def test_answers_that_cannot_be_written_are_named(store: Store) -> None:
    teacher = ScriptedTeacher()
    with pytest.raises(UserError) as told:
        run(asks(100), teacher, FullDisk(store, float("inf")), concurrency=4)  # type: ignore[arg-type]
    assert sum(teacher.tries.values()) == 4, "nothing more is asked"
    assert str(told.value).startswith("database or disk is full. 4 outcomes could not be written and are lost")
    assert all(request.digest[:12] in str(told.value) for request in asks(4))


def test_answers_are_tried_once_more_before_they_are_lost(store: Store) -> None:
    with pytest.raises(UserError, match=r"^database or disk is full$"):
        run(asks(100), ScriptedTeacher(), FullDisk(store, 1), concurrency=4)  # type: ignore[arg-type]
    assert store.stats().completions == 4


@pytest.mark.parametrize("late", [["during"], ["after", "after too"], ["during", "after", "after too"]])
def test_answers_that_come_while_and_after_a_write_fails_are_named_too(store: Store, late: list[str]) -> None:
    is_writing, has_failed = threading.Event(), threading.Event()
    fails = threading.Event()

    class Failing(FullDisk):
        def put_many(self, answers: Any) -> None:
            is_writing.set()
            assert fails.wait(60)
            has_failed.set()
            raise UserError("database or disk is full")

    class Late(ScriptedTeacher):
        async def complete(self, request: Request) -> Completion:
            when = request.messages[0][1]
            if when == "during":
                await asyncio.to_thread(is_writing.wait)
                # Answered in the next turn of the loop, and the write fails only then.
                asyncio.get_running_loop().call_later(0.05, fails.set)
            elif when != "first":
                await asyncio.to_thread(has_failed.wait)
                await asyncio.sleep(0.05 * len(when))
            if "during" not in late:
                fails.set()
            return Completion("x")

    async def within_a_minute() -> None:
        settings = CollectSettings(concurrency=8)
        async with asyncio.timeout(60):
            await collect([ask(when) for when in ("first", *late)], Late(), Failing(store, 1), settings)  # type: ignore[arg-type]

    with pytest.raises(UserError, match=f"{1 + len(late)} outcomes could not be written") as told:
        asyncio.run(within_a_minute())
    assert all(ask(when).digest[:12] in str(told.value) for when in ("first", *late))


def test_there_is_one_writer_and_answers_of_a_slow_write_share_the_next(store: Store) -> None:
    writes: list[int] = []
    writing = threading.Lock()

    class Watched(FullDisk):
        def put_many(self, answers: Any) -> None:
            assert writing.acquire(blocking=False), "two writers at once"
            try:
                writes.append(len(answers))
                self.store.put_many(answers)
            finally:
                writing.release()

    run(asks(200), ScriptedTeacher(), Watched(store, 0), concurrency=20)  # type: ignore[arg-type]
    assert sum(writes) == 200
    assert max(writes) > 1


def test_only_one_collects_into_a_store(store: Store) -> None:
    with Store(store.path) as other, other.collecting(), pytest.raises(UserError, match="is collecting into it"):
        run(asks(1), ScriptedTeacher(), store)
    assert run(asks(1), ScriptedTeacher(), store).answered == 1


def test_a_rerun_that_asks_nothing_needs_no_right_to_collect(store: Store) -> None:
    run(asks(3), ScriptedTeacher(), store)
    with Store(store.path) as other, other.collecting():
        assert run(asks(3), ScriptedTeacher(), store).cached == 3


def test_rounds_share_one_check_and_one_tally(store: Store) -> None:
    seen: list[Tally] = []
    teacher = ScriptedTeacher()
    rounds = [asks(3), asks(5)]
    settings = CollectSettings()
    collection = collection_of(teacher, store, settings, lambda tally: seen.append(replace(tally)))
    asyncio.run(collection.collect(one_by_one(rounds)))
    assert seen[-1] == Tally(total=8, done=8, cached=3, asked=5, answered=5, window=32, prompt_tokens=10)
    assert (teacher.checks, teacher.closed) == (1, 1)
