"""No server fills the memory of whoever asks it: bodies are read as far as they may go, however well packed."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.recordings import import_recordings
from dataset_builders.settings import Recording
from tests.waits import Waits
from toolkit import problem_files
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.tally import CollectReport
from toolkit.teachers.openai_batches import _lines
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import Reply, completion

TOO_LARGE = "larger than 1 MB, and no more of it was read (teacher.max_response_mb)"


def ask(question: str = "q") -> Request:
    return Request("m", (("user", question),))


def run(server: FaultServer, store: Store, *requests: Request, megabytes: float = 1, **settings: Any) -> CollectReport:
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=server.url, max_response_mb=megabytes))
    chosen = CollectSettings(**{"max_failure_rate": 1.0, "max_attempts": 2, **settings})
    return asyncio.run(collect(requests or [ask()], teacher, store, chosen, sleep=Waits()))


def answer_of(size: int) -> bytes:
    """Return the body of an answer, of so many bytes."""
    rest = len(completion("").body)
    return completion("x" * (size - rest)).body


def packed(body: bytes, how: str) -> Reply:
    content = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "raw deflate": lambda raw: zlib.compress(raw, wbits=-15),
        "members": lambda raw: gzip.compress(raw[: len(raw) // 2]) + gzip.compress(raw[len(raw) // 2 :]),
    }[how](body)
    encoding = {"members": "gzip", "raw deflate": "deflate"}.get(how, how)
    return Reply(content, headers={"Content-Encoding": encoding}, is_answer=True)


@pytest.mark.parametrize("how", ["gzip", "deflate", "raw deflate", "members"])
@pytest.mark.parametrize(("size", "answered"), [(999_999, 1), (1_000_000, 1), (1_000_001, 0), (30_000_000, 0)])
def test_a_packed_answer_is_read_up_to_the_bound(store: Store, how: str, size: int, answered: int) -> None:
    with FaultServer(lambda _: packed(answer_of(size), how)) as server:
        assert run(server, store).answered == answered
        assert server.requests_seen == 1, "asked again it would be as large, and cost as much"
    assert answered or TOO_LARGE in (store.failure(ask()) or "")


@pytest.mark.parametrize(("size", "answered"), [(1_000_000, 1), (1_000_001, 0), (5_000_000, 0)])
@pytest.mark.parametrize("mode", ["online", "batch"])
def test_a_plain_answer_is_read_up_to_the_bound(store: Store, mode: str, size: int, answered: int) -> None:
    if mode == "batch":
        size -= 1000 if answered else 0  # the line says more than the answer
    with FaultServer(lambda _: Reply(answer_of(size), is_answer=True)) as server:
        assert run(server, store, mode=mode).answered == answered
        assert server.requests_seen == 1
    assert answered or TOO_LARGE in (store.failure(ask()) or "")


def test_an_encoding_that_was_not_asked_for_is_a_failure(store: Store) -> None:
    reply = Reply(b"\x8b\x00\x80zeros\x03", headers={"Content-Encoding": "br"})
    with FaultServer(lambda _: reply) as server:
        assert run(server, store).failed == 1


def test_broken_packing_is_a_failure(store: Store) -> None:
    reply = Reply(gzip.compress(answer_of(10_000))[:-50], headers={"Content-Encoding": "gzip"})
    with FaultServer(lambda _: reply) as server:
        assert run(server, store).failed == 1


def test_a_large_error_is_told_by_its_beginning(store: Store) -> None:
    error = json.dumps({"error": {"message": "out of order", "more": "x" * 5_000_000}}).encode()
    with FaultServer(lambda _: Reply(error, 400)) as server:
        assert run(server, store).failed == 1
    reason = store.failure(ask()) or ""
    assert "HTTP 400" in reason
    assert "out of order" in reason


def test_a_large_list_of_models_is_none(store: Store) -> None:
    models = Reply(b'{"data": [' + b'{"id": "x"},' * 200_000 + b'{"id": "y"}]}')
    with FaultServer(lambda _: completion("2"), models=models) as server:
        assert run(server, store).answered == 1


def test_one_large_line_of_a_batch_fails_alone(store: Store) -> None:
    def script(asked: Any) -> Reply:
        return Reply(answer_of(3_000_000), is_answer=True) if asked.prompt == "large" else completion("2")

    with FaultServer(script) as server:
        report = run(server, store, *map(ask, ("a", "large", "b")), mode="batch")
        assert (report.answered, report.failed, server.requests_seen) == (2, 1, 3)
    assert TOO_LARGE in (store.failure(ask("large")) or "")


def test_results_may_be_larger_than_the_bound_as_a_whole(store: Store) -> None:
    with FaultServer(lambda _: Reply(answer_of(400_000), is_answer=True)) as server:
        assert run(server, store, *(ask(f"q{n}") for n in range(8)), mode="batch").answered == 8


@pytest.mark.parametrize("action", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/batch-1"])
def test_what_the_provider_says_of_a_batch_is_bounded_too(store: Store, action: str) -> None:
    huge = Reply(json.dumps({"id": "x" * 3_000_000}).encode())

    def control(asked: str, number: int) -> Reply | None:
        return huge if asked == action else None

    with FaultServer(lambda _: completion("2"), control=control) as server, pytest.raises(UserError) as told:
        run(server, store, mode="batch")
    assert "larger than 1 MB" in str(told.value)


@pytest.mark.parametrize("status", [200, 500])
def test_what_the_provider_says_of_a_batch_is_not_packed(store: Store, status: int) -> None:
    bomb = Reply(gzip.compress(b"0" * 3_000_000), status, {"Content-Encoding": "gzip"})

    def control(asked: str, number: int) -> Reply | None:
        return bomb if asked == "POST /v1/files" else None

    with FaultServer(lambda _: completion("2"), control=control) as server, pytest.raises(UserError) as told:
        run(server, store, mode="batch")
    assert "packed" in str(told.value)


def test_packed_results_are_read(store: Store) -> None:
    def control(asked: str, number: int) -> Reply | None:
        if not asked.endswith("/content"):
            return None
        content = server._batches._files[asked.split("/")[-2]][1]
        return Reply(gzip.compress(content), headers={"Content-Encoding": "gzip"})

    with FaultServer(lambda _: completion("2"), control=control) as server:
        assert run(server, store, mode="batch").answered == 1


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_they_arrive(cut: int) -> None:
    content = b"ab\n\ncdefgh\n" + b"x" * 30 + b"\nyy\nlast"

    async def lines() -> list[tuple[bytes, bool]]:
        async def pieces() -> Any:
            for start in range(0, len(content), cut):
                yield content[start : start + cut]

        return [line async for line in _lines(pieces(), 10)]

    assert asyncio.run(lines()) == [
        (b"ab", True),
        (b"", True),
        (b"cdefgh", True),
        (b"x" * 10, False),
        (b"yy", True),
        (b"last", True),
    ]


def test_a_recorded_line_without_end_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_files, "LONGEST_LINE", 1_000_000)
    file = tmp_path / "log.jsonl.gz"
    row = json.dumps({"prompt": "q", "completion": "a"}).encode()
    file.write_bytes(gzip.compress(row + b"\n" + b"0" * 5_000_000))
    with pytest.raises(UserError, match=r"log\.jsonl\.gz:2: is longer than 1 MB"):
        import_recordings([Recording(path=str(file))], tmp_path / "s.sqlite")
    assert not (tmp_path / "s.sqlite").exists()


BOMBED = """
import asyncio, resource, sys
from toolkit.collect import collect
from toolkit.collect_settings import CollectSettings
from toolkit.store import Store
from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
from toolkit.teachers.protocol import Request

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def ask(question):
    teacher = OpenAITeacher(OpenAIConfig(model="m", base_url=sys.argv[1]))
    settings = CollectSettings(mode=sys.argv[3], max_attempts=1, max_failure_rate=1.0, poll_seconds=0.01)
    asyncio.run(collect([Request("m", (("user", question),))], teacher, store, settings))

