"""`--engine ray` on a cluster of two nodes, both on this machine and with one worker each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from toolkit import ray_verdicts
from toolkit.cli import open_recipe
from toolkit.collect import collection_of, one_by_one
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.pipeline import build
from toolkit.prices import Price
from toolkit.ray_collection import collect_over_ray, ray_cluster
from toolkit.spending import Ledger
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.openai_compatible import OpenAIConfig
from toolkit.teachers.protocol import Completion, Request, Sampling
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import RESET, Ask, Reply, completion, fault

pytestmark = pytest.mark.slow

KEY = "sk-never-to-be-seen-7391"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a head with one CPU and a second node with another; nothing of them is left behind."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("OPENAI_API_KEY", KEY)
        node = {"num_cpus": 1, "object_store_memory": 100_000_000}
        two = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            two.add_node(**node)
            patched.setenv("RAY_ADDRESS", two.address)
            with ray_cluster():
                yield two
        finally:
            two.shutdown()


def asks(first: int, last: int) -> list[Request]:
    return [Request("m", (("user", f"question {n}"),)) for n in range(first, last)]


def answer(ask: Ask) -> Reply:
    return completion(f"answer to {ask.prompt}")


def kill_a_worker(url: str) -> None:
    """Kill one of the processes that are connected to a server, other than this one."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(
                connection.raddr and connection.raddr.port == urlsplit(url).port
                for connection in process.net_connections(kind="tcp")
            ):
                os.kill(process.pid, signal.SIGKILL)
                return
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    raise AssertionError("no worker is connected")


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_no_stored_answer_and_the_store_is_that_of_one_machine(tmp_path: Path) -> None:
    rounds = [[*asks(0, 160), *asks(0, 3)]]
    settings = CollectSettings(concurrency=8)
    path = tmp_path / "ray.sqlite"
    kept: list[str] = []

    def answer_and_kill_once(ask: Ask) -> Reply:
        if ask.number == 60:
            kill_a_worker(server.url)
            with Store(path, read_only=True) as reader:
                kept.extend(r.messages[0][1] for r in asks(0, 160) if reader.standing(r) == "answered")
        return answer(ask)

    with FaultServer(answer_and_kill_once) as server, Store(path) as store:
        report = collect_over_ray(rounds, OpenAIConfig(model="m", base_url=server.url), store, settings)
        together = [store.get(request) for request in asks(0, 160)]
    asked = server.asked_per_prompt()
    assert len(kept) > 30
    assert {asked[prompt] for prompt in kept} == {1}
    assert len(asked) == 160
    assert asked.total() <= 160 + 4  # what the killed worker had in flight
    assert report == CollectReport(160, 160, 3, 0, 1120, 480)

    with FaultServer(answer) as server, Store(tmp_path / "local.sqlite") as store:
        teacher = make_teacher(OpenAIConfig(model="m", base_url=server.url))
        collection = collection_of(teacher, store, settings)
        asyncio.run(collection.collect(one_by_one(rounds)))
        assert together == [store.get(request) for request in asks(0, 160)]


def test_a_lost_machine_costs_no_stored_answer(cluster: Any, tmp_path: Path) -> None:
    third = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    kept: list[str] = []

    def answer_and_lose_the_machine(ask: Ask) -> Reply:
        if ask.number == 60:
            cluster.remove_node(third, allow_graceful=False)
            with Store(tmp_path / "s.sqlite", read_only=True) as reader:
                kept.extend(r.messages[0][1] for r in asks(0, 160) if reader.standing(r) == "answered")
        return answer(ask)

    with FaultServer(answer_and_lose_the_machine) as server, Store(tmp_path / "s.sqlite") as store:
        teacher, settings = OpenAIConfig(model="m", base_url=server.url), CollectSettings(concurrency=9)
        assert collect_over_ray([asks(0, 160)], teacher, store, settings) == CollectReport(160, 160, 0, 0, 1120, 480)
        assert all(store.standing(request) == "answered" for request in asks(0, 160))
    asked = server.asked_per_prompt()
    assert len(kept) > 20
    assert {asked[prompt] for prompt in kept} == {1}
    assert asked.total() <= 160 + 3  # what its worker had in flight


DRIVER = """
import sys
from pathlib import Path
from tests.integration.test_ray_collection import asks
from toolkit.collect_settings import CollectSettings
from toolkit.ray_collection import collect_over_ray, ray_cluster
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig

with ray_cluster(), Store(Path(sys.argv[1])) as store:
    teacher = OpenAIConfig(model="m", base_url=sys.argv[2])
    collect_over_ray([asks(0, 160)], teacher, store, CollectSettings(concurrency=8))
"""


