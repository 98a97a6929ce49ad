from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataset_builders.settings import TeacherCotsSettings
from tests.waits import Waits
from toolkit.batches import Submission
from toolkit.collect import CostCapReached, TeacherUnavailable, collect, collection_of, one_by_one
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.spending import Ledger, bound, cost
from toolkit.store import Store
from toolkit.tally import CollectReport, Tally
from toolkit.teachers.openai_batches import BatchEndpoint
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.procedural import ProceduralConfig, ProceduralTeacher
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError
from toolkit.testing.batch_endpoints import BatchEndpoints, BatchScript
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import RESET, Ask, Reply, completion, fault

AT_ONCE = BatchScript(waits=())
OVER = {"completed", "failed", "expired", "cancelled"}


def ask(question: str, **sampling: Any) -> Request:
    return Request("m", (("user", question),), Sampling(**sampling))


def asks(number: int) -> list[Request]:
    return [ask(f"q{n}") for n in range(number)]


def run(
    requests: Iterable[Request],
    server: FaultServer,
    store: Store,
    *,
    ledger: Ledger | None = None,
    sleep: Callable[[float], Any] | None = None,
    teacher: Any = None,
    **chosen: Any,
) -> CollectReport:
    how = CollectSettings(**{"mode": "batch", "max_failure_rate": 1.0, "batch_size": 3, **chosen})
    teacher = teacher or OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
    return asyncio.run(collect(requests, teacher, store, how, ledger=ledger, sleep=sleep or Waits()))


def answers(asked: Ask) -> Reply:
    return completion(f"answer to {asked.prompt}")


def records(store: Store) -> list[Path]:
    return sorted(store.path.with_name(store.path.name + ".batches").glob("*"))


def fetched(server: FaultServer, path: str) -> bytes:
    with urllib.request.urlopen(server.url + path) as response:
        return response.read()


def submitted(server: FaultServer) -> list[list[str]]:
    """Return the prompts of every batch that was created, in the order of creation and of their lines."""
    batches = json.loads(fetched(server, "/batches"))["data"]
    files = [fetched(server, f"/files/{batch['input_file_id']}/content") for batch in reversed(batches)]
    return [[json.loads(line)["body"]["messages"][-1]["content"] for line in file.splitlines()] for file in files]


# What is submitted and what comes of it


def test_every_request_is_answered_in_batches_and_stored_as_such(store: Store) -> None:
    with FaultServer(answers) as server:
        report = run(asks(8), server, store)
        assert submitted(server) == [["q0", "q1", "q2"], ["q3", "q4", "q5"], ["q6", "q7"]]
    assert report == CollectReport(asked=8, answered=8, prompt_tokens=56, completion_tokens=24)
    for request in asks(8):
        found = store.get(request)
        assert found is not None
        assert (found.batched, found.text) == (True, f"answer to {request.messages[-1][1]}")
    assert records(store) == []


def test_a_line_holds_what_the_other_mode_would_send(store: Store, tmp_path: Path) -> None:
    request = ask("Größe\u2028 \x85", temperature=0.7, stop=("\n\n",), seed=5, max_tokens=9)
    with FaultServer(answers) as server:
        run([request], server, store)
        with Store(tmp_path / "online.sqlite") as other:
            run([request], server, other, mode="online")
        batched, online = server.asks
        (line,) = fetched(server, "/files/file-1/content").split(b"\n")[:-1]
    assert (batched.batched, online.batched) == (True, False)
    assert batched.body == online.body
    asked = json.loads(line)
    assert {name: asked[name] for name in asked if name != "body"} == {
        "custom_id": request.digest,
        "method": "POST",
        "url": "/v1/chat/completions",
    }
    assert len(asked["custom_id"]) <= 64


def test_the_provider_gets_what_openais_own_client_would_send(store: Store) -> None:
    openai = pytest.importorskip("openai")
    with FaultServer(answers) as server:
        run(asks(2), server, store)
        client = openai.OpenAI(base_url=server.url, api_key="k")
        content = client.files.content("file-1").content
        client.files.create(file=("requests.jsonl", content), purpose="batch")
        client.batches.create(input_file_id="file-3", endpoint="/v1/chat/completions", completion_window="24h")
        theirs, ours = client.batches.list().data
        ours_file, theirs_file = client.files.retrieve("file-1"), client.files.retrieve("file-3")
        assert client.files.content("file-3").content == content
    for name in ("endpoint", "completion_window"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours_file.purpose, ours_file.bytes) == (theirs_file.purpose, theirs_file.bytes) == ("batch", len(content))


def test_modes_mix(store: Store) -> None:
    with FaultServer(answers) as server:
        run(asks(4), server, store, mode="online")
        assert run(asks(7), server, store) == CollectReport(3, 3, 4, prompt_tokens=21, completion_tokens=9)
        assert run(asks(7), server, store, mode="online") == CollectReport(cached=7)
        assert set(server.asked_per_prompt().values()) == {1}
        assert submitted(server) == [["q4", "q5", "q6"]]