store = Store(sys.argv[2])
ask("small")
before = peak()
ask("bomb")
print(peak() - before, store.failure(Request("m", (("user", "bomb"),))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "batch"])
def test_memory_stays_flat_under_a_bomb(tmp_path: Path, mode: str) -> None:
    # 1 GB in 1 MB: an answer that goes on and on.
    packer = zlib.compressobj(9, wbits=31)
    head = completion("").body.partition(b'"content": "')
    opening = head[0] + head[1]
    line = json.dumps({"custom_id": ask("bomb").digest}).encode()[:-1] + b', "response": {"status_code": 200, "body": '
    parts = [line if mode == "batch" else b"", opening, *[b"x" * 2**20] * 1024]
    bomb = b"".join(packer.compress(part) for part in parts) + packer.flush()
    reply = Reply(bomb, headers={"Content-Encoding": "gzip"})

    def script(asked: Any) -> Reply:
        return reply if asked.prompt == "bomb" and not asked.batched else completion("2")

    def control(action: str, number: int) -> Reply | None:
        is_second = len(server._batches._files) > 2
        return reply if action.endswith("/content") and is_second else None

    with FaultServer(script, control=control) as server:
        command = [sys.executable, "-c", BOMBED, server.url, str(tmp_path / "s.sqlite"), mode]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    grown, _, reason = said.partition(" ")
    assert "larger than 64 MB" in reason
    assert float(grown) < 300, f"{grown} MiB more"


def test_the_bound_is_64_mb_unless_it_is_set() -> None:
    assert OpenAIConfig(model="m").max_response_mb == 64