@pytest.mark.usefixtures("cluster")
def test_a_killed_driver_costs_no_stored_answer(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    driver: list[subprocess.Popen[bytes]] = []

    def answer_and_kill_once(ask: Ask) -> Reply:
        if ask.number == 60:
            driver[0].kill()
        return answer(ask)

    with FaultServer(answer_and_kill_once) as server:
        driver.append(subprocess.Popen([sys.executable, "-c", DRIVER, str(path), server.url]))
        assert driver[0].wait() == -signal.SIGKILL
        with Store(path) as store:
            stored = [request for request in asks(0, 160) if store.standing(request) == "answered"]
            teacher, settings = OpenAIConfig(model="m", base_url=server.url), CollectSettings(concurrency=8)
            collect_over_ray([asks(0, 160)], teacher, store, settings)
            assert all(store.standing(request) == "answered" for request in asks(0, 160))
    asked = server.asked_per_prompt()
    assert len(stored) > 30
    assert {asked[request.messages[0][1]] for request in stored} == {1}


@pytest.mark.usefixtures("cluster")
def test_a_refused_key_is_named_and_never_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import ray

    with FaultServer(answer, key="another") as server, Store(tmp_path / "s.sqlite") as store:
        teacher = OpenAIConfig(model="m", base_url=server.url)
        with pytest.raises(UserError, match=r"cannot answer.*401") as refused:
            collect_over_ray([asks(0, 20)], teacher, store, CollectSettings())
        assert server.requests_seen == 0
    logs = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1] / "logs"
    texts = [str(refused.value), *capfd.readouterr(), *(f.read_text(errors="replace") for f in logs.rglob("*.*"))]
    assert len(texts) > 10
    assert not any(KEY in text for text in texts)
    assert not any(KEY in " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


@pytest.mark.usefixtures("cluster")
def test_what_was_lost_before_a_worker_had_to_stop_is_counted(tmp_path: Path) -> None:
    def lost_then_refused(ask: Ask) -> Reply:
        return RESET if ask.attempt == 1 else fault(401)

    ledger = Ledger(Price(input=0, output=1e6), None)  # a dollar for every token
    request = Request("m", (("user", "once"),), Sampling(max_tokens=3))
    with FaultServer(lost_then_refused) as server, Store(tmp_path / "s.sqlite") as store:
        teacher, settings = OpenAIConfig(model="m", base_url=server.url), CollectSettings(backoff=0.0)
        with pytest.raises(UserError, match="key refused"):
            collect_over_ray([[request]], teacher, store, settings, ledger=ledger)
        assert server.requests_seen == 2
    assert ledger.own_lost == ledger.spent == 3


@pytest.mark.usefixtures("cluster")
def test_workers_share_a_cap_that_counts_what_the_store_had(tmp_path: Path) -> None:
    def one_token(ask: Ask) -> Reply:
        return completion("yes", usage=(7, 1))

    def rounds() -> list[list[Request]]:
        each = [replace(request, sampling=Sampling(max_tokens=1)) for request in asks(0, 100)]
        return [each[:20], each[20:]]

    settings = CollectSettings(concurrency=8)
    ledger = Ledger(Price(input=0, output=1e6), 31)  # a dollar for every answer
    with FaultServer(one_token) as server, Store(tmp_path / "s.sqlite") as store:
        known = Completion("known", prompt_tokens=7, completion_tokens=1)
        store.put_many((request, known) for request in rounds()[0][:10])
        for billed in store.billed("m"):
            ledger.remember(billed)
        teacher = OpenAIConfig(model="m", base_url=server.url)
        with pytest.raises(UserError, match="max_cost_usd"):
            collect_over_ray(rounds(), teacher, store, settings, ledger=ledger)
        # Of 31 dollars 10 are in the store and 10 go to the first round. Half of the other 11 buys five answers, and
        # whoever begins when the first has ended has its half dollar too.
        assert server.requests_seen in (20, 21)
        assert store.stats().completions == 10 + server.requests_seen
        assert ledger.spent == 10 + server.requests_seen <= 31


PAIRS = [("2x+2", "2(x+1)"), ("2x+1", "2(x+1)"), (r"\frac{2}{4}", r"\frac12"), ("nonsense", r"\pi")]


@pytest.mark.usefixtures("cluster")
def test_a_build_over_ray_judges_mathematics_there_and_publishes_what_a_local_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golds = {f"What is {predicted}, item {n}?": pair for n, pair in enumerate(PAIRS * 2) for predicted in [pair[0]]}
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"q": q, "a": gold}) + "\n" for q, (_, gold) in golds.items()))

    def solve(ask: Ask) -> Reply:
        (predicted,) = {p for q, (p, _) in golds.items() if q in ask.prompt}
        return completion(f"It is plain. Therefore, the answer is {predicted}.")

    monkeypatch.setattr(ray_verdicts, "WORKER", None)  # whoever judges in this process in spite of Ray, fails
    files = {}
    with FaultServer(solve) as server:
        for engine in ("local", "ray"):
            recipe = {
                "recipe": {"name": "r", "version": 1},
                "dataset": {
                    "builder": "teacher_cots",
                    "repo_id": "cots",
                    "revision": "v1.0.0",
                    "config": {
                        "problems": {
                            "source": "jsonl",
                            "path": str(problems),
                            "columns": {"question": "q", "answer": "a"},
                            "kind": "math",
                        },
                        "teacher": {"kind": "openai", "model": "m", "base_url": server.url},
                    },
                },
                "hub_dir": str(tmp_path / engine),
            }
            file = tmp_path / f"{engine}.yaml"
            file.write_text(yaml.safe_dump(recipe))
            build(open_recipe(str(file)), engine=engine)
            published = (tmp_path / engine).rglob("*.parquet")
            files[engine] = {p.relative_to(tmp_path / engine): p.read_bytes() for p in published}
    assert files["ray"] == files["local"] != {}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'cot-distillery\[ray\]'"), ray_cluster():
        pass
