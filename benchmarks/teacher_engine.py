"""The teacher engine against the speed of the server, and against a bare aiohttp loop in the same run.

    python benchmarks/teacher_engine.py [--only G1 G2 G5] [--json] [--peer distilabel=PYTHON]

G1: heavy-tailed latencies; wall time over the greedy bound, which is a list scheduling of the same latencies on as many
slots. G2: a fixed latency; rows a second over those of bare aiohttp, which stores nothing, in turns with it. G3: CPU
milliseconds of the client per row of G2. G5: peak memory of many rows over that of few, from an instant server. Each
server is a process of its own and does no more than it must. A peer is asked the same as in G2 by the Python of an
environment that has it.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SLOTS = 128
SEED = 0
COMPLETION = "There are 15 trees at first and 21 in the end, so 21 - 15 = 6 were planted. So the answer is 6."
QUESTION = (
    "There are {} trees in the grove. Workers plant more today, and then there are more. How many did they plant?"
)
MODEL = "served"
BOUNDS = {"G1": "at most 1.05", "G2": "at least 0.45", "G3_ms": "at most 1", "G5": "at most 1.5"}


def latencies(spec: str) -> Iterator[float]:
    """Yield seconds for ever: a fixed number, or `heavy`, log-normal with median 0.5, sigma 1, cut off at 10."""
    rng = random.Random(SEED)
    while True:
        yield min(10.0, rng.lognormvariate(-0.6931, 1.0)) if spec == "heavy" else float(spec)


class _Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as a client with a Content-Length needs: requests come one after another."""

    BODY = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": COMPLETION}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 31, "completion_tokens": 33, "total_tokens": 64},
        }
    ).encode()
    REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

    def __init__(self, waits: Iterator[float]) -> None:
        self._waits = waits
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n")[0] or 0):
            return
        self._received = b""
        wait = 0.0 if head.startswith(b"GET") else next(self._waits)
        asyncio.get_running_loop().call_later(wait, self._transport.write, self.REPLY)


async def serve(spec: str) -> None:
    """Serve until killed; says its port first."""
    waits = latencies(spec)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(waits), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server_of(spec: str) -> Iterator[str]:
    """Start a server in a process of its own and yield its address."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", spec], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


async def ours(url: str, rows: int) -> None:
    """Collect into a store on disk, as `distill build` does."""
    from toolkit.collect import collect
    from toolkit.collect_settings import CollectSettings
    from toolkit.store import Store
    from toolkit.tally import Tally
    from toolkit.teachers.openai_compatible import OpenAIConfig, OpenAITeacher
    from toolkit.teachers.protocol import Request

    def watch(tally: Tally) -> None:
        """Stands for a progress line that has nothing new to show."""

    requests = (Request(MODEL, (("user", QUESTION.format(number)),)) for number in range(rows))
    teacher = OpenAITeacher(OpenAIConfig(model=MODEL, base_url=url, api_key_env="NO_KEY"))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        report = await collect(requests, teacher, store, CollectSettings(concurrency=SLOTS), watch)
    assert report.answered == rows, report


async def bare(url: str, rows: int) -> None:
    """Ask through aiohttp and read the text, and nothing else."""
    import aiohttp

    numbers = iter(range(rows))
    answers = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        for number in numbers:
            message = {"role": "user", "content": QUESTION.format(number)}
            body = {"model": MODEL, "messages": [message], "temperature": 0.2, "top_p": 1.0, "max_tokens": 1024}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                answers += bool((await response.json())["choices"][0]["message"]["content"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(SLOTS)))
    assert answers == rows


def timed(client: Callable[[str, int], Awaitable[None]], url: str, rows: int) -> tuple[float, float]:
    """Return wall and CPU seconds of a run, all threads counted."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    asyncio.run(client(url, rows))  # type: ignore[arg-type]
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def greedy_bound(waits: Sequence[float], slots: int) -> float:
    """Return how long these latencies take where each free slot takes the next one at once."""
    free = [0.0] * slots
    for wait in waits:
        heapq.heappush(free, heapq.heappop(free) + wait)
    return max(free)


