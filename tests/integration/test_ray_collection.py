"""`--engine ray` on a cluster of two nodes on this machine, one worker each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openai_loopback import Ask, Loopback, Reply, completion
from toolkit.collect import CollectReport, CollectSettings, collect_rounds
from toolkit.ray_collection import collect_over_ray, ray_cluster
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.openai_compatible import OpenAIConfig
from toolkit.teachers.protocol import Request

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

KEY = "sk-never-to-be-seen-7391"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
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
                yield
        finally:
            two.shutdown()


def requests(number: int) -> list[Request]:
    return [Request("m", (("user", f"question {n}"),)) for n in range(number)]


def answer(ask: Ask) -> Reply:
    return completion(f"answer to {ask.prompt}")


@pytest.mark.usefixtures("cluster")
def test_two_workers_bring_in_what_one_machine_would(tmp_path: Path) -> None:
    rounds = [requests(40), requests(60) + requests(3)]
    settings = CollectSettings(concurrency=8)
    with Loopback(answer) as server, Store(tmp_path / "here.db") as here, Store(tmp_path / "ray.db") as there:
        teacher = OpenAIConfig(model="m", base_url=server.url)
        alone = asyncio.run(collect_rounds(rounds, make_teacher(teacher), here, settings))
        together = collect_over_ray(rounds, teacher, there, settings)
        assert set(server.asked_per_prompt().values()) == {2}
        assert there.digest_of(requests(60)) == here.digest_of(requests(60))
    assert together == alone == CollectReport(60, 60, 43, 0, 420, 180)
