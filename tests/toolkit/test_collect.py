from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.openai_loopback import Ask, Loopback, Reply, completion
from toolkit.collect import (
    CollectReport,
    CollectSettings,
    Tally,
    TeacherUnavailable,
    collect,
    collect_rounds,
    progress_line,
)
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request, TeacherError

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "completions.db") as opened:
        yield opened


class Waits:
    """Stands in for sleeping: remembers how long was asked for and returns at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


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
    assert len(answered) - 8 <= kept <= len(answered)
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


def test_the_progress_line_shows_done_total_and_failures(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_line("cot") as show:
        show(Tally(total=4, done=3))
        show(Tally(total=6, done=6, failed=1))
    assert "cot: 100%" in capsys.readouterr().err


def test_the_progress_line_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line("cot") as show:
        show(Tally(total=1, done=1, failed=1))
    assert capsys.readouterr().err == ""


def test_a_round_is_drawn_when_the_one_before_is_in_the_store(store: Store) -> None:
    def rounds() -> Iterator[list[Request]]:
        yield asks(5)
        answers = [store.get(request) for request in asks(5)]
        yield [ask(f"hint after {answer.text}") for answer in answers if answer is not None]

    report = asyncio.run(collect_rounds(rounds(), ScriptedTeacher(), store, CollectSettings()))
    assert report == CollectReport(asked=10, answered=10, prompt_tokens=20)
    assert store.get(ask("hint after answer to question 4")) is not None


def test_a_bad_round_is_not_followed_by_another(store: Store) -> None:
    drawn = []

    def rounds() -> Iterator[list[Request]]:
        for number in range(3):
            drawn.append(number)
            yield [ask(f"round {number}")]

    with pytest.raises(UserError, match="1 of 1 requests"):
        asyncio.run(collect_rounds(rounds(), ScriptedTeacher(lambda *_: PERMANENT), store, CollectSettings()))
    assert drawn == [0]


COLLECTOR = """
import asyncio, sys
from toolkit.collect import CollectSettings, collect
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request
requests = [Request("m", (("user", f"q{n}"),)) for n in range(40)]
teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=sys.argv[1]))
asyncio.run(collect(requests, teacher, Store(sys.argv[2]), CollectSettings(concurrency=4)))
"""


def start_collector(server: Loopback, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COLLECTOR, server.url, str(path)])


def stored(path: Path) -> set[str]:
    with Store(path) as store:
        return {f"q{n}" for n in range(40) if store.get(Request("m", (("user", f"q{n}"),))) is not None}


def test_kill_9_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    def stop_after_ten(ask: Ask) -> Reply:
        return completion("fine") if ask.number <= 10 else Reply(behaviour="hang")

    path = tmp_path / "s.db"
    with Loopback(stop_after_ten) as server:
        killed = start_collector(server, path)
        server.wait_for_asks(14)  # ten answered and on disk, four in flight
        killed.kill()
        killed.wait()
        answered = {ask.prompt for ask in server.asks[:10]}
    assert stored(path) == answered
    with Loopback(lambda _: completion("fine")) as server:
        assert start_collector(server, path).wait() == 0
        assert server.asked_per_prompt() == dict.fromkeys({f"q{n}" for n in range(40)} - answered, 1)


def kill_in_the_middle_of_answers(path: Path, moment: int) -> set[str]:
    """Run a collector that is killed as its request of that number arrives, and return what it asked."""
    running: list[subprocess.Popen[bytes]] = []

    def script(ask: Ask) -> Reply:
        if ask.number == moment:
            os.kill(running[0].pid, signal.SIGKILL)
        return completion("fine")

    with Loopback(script) as server:
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
    with Loopback(lambda _: completion("fine")) as server:
        assert start_collector(server, path).wait() == 0
        assert set(server.asked_per_prompt()) == {f"q{n}" for n in range(40)} - before
    assert len(stored(path)) == 40