def heavy_tail(rows: int) -> dict[str, float]:
    """Measure G1; the modules are imported before."""
    drawn = latencies("heavy")
    bound = greedy_bound([next(drawn) for _ in range(rows)], SLOTS)
    with server_of("0") as url:
        timed(ours, url, SLOTS)
    walls = []
    for client in (ours, bare):
        with server_of("heavy") as url:
            walls.append(timed(client, url, rows)[0])
    return {"G1": walls[0] / bound, "G1_bare": walls[1] / bound, "G1_bound_s": bound}


def peer_rate(name: str, python: str, url: str, rows: int) -> float:
    """Return the rows a second of another project's client, run by a Python that has it."""
    command = [python, str(Path(__file__).with_name("teacher_peers.py")), name, url, str(rows), str(SLOTS)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return rows / float(said.split()[-1])


def throughput(rows: int, turns: int, peers: dict[str, str]) -> dict[str, float]:
    """Measure G2 and G3, in turns, after one short turn that is not counted; then the peers, once."""
    walls: dict[str, list[float]] = {"ours": [], "bare": []}
    cpus: dict[str, list[float]] = {"ours": [], "bare": []}
    with server_of("0.05") as url:
        for client in (ours, bare):
            timed(client, url, SLOTS)
        for _ in range(turns):
            for client in (ours, bare):
                wall, cpu = timed(client, url, rows)
                walls[client.__name__].append(wall)
                cpus[client.__name__].append(cpu)
        others = {f"G2_{name}_rows_per_s": peer_rate(name, python, url, rows) for name, python in peers.items()}
    rates = {name: rows / statistics.median(seconds) for name, seconds in walls.items()}
    milliseconds = {name: statistics.median(seconds) / rows * 1000 for name, seconds in cpus.items()}
    return {
        "G2": rates["ours"] / rates["bare"],
        "G2_rows_per_s": rates["ours"],
        "G2_bare_rows_per_s": rates["bare"],
        "G3_ms": milliseconds["ours"],
        "G3_bare_ms": milliseconds["bare"],
        **others,
    }


def peak_mib(rows: int, url: str) -> float:
    """Collect so many rows in a process of its own and return its peak memory."""
    command = [sys.executable, __file__, "--collect", str(rows), url]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def memory(few: int, many: int) -> dict[str, float]:
    """Measure G5."""
    with server_of("0") as url:
        peaks = peak_mib(few, url), peak_mib(many, url)
    return {"G5": peaks[1] / peaks[0], "G5_few_mib": peaks[0], "G5_many_mib": peaks[1]}


def main() -> None:
    """Measure what is asked for, and print it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", choices=("G1", "G2", "G5"), default=["G1", "G2", "G5"])
    options.add_argument("--json", action="store_true", help="print one JSON object")
    options.add_argument("--heavy-rows", type=int, default=1000, help="rows of G1")
    options.add_argument("--rows", type=int, default=3000, help="rows of G2, a turn")
    options.add_argument("--turns", type=int, default=3, help="turns of G2")
    options.add_argument("--few", type=int, default=1000, help="rows of G5")
    options.add_argument("--many", type=int, default=100_000, help="rows of G5")
    options.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="distilabel")
    options.add_argument("--serve", help=argparse.SUPPRESS)
    options.add_argument("--collect", nargs=2, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve))
        return
    if args.collect:
        asyncio.run(ours(args.collect[1], int(args.collect[0])))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    found: dict[str, float] = {}
    if "G1" in args.only:
        found |= heavy_tail(args.heavy_rows)
    if "G2" in args.only:
        found |= throughput(args.rows, args.turns, dict(peer.split("=", 1) for peer in args.peer))
    if "G5" in args.only:
        found |= memory(args.few, args.many)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<26} {value:10.3f}  {BOUNDS.get(name, '')}")


if __name__ == "__main__":
    main()