def test_a_second_run_asks_nothing_and_checks_nothing(store: Store) -> None:
    with FaultServer(answers) as server:
        run(asks(4), server, store)
        seen = server.models_seen
        assert run(asks(4), server, store) == CollectReport(cached=4)
        assert (server.models_seen, server.requests_seen) == (seen, 4)


def test_rounds_follow_each_other(store: Store) -> None:
    def rounds() -> Iterator[list[Request]]:
        yield asks(2)
        found = [store.get(request) for request in asks(2)]
        yield [ask(f"hint after {each.text}") for each in found if each is not None]

    with FaultServer(answers) as server:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        collection = collection_of(teacher, store, CollectSettings(mode="batch"), sleep=Waits())
        report = asyncio.run(collection.collect(one_by_one(rounds())))
        assert submitted(server) == [["q0", "q1"], ["hint after answer to q0", "hint after answer to q1"]]
    assert report.answered == 4


def test_disorder_in_the_results_is_ignored_and_counted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    wild = BatchScript(waits=(), unknown=2, repeated=2, garbage=3)
    with FaultServer(answers, batches=[wild]) as server:
        assert run(asks(3), server, store).answered == 3
    assert "ignored 7 lines" in caplog.text
    assert all(store.get(request) for request in asks(3))


def test_line_breaks_of_unicode_end_no_line(store: Store) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    reply = json.dumps({**json.loads(completion(text).body)}, ensure_ascii=False).encode()

    class Plain(BatchEndpoints):
        def _disorder(self, output: list[dict[str, Any]], batch: Any) -> bytes:
            return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\r\n" for line in output)

    with FaultServer(lambda _: Reply(reply, is_answer=True)) as server:
        server._batches = Plain([AT_ONCE], server._answer_line)
        assert run(asks(2), server, store).answered == 2
    assert store.get(ask("q1")) == Completion(text, "", "stop", "served-model", 7, 3, 0, True, json.loads(reply))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (fault(429), "retry"),
        (fault(500), "retry"),
        (Reply(b'{"choices": []}'), "retry"),
        (Reply(b"not JSON"), "retry"),
        (fault(400, "too long"), "permanent"),
        (fault(400, "no", "content_filter"), "permanent"),
    ],
)
def test_failed_lines_are_sorted_as_in_the_other_mode(store: Store, reply: Reply, kind: str) -> None:
    with FaultServer(lambda asked: reply if asked.prompt == "q1" else answers(asked)) as server:
        report = run(asks(3), server, store, max_attempts=2)
        tries = 2 if kind == "retry" else 1
        assert server.asked_per_prompt() == {"q0": 1, "q1": tries, "q2": 1}
    assert (report.answered, report.failed) == (2, 1)
    assert store.standing(ask("q1")) == ("failed" if kind == "retry" else "refused")
    assert ("(2 tries)" in (store.failure(ask("q1")) or "")) == (kind == "retry")


def test_a_line_that_fails_once_is_asked_again(store: Store) -> None:
    with FaultServer(lambda asked: fault(503) if asked.attempt == 1 else answers(asked)) as server:
        assert run(asks(4), server, store).answered == 4
        assert submitted(server) == [["q0", "q1", "q2"], ["q3"], ["q0", "q1", "q2"], ["q3"]]


def test_an_unknown_model_ends_the_run_and_keeps_what_was_answered(store: Store) -> None:
    missing = fault(404, "The model 'm' does not exist", "model_not_found")
    server = FaultServer(lambda asked: missing if asked.prompt == "q1" else answers(asked))
    with server, pytest.raises(TeacherUnavailable, match="model 'm' does not exist"):
        run(asks(3), server, store)
    assert (store.stats().completions, store.stats().failures, records(store)) == (2, 0, [])


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_leaves_unanswered_is_submitted_again(store: Store, end: Any) -> None:
    with FaultServer(answers, batches=[BatchScript((), end, 0.7), AT_ONCE]) as server:
        assert run(asks(3), server, store).answered == 3
        assert submitted(server) == [["q0", "q1", "q2"], ["q2"]]
        assert set(server.asked_per_prompt().values()) == {1}


def test_batches_that_always_expire_end_after_max_attempts(store: Store) -> None:
    with FaultServer(answers, batches=[BatchScript((), "expired", 0.0)]) as server:
        report = run(asks(2), server, store, max_attempts=3)
        assert (report.failed, len(submitted(server))) == (2, 3)
    assert "batch_expired" in (store.failure(ask("q0")) or "")


