"""Several servers as one teacher, and several teachers as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.collect import TeacherUnavailable, collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher
from toolkit.teachers.openai_compatible import OpenAIConfig, Unreachable
from toolkit.teachers.pool import Pool
from toolkit.teachers.protocol import Completion, Request, TeacherError
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import completion, fault

DOWN = Unreachable("retry", "connection failed: refused")
BROKEN = TeacherError("retry", "HTTP 500")


def ask(question: str, sample_index: int = 0, model: str = "m") -> Request:
    return Request(model, (("user", question),), sample_index=sample_index)


class Server:
    """Stands for one server: answers when it is let, or fails as it is told to."""

    model = "m"

    def __init__(self, name: str) -> None:
        self.address = name
        self.fault: TeacherError | None = None
        self.came: list[Request] = []
        self.checks = 0
        self.lets_answer = asyncio.Event()
        self.lets_answer.set()

    async def complete(self, request: Request) -> Completion:
        self.came.append(request)
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        await self.lets_answer.wait()
        return Completion(self.address)

    async def check(self) -> None:
        self.checks += 1
        if isinstance(self.fault, Unreachable):
            raise Unreachable("fatal", f"{self.address} cannot be reached")

    async def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pool_of(number: int, clock: Clock | None = None) -> tuple[Pool, list[Server]]:
    servers = [Server(f"server {n}") for n in range(number)]
    return Pool(servers, clock or Clock()), servers  # type: ignore[arg-type]


def in_loop(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_samples_of_a_prompt_go_to_one_server_and_prompts_are_spread() -> None:
    async def test() -> None:
        pool, servers = pool_of(3)
        for question in range(30):
            for sample in range(2):
                await pool.complete(ask(f"question {question}", sample))
        assert sum(len(server.came) for server in servers) == 30 * 2
        for server in servers:
            assert len(server.came) > 6
            asked = [request.messages for request in server.came]
            assert all(asked.count(messages) == 2 for messages in asked)

    in_loop(test)


def test_a_server_with_more_to_do_is_asked_no_more_than_the_others() -> None:
    async def test() -> None:
        pool, servers = pool_of(2)
        for server in servers:
            server.lets_answer.clear()
        waiting = [asyncio.create_task(pool.complete(ask("always the same", n))) for n in range(40)]
        await asyncio.sleep(0.01)
        counts = sorted(len(server.came) for server in servers)
        assert sum(counts) == 40
        assert counts[1] <= 1.25 * counts[0] + 3
        for server in servers:
            server.lets_answer.set()
        await asyncio.gather(*waiting)

    in_loop(test)


def test_a_server_that_is_down_fails_no_request_and_is_left_alone_for_a_while() -> None:
    async def test() -> None:
        clock = Clock()
        pool, servers = pool_of(2, clock)
        servers[0].fault = DOWN
        said = [await pool.complete(ask(f"question {n}")) for n in range(20)]
        assert {completion.text for completion in said} == {"server 1"}
        assert len(servers[0].came) == 1
        servers[0].fault = None
        clock.now = 4.9
        await pool.complete(ask("before its rest is over"))
        assert (len(servers[0].came), servers[0].checks) == (1, 0)
        clock.now = 5.0
        for n in range(40):
            await pool.complete(ask(f"afterwards {n}"))
        assert servers[0].checks == 1, "it is asked for its health, and not with a request"
        assert len(servers[0].came) > 10
        await pool.close()

    in_loop(test)


def test_a_server_that_stays_down_is_asked_for_its_health_now_and_then() -> None:
    async def test() -> None:
        clock = Clock()
        pool, servers = pool_of(2, clock)
        servers[0].fault = DOWN
        for second in range(21):
            clock.now = float(second)
            for n in range(10):
                await pool.complete(ask(f"question {n}"))
        assert (len(servers[0].came), servers[0].checks) == (1, 4)
        await pool.close()

    in_loop(test)


def test_a_server_that_only_fails_does_not_draw_all_requests() -> None:
    async def test() -> None:
        pool, servers = pool_of(2)
        servers[0].fault = BROKEN
        for n in range(50):
            await asyncio.gather(pool.complete(ask(f"question {n}")), return_exceptions=True)
        assert (len(servers[0].came), len(servers[1].came)) == (3, 47)

    in_loop(test)


def test_three_failures_in_a_row_rest_a_server_and_an_answer_between_them_does_not() -> None:
    async def test() -> None:
        pool, (server,) = pool_of(1)
        for fault_ in (BROKEN, BROKEN, None, BROKEN, BROKEN):
            server.fault = fault_
            await asyncio.gather(pool.complete(ask("q")), return_exceptions=True)
        assert server.checks == 0
        await asyncio.gather(pool.complete(ask("q")), return_exceptions=True)
        server.fault = None
        assert (await pool.complete(ask("q"))).text == "server 0", (
            "the only one there is is asked for its health at once"
        )
        assert server.checks == 1

    in_loop(test)


def test_all_servers_down_is_fatal_and_names_them() -> None:
    async def test() -> None:
        pool, servers = pool_of(2)
        for server in servers:
            server.fault = DOWN
        with pytest.raises(TeacherError, match=r"none of 2 servers.*server 0: server 0 cannot.*server 1") as told:
            await pool.complete(ask("q"))
        assert told.value.kind == "fatal"
        with pytest.raises(TeacherError, match="none of 2 servers"):
            await pool.check()
        servers[1].fault = None
        await pool.check()
        assert (await pool.complete(ask("q"))).text == "server 1"

    in_loop(test)


def test_a_failure_of_the_request_itself_is_passed_on_and_rests_nobody() -> None:
    async def test() -> None:
        pool, servers = pool_of(1)
        servers[0].fault = TeacherError("permanent", "HTTP 400")
        for _ in range(5):
            with pytest.raises(TeacherError, match="HTTP 400"):
                await pool.complete(ask("q"))
        assert len(servers[0].came) == 5

    in_loop(test)


def pool_config(*servers: FaultServer) -> OpenAIConfig:
    return OpenAIConfig(model="m", base_url=tuple(server.url for server in servers), api_key_env="NO_KEY")


def test_a_recipe_s_servers_share_its_requests(tmp_path: Path) -> None:
    with (
        FaultServer(lambda _: completion("one")) as one,
        FaultServer(lambda _: completion("two")) as two,
        Store(tmp_path / "s.db") as store,
    ):
        teacher = make_teacher(pool_config(one, two))
        requests = [ask(str(n)) for n in range(60)]
        report = asyncio.run(collect(requests, teacher, store, CollectSettings(concurrency=8)))
        assert report.answered == 60
        assert min(len(one.asks), len(two.asks)) > 15
        assert (one.models_seen, two.models_seen) == (1, 1)


def test_a_server_that_dies_fails_no_request(tmp_path: Path) -> None:
    with FaultServer(lambda _: completion("two")) as two, Store(tmp_path / "s.db") as store:
        with FaultServer(lambda _: completion("one")) as one:
            teacher = make_teacher(pool_config(one, two))
            asyncio.run(teacher.check())
            asyncio.run(teacher.close())
        requests = [ask(str(n)) for n in range(20)]

        async def collected() -> int:
            return (await collect(requests, teacher, store, CollectSettings(max_attempts=1))).answered

        assert asyncio.run(collected()) == 20
        assert len(two.asks) == 20


def test_a_key_that_one_server_refuses_ends_the_run(tmp_path: Path) -> None:
    with (
        FaultServer(lambda _: completion("one")) as one,
        FaultServer(lambda _: completion("two"), models=fault(401)) as two,
        Store(tmp_path / "s.db") as store,
        pytest.raises(TeacherUnavailable, match="key refused"),
    ):
        asyncio.run(collect([ask("q")], make_teacher(pool_config(one, two)), store, CollectSettings()))
