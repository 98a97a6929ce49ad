"""Every fault of the fault server, alone and mixed: rows are answered or named as failed, none is asked too often."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.collect import CostCapReached, collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.spending import Ledger
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Completion, Request, Sampling
from toolkit.testing.fault_server import FaultServer, Limits
from toolkit.testing.replies import FAULTS, Ask, echo, scripted

pytestmark = pytest.mark.slow

ATTEMPTS = 4
WAITED_FOR = {"hang", "slow"}  # only the client's timeout ends these


def asks(number: int) -> list[Request]:
    return [Request("m", (("user", f"question {n}"),), Sampling(max_tokens=64)) for n in range(number)]


async def no_wait(_: float) -> None:
    await asyncio.sleep(0)


def run(
    server: FaultServer,
    store: Store,
    requests: list[Request],
    timeout: float = 60.0,
    ledger: Ledger | None = None,
    **more: Any,
) -> CollectReport:
    settings = CollectSettings(**{"max_attempts": ATTEMPTS, "max_failure_rate": 1.0, "concurrency": 16, **more})
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, api_key_env="NO_KEY", timeout=timeout))
    return asyncio.run(collect(requests, teacher, store, settings, ledger=ledger, sleep=no_wait, rng=random.Random(0)))


def said(request: Request) -> str:
    """What the server's default answer to a request is."""
    content = {"messages": [{"role": "user", "content": request.messages[0][1]}]}
    return echo(Ask(json.dumps(content).encode(), {}, 1, 1))


def check_every_row(server: FaultServer, store: Store, requests: list[Request], report: CollectReport) -> None:
    """Each row has its own answer or a reason; no row was asked more than its tries; the report counts the same."""
    answers = [store.get(request) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        if answer is None:
            assert store.failure(request)
        else:
            assert answer.text == said(request)
    answered = sum(answer is not None for answer in answers)
    assert (report.answered, report.failed) == (answered, len(requests) - answered)
    assert len(server.usage) == len(requests)
    assert max(usage.arrived for usage in server.usage.values()) <= ATTEMPTS
    assert report.completion_tokens <= server.total().completion_tokens


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone_leaves_no_row_without_answer_or_reason(tmp_path: Path, name: str, share: float) -> None:
    timeout = 0.4 if name in WAITED_FOR else 60.0
    requests = asks(20 if share < 1 else 4)
    with FaultServer(scripted(faults={name: share}, seed=1)) as server, Store(tmp_path / "s.db") as store:
        report = run(server, store, requests, timeout)
        check_every_row(server, store, requests, report)
        if share == 1.0:
            assert report.answered == (4 if name == "same-id" else 0)


@pytest.mark.parametrize("total", [0.2, 0.9])
def test_all_faults_mixed_leave_no_row_without_answer_or_reason(tmp_path: Path, total: float) -> None:
    requests = asks(60)
    script = scripted(faults=dict.fromkeys(FAULTS, total / len(FAULTS)), seed=2)
    with FaultServer(script) as server, Store(tmp_path / "s.db") as store:
        report = run(server, store, requests, timeout=0.25)
        check_every_row(server, store, requests, report)
        first = server.requests_seen
        # What ran out of tries is asked again, what is answered is not.
        again = run(server, store, requests, timeout=0.25)
        assert (again.cached, again.asked) == (report.answered, report.failed)
        assert server.requests_seen - first <= report.failed * ATTEMPTS


def test_a_limited_server_answers_every_row_in_the_end(tmp_path: Path) -> None:
    requests = asks(60)
    with FaultServer(limits=Limits(rpm=6000, burst=0.1)) as server, Store(tmp_path / "s.db") as store:
        settings = CollectSettings(concurrency=16, max_attempts=100, backoff=0.05)
        teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, api_key_env="NO_KEY"))
        report = asyncio.run(collect(requests, teacher, store, settings))
        assert (report.answered, report.failed) == (60, 0)
        assert {usage.answered for usage in server.usage.values()} == {1}


def test_rows_asked_again_are_only_the_new_one(tmp_path: Path) -> None:
    with FaultServer(scripted(faults={"500": 0.2, "reset": 0.2})) as server, Store(tmp_path / "s.db") as store:
        run(server, store, asks(30), max_attempts=50)
        first = server.requests_seen
        run(server, store, asks(30), max_attempts=50)
        assert server.requests_seen == first
        run(server, store, asks(31), max_attempts=50)
        assert {ask.prompt for ask in server.asks[first:]} == {"question 30"}


def test_a_wrong_key_is_found_before_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_KEY", "sk-wrong")
    with FaultServer(key="sk-right") as server, Store(tmp_path / "s.db") as store:
        with pytest.raises(UserError, match="key refused"):
            run(server, store, asks(3))
        assert server.requests_seen == 0


@pytest.mark.parametrize("total", [0.0, 0.6])
def test_the_server_bills_no_more_than_the_cap(tmp_path: Path, total: float) -> None:
    price, cap = Price(input=1000, output=10_000), 30.0
    # Answers as long as they may be, and lost ones are billed too: nothing that the server does is below the bound.
    script = scripted(lambda ask: "word " * 200, dict.fromkeys(FAULTS, total / len(FAULTS)), seed=3)
    with FaultServer(script) as server, Store(tmp_path / "s.db") as store:
        # One that came to its end: a run whose answers are all cut would be stopped for that.
        earlier = asks(1)[0]
        store.put(replace(earlier, messages=(("user", "earlier"),)), Completion("2"))
        ledger = Ledger(price, cap)
        with pytest.raises(CostCapReached, match="30"):
            run(server, store, asks(100), timeout=0.25, ledger=ledger, max_cost_usd=cap)
        bill = server.total()
        billed = (bill.prompt_tokens * price.input + bill.completion_tokens * price.output) / 1e6
        assert 0.5 * cap < billed <= ledger.spent <= cap
        assert store.stats().completions - 1 == bill.answered > 0