def test_a_line_missing_from_the_results_is_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = BatchEndpoints._disorder

    def lossy(self: BatchEndpoints, output: list[dict[str, Any]], batch: Any) -> bytes:
        return whole(self, output[1:], batch) if batch.shown["id"] == "batch-1" else whole(self, output, batch)

    monkeypatch.setattr(BatchEndpoints, "_disorder", lossy)
    with FaultServer(answers, batches=[AT_ONCE]) as server:
        assert run(asks(3), server, store).answered == 3
        assert submitted(server) == [["q0", "q1", "q2"], ["q0"]]


def test_a_refused_batch_ends_the_run_in_the_providers_words(store: Store) -> None:
    with FaultServer(answers, batches=[AT_ONCE, BatchScript((), "failed"), BatchScript()]) as server:
        with pytest.raises(
            TeacherUnavailable, match=r"scripted failure \(scripted_failure\).* 3 requests to m in 1 batches"
        ):
            run(asks(9), server, store)
        assert len(records(store)) == 1  # of the third, which goes on
        assert run(asks(9), server, store) == CollectReport(6, 6, 3, prompt_tokens=42, completion_tokens=18)
        assert submitted(server) == [["q0", "q1", "q2"], ["q3", "q4", "q5"], ["q6", "q7", "q8"], ["q3", "q4", "q5"]]


def queue_of(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the server refuse batches, once they are looked at, while more than so many are live."""
    looked = BatchEndpoints._look
    refused: list[int] = []

    def look(self: BatchEndpoints, batch: Any) -> Any:
        live = [each for each in self._batches.values() if each.shown["status"] not in OVER]
        if batch.shown["status"] == "validating" and batch.looks == 0 and len(live) > most:
            refused.append(len(live))
            fault = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
            batch.shown |= {"status": "failed", "errors": {"object": "list", "data": [fault]}}
            return batch.shown
        return looked(self, batch)

    monkeypatch.setattr(BatchEndpoints, "_look", look)
    return refused


def test_a_full_queue_of_the_provider_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = queue_of(monkeypatch, 2)
    with FaultServer(answers) as server:
        assert run(asks(20), server, store, batch_size=2, max_attempts=1).answered == 20
        assert set(server.asked_per_prompt().values()) == {1}
    assert refused == [10, 9, 8, 7, 6, 5, 4, 3]  # each once, and none after them


def test_a_batch_larger_than_the_queue_ends_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    queue_of(monkeypatch, 0)
    with FaultServer(answers) as server, pytest.raises(TeacherUnavailable, match="Enqueued token limit reached"):
        run(asks(3), server, store)
    assert records(store) == []


def test_a_request_that_cannot_be_sent_fails_alone(store: Store) -> None:
    with FaultServer(answers) as server:
        report = run([ask("q0"), ask("lone \ud800"), ask("q2")], server, store)
        assert (report.answered, report.failed, submitted(server)) == (2, 1, [["q0", "q2"]])


def test_contrastive_decoding_is_refused_before_anything_is_sent(store: Store) -> None:
    contrasted = Request("m", (("user", "q"),), contrast="other")
    with FaultServer(answers) as server:
        with pytest.raises(TeacherUnavailable, match="contrastive"):
            run([*asks(2), contrasted], server, store)
        assert submitted(server) == []


def test_files_are_cut_by_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.batches._MOST_BYTES", 700)
    with FaultServer(answers) as server:
        assert run([ask(c * 300) for c in "abc"], server, store).answered == 3
        assert [len(batch) for batch in submitted(server)] == [1, 1, 1]


def test_another_teacher_is_refused(store: Store) -> None:
    with FaultServer(answers) as server, pytest.raises(UserError, match=r"collect.mode: found 'batch'.*procedural"):
        run(asks(1), server, store, teacher=ProceduralTeacher(ProceduralConfig()))


@pytest.mark.parametrize(
    ("teacher", "named"),
    [
        ({"kind": "procedural"}, "'openai'.* not 'procedural'"),
        ({"kind": "recorded", "store": "s"}, "'openai'.* not 'recorded'"),
        ({"kind": "openai", "model": "m", "base_url": ["http://a/v1", "http://b/v1"]}, "one base_url"),
        ({"kind": "openai", "model": "m"}, None),
    ],
)
def test_a_recipe_is_told_who_has_batches(teacher: dict[str, Any], named: str | None) -> None:
    config = {"problems": {"source": "procedural"}, "teacher": teacher, "collect": {"mode": "batch"}}
    if named is None:
        assert TeacherCotsSettings.model_validate(config).collect.batch_size == 10_000
    else:
        with pytest.raises(ValidationError, match=rf"collect.mode: found 'batch', .*{named}"):
            TeacherCotsSettings.model_validate(config)


# Waiting


def test_looks_become_rarer_until_something_comes(store: Store) -> None:
    waits = Waits()
    with FaultServer(answers, batches=[BatchScript(("in_progress",) * 6), BatchScript(("in_progress",) * 8)]) as server:
        run(asks(6), server, store, sleep=waits, poll_seconds=10, max_wait=45)
    assert waits.seconds == [10, 20, 40, 45, 45, 45, 10]


def test_faults_of_the_provider_are_waited_out(store: Store) -> None:
    def control(action: str, number: int) -> Reply | None:
        return fault(503) if number == 1 else RESET if number == 2 and action.startswith("GET") else None

    waits = Waits()
    with FaultServer(answers, control=control) as server:
        assert run(asks(4), server, store, sleep=waits).answered == 4
        assert set(server.asked_per_prompt().values()) == {1}


def test_a_provider_that_stays_away_ends_the_run_and_loses_nothing(store: Store) -> None:
    is_down = [True]

    def control(action: str, number: int) -> Reply | None:
        return fault(503) if is_down[0] and action.startswith("GET /v1/batches/") else None

    with FaultServer(answers, control=control) as server:
        with pytest.raises(
            TeacherUnavailable, match=r"HTTP 503.*2 requests to m in 1 batches go on at .*the same command"
        ):
            run(asks(2), server, store, max_attempts=3)
        is_down[0] = False
        assert run(asks(2), server, store).answered == 2
        assert len(submitted(server)) == 1


def test_lost_results_name_the_record_to_delete(store: Store) -> None:
    is_lost = [True]

    def control(action: str, number: int) -> Reply | None:
        return fault(404, "No such File") if is_lost[0] and action.endswith("/content") else None

    with FaultServer(answers, control=control) as server:
        lost = r"No such File.*to give up batch batch-1, delete .*0001\.jsonl"
        with pytest.raises(TeacherUnavailable, match=lost):
            run(asks(2), server, store)
        is_lost[0] = False
        records(store)[0].unlink()
        assert run(asks(2), server, store).answered == 2


def test_an_interruption_says_that_batches_go_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async def interrupted(_: float) -> None:
        raise asyncio.CancelledError

    with FaultServer(answers) as server:
        with pytest.raises(asyncio.CancelledError):
            run(asks(4), server, store, sleep=interrupted)
        assert "4 requests to m in 2 batches go on at" in caplog.text
        assert run(asks(4), server, store).answered == 4
        assert len(submitted(server)) == 2


def test_progress_tells_what_the_provider_has(store: Store) -> None:
    seen = []

    def show(tally: Tally) -> None:
        seen.append((tally.done, tally.in_flight, tally.window))

    with FaultServer(lambda asked: fault(503) if asked.attempt == 1 else answers(asked)) as server:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        asyncio.run(collect(asks(4), teacher, store, CollectSettings(mode="batch"), show, sleep=Waits()))
    assert (max(in_flight for _, in_flight, _ in seen), seen[-1]) == (4, (4, 0, 0))
    assert all(in_flight == window for _, in_flight, window in seen)


# Money

PRICE = Price(input=1.0, output=2.0, batch=0.5)


def test_answers_cost_batch_prices(store: Store) -> None:
    ledger = Ledger(PRICE, None, batched=True)
    with FaultServer(answers) as server:
        run(asks(8), server, store, ledger=ledger)
    assert ledger.spent == pytest.approx(8 * (7 * 0.5 + 3 * 1.0) / 1e6)
    assert ledger.reserved == 0


def test_a_cap_limits_what_is_submitted_at_once(store: Store) -> None:
    requests = [ask(f"q{n}", max_tokens=1000) for n in range(8)]
    cap = 2.5 * bound(requests[0], PRICE, batched=True)
    ledger = Ledger(PRICE, cap, batched=True)
    with FaultServer(answers) as server:
        assert run(requests, server, store, ledger=ledger, max_cost_usd=cap).answered == 8
        assert max(len(batch) for batch in submitted(server)) == 2
    assert 0 < ledger.spent <= cap


def test_a_cap_that_is_reached_ends_the_run_within_it(store: Store) -> None:
    requests = [ask(f"q{n}", max_tokens=100) for n in range(8)]
    cap = 2.5 * bound(requests[0], PRICE, batched=True)
    ledger = Ledger(PRICE, cap, batched=True)
    server = FaultServer(lambda _: completion("long", usage=(60, 100)))
    with server, pytest.raises(CostCapReached, match=r"max_cost_usd"):
        run(requests, server, store, ledger=ledger, max_cost_usd=cap)
    assert 0 < store.stats().completions < 8
    kept = [store.get(request) for request in requests]
    assert sum(cost(each, PRICE) for each in kept if each is not None) == pytest.approx(ledger.spent)
    assert ledger.spent <= cap


def test_batches_of_an_earlier_run_count_below_the_cap(store: Store) -> None:
    requests = [ask(f"q{n}", max_tokens=100) for n in range(4)]
    one = bound(requests[0], PRICE, batched=True)
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(requests[:2], server, store, sleep=killed_at(1), ledger=Ledger(PRICE, None, batched=True))
        ledger = Ledger(PRICE, 1.5 * one, batched=True)
        run(requests, server, store, ledger=ledger, max_cost_usd=1.5 * one)
        assert submitted(server)[:1] == [["q0", "q1"]]
        assert set(server.asked_per_prompt().values()) == {1}
    assert ledger.spent == pytest.approx(4 * (7 * 0.5 + 3 * 1.0) / 1e6)
    assert ledger.reserved == 0


# Kills


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def killed_at(number: int) -> Callable[[float], Any]:
    """Return a sleep that ends the process the n-th time."""
    seen = Counter[str]()

    async def sleep(_: float) -> None:
        seen["sleeps"] += 1
        if seen["sleeps"] >= number:
            raise Killed
        await asyncio.sleep(0)

    return sleep


class Moments(OpenAITeacher):
    """Counts the moments at which a process may end: before and after each exchange, and in each wait."""

    def __init__(self, server: FaultServer, fatal: int | None = None) -> None:
        super().__init__(OpenAIConfig(model="m", base_url=server.url))
        self.fatal = fatal
        self.number = 0

    def moment(self) -> None:
        self.number += 1
        if self.number == self.fatal:
            raise Killed

    @asynccontextmanager
    async def exchange(self, call: Any) -> AsyncIterator[Any]:
        self.moment()
        async with super().exchange(call) as response:
            self.moment()
            yield response

    async def sleep(self, _: float) -> None:
        self.moment()
        await asyncio.sleep(0)


class Watch:
    """Sees whether a request is ever in two live batches, or in one after it was answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[str] = []
        create = BatchEndpoints._create

        def watched(server: BatchEndpoints, asked: dict[str, Any], request: Any) -> Reply:
            digests = self._digests(server, asked["input_file_id"])
            for name, batch in server._batches.items():
                both = digests & self._digests(server, batch.shown["input_file_id"])
                if both and batch.shown["status"] not in OVER:
                    self.faults.append(f"{len(both)} requests are in {name}, which is live")
            return create(server, asked, request)

        monkeypatch.setattr(BatchEndpoints, "_create", watched)

    @staticmethod
    def _digests(server: BatchEndpoints, file: str) -> set[str]:
        return {json.loads(line)["custom_id"] for line in server._files[file][1].splitlines()}


SCRIPTS = (BatchScript(("validating",)), BatchScript((), "expired", 0.5), BatchScript((), unknown=1, repeated=1))


def fails_now_and_then(asked: Ask) -> Reply:
    if asked.prompt == "q1" and asked.attempt == 1:
        return fault(500)
    return fault(400, "too long") if asked.prompt == "q3" else answers(asked)


def lives(path: Path, fatal_moments: Iterable[int | None]) -> tuple[int, dict[str, int]]:
    """Collect into a new store, ended at each of these moments in turn; None for a run that is not ended.

    Returns the number of moments of the last run, and how often each prompt was answered or refused.
    """
    moments = 0
    with FaultServer(fails_now_and_then, batches=SCRIPTS) as server:
        for fatal in fatal_moments:
            teacher = Moments(server, fatal)
            with Store(path) as store, suppress(Killed):
                run(asks(4), server, store, teacher=teacher, sleep=teacher.sleep, batch_size=2)
            moments = teacher.number
        with Store(path, read_only=True) as store:
            assert [store.standing(request) for request in asks(4)] == ["answered"] * 3 + ["refused"]
            assert records(store) == []
        return moments, dict(server.asked_per_prompt())


# The server refuses q1 the first time; all else is asked once, whatever happens.
ONCE_EACH = {"q0": 1, "q1": 2, "q2": 1, "q3": 1}


@pytest.mark.slow
def test_killed_at_any_moment_no_request_is_submitted_twice_or_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    moments, asked = lives(tmp_path / "whole.sqlite", [None])
    assert asked == ONCE_EACH
    for fatal in range(1, moments + 1):
        _, asked = lives(tmp_path / f"{fatal}.sqlite", [fatal, None])
        assert (fatal, asked, watch.faults) == (fatal, ONCE_EACH, [])


@pytest.mark.slow
@given(deaths=st.lists(st.integers(1, 20), min_size=2, max_size=5))
@settings(max_examples=5, deadline=None)
def test_killed_again_and_again_no_request_is_submitted_twice_or_lost(deaths: list[int]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        watch = Watch(patched)
        _, asked = lives(Path(folder) / "s.sqlite", [*deaths, None])
        assert (asked, watch.faults) == (ONCE_EACH, [])


def test_a_batch_whose_name_got_lost_is_found_by_its_file(store: Store) -> None:
    def control(action: str, number: int) -> Reply | None:
        return RESET if action == "POST /v1/batches" else None

    waits = Waits()
    with FaultServer(answers, control=control) as server:
        assert run(asks(5), server, store, sleep=waits, poll_seconds=1).answered == 5
        assert len(submitted(server)) == 2
    assert 30.0 not in waits.seconds


def test_a_batch_that_was_never_created_is_created_after_a_second_look(store: Store) -> None:
    def control(action: str, number: int) -> Reply | None:
        return fault(500) if (action, number) == ("POST /v1/batches", 1) else None

    waits = Waits()
    with FaultServer(answers, control=control) as server:
        assert run(asks(2), server, store, sleep=waits).answered == 2
        assert len(submitted(server)) == 1
    assert waits.seconds[0] == 30.0


def test_a_batch_is_found_on_a_later_page(store: Store) -> None:
    def paged(self: BatchEndpoints, request: Any) -> Any:
        shown = [{"id": f"batch-{n}", "input_file_id": f"file-{n}"} for n in range(250)]
        after = int(request.query.get("after", "batch--1").removeprefix("batch-")) + 1
        page = shown[after : after + int(request.query["limit"])]
        asked.append(after)
        return Reply(json.dumps({"object": "list", "data": page, "has_more": after + len(page) < 250}).encode())

    asked: list[int] = []

    class Paged(BatchEndpoints):
        async def handle(self, request: Any) -> Reply:
            return paged(self, request)

    async def find(name: str) -> str | None:
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        try:
            return await BatchEndpoint(teacher).find(name)
        finally:
            await teacher.close()

    with FaultServer(answers) as server:
        server._batches = Paged([AT_ONCE], server._answer_line)
        assert asyncio.run(find("file-220")) == "batch-220"
        assert asyncio.run(find("file-250")) is None
    assert asked == [0, 100, 200, 0, 100, 200]


def test_a_broken_download_goes_on_where_it_broke(store: Store) -> None:
    def control(action: str, number: int) -> Reply | None:
        if not action.endswith("/content") or number > 1:
            return None
        content = fetched_at_server(server, action.split("/")[-2])
        return Reply(content[: len(content) // 2], behaviour="truncate")

    with FaultServer(answers, control=control, batches=[AT_ONCE]) as server:
        assert run(asks(6), server, store, batch_size=6) == CollectReport(6, 6, prompt_tokens=42, completion_tokens=18)


def fetched_at_server(server: FaultServer, name: str) -> bytes:
    return server._batches._files[name][1]


# The record


def test_a_record_tells_the_requests_and_the_batch(tmp_path: Path) -> None:
    requests = [
        Request("m", (("system", "\ud800"), ("user", "q")), Sampling(stop=("a", "b")), 3, "cot@1", "c"),
        ask("q"),
    ]
    folder = tmp_path / "s.batches"
    written = Submission.written(folder, "https://host/v1", "file-1", requests)
    (found,) = Submission.read_all(folder)
    assert (found.address, found.file, found.batch) == ("https://host/v1", "file-1", None)
    written.add_batch("batch-1")
    (found,) = Submission.read_all(folder)
    assert (found.batch, list(found.requests().values())) == ("batch-1", requests)
    assert [request.template for request in found.requests().values()] == ["cot@1", ""]


@pytest.mark.parametrize("kept", [1, 2, 12, 20, 21, 22])
def test_a_power_cut_while_the_batch_is_named_leaves_it_in_doubt(tmp_path: Path, kept: int) -> None:
    submission = Submission.written(tmp_path, "https://host/v1", "file-1", asks(2))
    before = submission.path.stat().st_size
    submission.add_batch("batch-1")
    whole = submission.path.read_bytes()
    submission.path.write_bytes(whole[: before + kept])
    (found,) = Submission.read_all(tmp_path)
    assert (found.batch, len(found.requests())) == ("batch-1" if kept >= 21 else None, 2)
    found.add_batch("batch-2")
    assert Submission.read_all(tmp_path)[0].batch == "batch-2"


def test_a_file_that_is_no_record_is_named(store: Store) -> None:
    folder = store.path.with_name(store.path.name + ".batches")
    folder.mkdir()
    (folder / "0001.jsonl").write_text('{"what": "ever"}\n')
    with FaultServer(answers) as server, pytest.raises(UserError, match=r"0001\.jsonl: not the record of a batch"):
        run(asks(1), server, store)


def test_a_batch_at_another_address_is_not_paid_for_again(store: Store) -> None:
    with FaultServer(answers) as first, FaultServer(answers) as second:
        with pytest.raises(Killed):
            run(asks(2), first, store, sleep=killed_at(1))
        with pytest.raises(UserError, match=rf"0001\.jsonl: a batch at {first.url} holds requests of this run"):
            run(asks(3), second, store)
        assert submitted(second) == []
        other = [ask("another")]
        assert run(other, second, store).answered == 1
        assert run(asks(3), first, store).answered == 3
        assert submitted(first) == [["q0", "q1"], ["q2"]]


def test_a_batch_of_requests_that_nobody_wants_any_more_is_collected_all_the_same(store: Store) -> None:
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(asks(3), server, store, sleep=killed_at(1))
        assert run([ask("q1"), ask("another")], server, store).answered == 2
        assert [store.standing(request) for request in asks(3)] == ["answered"] * 3
        assert submitted(server) == [["q0", "q1", "q2"], ["another"]]


def test_batches_of_another_model_are_left_to_its_own_teacher(store: Store) -> None:
    dear = Price(input=100.0, output=200.0, batch=0.5)
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(asks(3), server, store, sleep=killed_at(1))
        (record,) = records(store)
        other = OpenAITeacher(OpenAIConfig(model="other", base_url=server.url))
        ledger = Ledger(dear, None, batched=True)
        assert run([replace(ask("q1"), model="other")], server, store, teacher=other, ledger=ledger).answered == 1
        assert ledger.spent == pytest.approx((7 * 50 + 3 * 100) / 1e6)
        assert records(store) == [record]
        assert run(asks(3), server, store).answered == 3
        assert submitted(server) == [["q0", "q1", "q2"], ["q1"]]


def test_a_cap_whose_rest_is_set_aside_for_another_teacher_is_waited_for(store: Store) -> None:
    request = ask("q", max_tokens=100)
    most = bound(request, PRICE, batched=True)
    ledger = Ledger(PRICE, 1.5 * most, batched=True)
    other = ledger.beside(PRICE)
    assert other.reserve(request)
    waits = Counter[str]()

    async def sleep(_: float) -> None:
        waits["all"] += 1
        if waits["all"] == 3:
            other.settle(request, TeacherError("permanent", "refused"))

    with FaultServer(answers, batches=[AT_ONCE]) as server:
        assert run([request], server, store, ledger=ledger, max_cost_usd=1.5 * most, sleep=sleep).answered == 1
    assert waits["all"] == 3


@pytest.mark.parametrize(
    ("refused", "spends"), [("POST /v1/files", 0), ("POST /v1/batches", 0), ("GET /v1/batches/", 2)]
)
def test_money_is_held_for_no_batch_that_a_run_leaves(store: Store, refused: str, spends: int) -> None:
    requests = [ask(f"q{n}", max_tokens=100) for n in range(2)]
    ledger = Ledger(PRICE, 9.0, batched=True)

    def control(action: str, number: int) -> Reply | None:
        return fault(401) if action.startswith(refused) and len(action) < len(refused) + 20 else None

    with FaultServer(answers, control=control) as server, pytest.raises(TeacherUnavailable, match="key refused"):
        run(requests, server, store, ledger=ledger, max_cost_usd=9.0)
    # A batch that was created goes on, and will be paid for.
    assert ledger.spent == pytest.approx(spends * bound(requests[0], PRICE, batched=True))
    assert (ledger.reserved, ledger.lost) == (0, 0)


def test_a_request_of_another_address_leaves_nothing_set_aside(store: Store) -> None:
    with FaultServer(answers) as first, FaultServer(answers) as second:
        with pytest.raises(Killed):
            run(asks(1), first, store, sleep=killed_at(1))
        ledger = Ledger(PRICE, None, batched=True)
        with pytest.raises(UserError, match="holds requests of this run"):
            run([ask("q1"), ask("q0")], second, store, ledger=ledger)
    assert (ledger.reserved, ledger.spent) == (0, 0)


def test_an_earlier_batch_above_the_cap_that_expires_is_submitted_below_it(store: Store) -> None:
    requests = asks(4)
    one = bound(requests[0], PRICE, batched=True)
    nothing = BatchScript(waits=("in_progress",), end="expired", answered=0.0)
    with FaultServer(answers, batches=[nothing, AT_ONCE]) as server:
        with pytest.raises(Killed):
            run(requests[:3], server, store, sleep=killed_at(1))
        ledger = Ledger(PRICE, 1.2 * one, batched=True)
        # Another run that waits for ever ends as if it were killed.
        report = run(requests, server, store, sleep=killed_at(50), ledger=ledger, max_cost_usd=1.2 * one)
    assert report.answered == 4
    assert (ledger.reserved, ledger.spent) == (0, pytest.approx(4 * (7 * 0.5 + 3 * 1.0) / 1e6))


def test_a_result_that_an_earlier_batch_above_the_cap_lacks_counts_as_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(asks(2), server, store, sleep=killed_at(1))

        async def nothing(*_: Any) -> AsyncIterator[Any]:
            for line in ():
                yield line

        monkeypatch.setattr(BatchEndpoint, "results", nothing)
        ledger = Ledger(PRICE, 1e-9, batched=True)
        assert run(asks(2), server, store, ledger=ledger, max_attempts=1).failed == 2
    assert ledger.own_lost == ledger.spent == pytest.approx(2 * bound(ask("q0"), PRICE, batched=True))


@pytest.mark.parametrize("is_over", [True, False])
def test_what_another_process_does_before_this_one_asks_is_seen(store: Store, is_over: bool) -> None:
    ledger = Ledger(PRICE, None, batched=True)

    async def later(server: FaultServer) -> CollectReport:
        how = CollectSettings(mode="batch", batch_size=3)
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        collection = collection_of(teacher, store, how, None, ledger, sleep=Waits())
        return await collection.collect(others_first(server))

    async def others_first(server: FaultServer) -> AsyncIterator[list[Request]]:
        await asyncio.to_thread(another, server)
        yield asks(4)

    def another(server: FaultServer) -> None:
        with Store(store.path) as other:
            if is_over:
                run(asks(3), server, other)
            else:
                with pytest.raises(Killed):
                    run(asks(3), server, other, sleep=killed_at(1))

    with FaultServer(answers) as server:
        if is_over:
            with pytest.raises(Killed):
                run(asks(3), server, store, sleep=killed_at(1))
        asyncio.run(later(server))
        assert submitted(server) == [["q0", "q1", "q2"], ["q3"]]
    assert records(store) == []
    assert ledger.reserved == 0


def test_what_earlier_batches_will_cost_is_set_aside_before_anybody_asks(store: Store) -> None:
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(asks(3), server, store, sleep=killed_at(1))
        ledger = Ledger(PRICE, None, batched=True)
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url))
        collection_of(teacher, store, CollectSettings(mode="batch"), None, ledger)
    assert ledger.reserved == pytest.approx(3 * bound(ask("q0"), PRICE, batched=True))


def test_what_the_other_mode_answered_meanwhile_is_not_waited_for(store: Store) -> None:
    with FaultServer(answers) as server:
        with pytest.raises(Killed):
            run(asks(2), server, store, sleep=killed_at(1))
        run(asks(2), server, store, mode="online")
        assert run(asks(3), server, store).answered == 1
        assert (records(store), submitted(server)) == ([], [["q0", "q1"], ["q2"]])


def test_the_key_stands_in_no_record_error_or_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret-1234")
    keyed = OpenAIConfig(model="m", api_key_env="A_KEY")
    repeats = fault(400, "Incorrect API key provided: sk-secret-1234")
    is_down = [True]

    def control(action: str, number: int) -> Reply | None:
        return repeats if is_down[0] and action.startswith("GET /v1/batches/") else None

    server = FaultServer(lambda asked: repeats, key="sk-secret-1234", control=control)
    with server, caplog.at_level("DEBUG"):
        for is_down[0] in (True, False):
            teacher = OpenAITeacher(keyed.model_copy(update={"base_url": server.url}))
            with suppress(TeacherUnavailable):
                run(asks(2), server, store, teacher=teacher)
            if is_down[0]:
                assert records(store)
            everything = b"".join(path.read_bytes() for path in store.path.parent.rglob("*") if path.is_file())
            assert b"sk-secret-1234" not in everything
    assert store.failure(ask("q0")) == "HTTP 400: Incorrect API key provided: [key]"
    assert "sk-secret-1234" not in caplog.text


COLLECTOR = """
import asyncio, sys
import toolkit.batches
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.openai_batches import BatchEndpoint
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request, Sampling
toolkit.batches._SETTLE_S = 0.01
requests = [Request("m", (("user", f"q{n}"),), Sampling()) for n in range(6)]
teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=sys.argv[1]))
settings = CollectSettings(mode="batch", batch_size=2, poll_seconds=0.01, max_failure_rate=1.0)
asyncio.run(collect(requests, teacher, Store(sys.argv[2]), settings))
"""


@pytest.mark.slow
def test_kill_9_submits_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    path = tmp_path / "s.sqlite"
    moments = [("POST /v1/batches", 2), ("/content", 1)]  # as the second batch is created, and as results are sent
    fatal: list[tuple[str, int] | None] = [None]
    running: list[subprocess.Popen[bytes]] = []

    def control(action: str, number: int) -> Reply | None:
        if fatal[0] and action.endswith(fatal[0][0]) and number >= fatal[0][1]:
            running[-1].send_signal(signal.SIGKILL)
        return None

    with FaultServer(answers, control=control) as server:
        ends = []
        for fatal[0] in [*moments, None]:
            running.append(subprocess.Popen([sys.executable, "-c", COLLECTOR, server.url, str(path)]))
            ends.append(running[-1].wait(timeout=120))
        assert ends == [-signal.SIGKILL] * 2 + [0]
        assert server.asked_per_prompt() == {f"q{n}": 1 for n in range(6)}
        assert watch.faults == []
    with Store(path) as store:
        assert [store.standing(request) for request in asks(6)] == ["answered"] * 6
        assert records(store) == []
