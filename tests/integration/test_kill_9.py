"""`distill build` killed with SIGKILL at fifty moments: what is stored is never asked again, and the data is the same.

The killed processes are forks of one that has imported everything, so that fifty of them take seconds.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_recipe import EDIT, environment, written
from toolkit.store import Store
from toolkit.teachers.procedural import ProceduralConfig
from toolkit.teachers.protocol import Request, Sampling
from toolkit.testing.fault_server import FaultServer
from toolkit.testing.replies import HANG, Ask, Reply, fixed, procedural, scripted

pytestmark = pytest.mark.slow

KILLS_WHILE_ASKING = 50
KILLS_WHILE_BUILDING = 5
CONCURRENCY = 4
MOST_ASKS = 6  # answered before a kill

# Builds the recipe of the first line itself, so that everything is imported and warm, and those of the other lines in a
# fork each. Says for each line its process id at the start and how it ended.
FORKS = """
import os, sys
from toolkit.cli import main
said = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
for number, line in enumerate(sys.stdin):
    child = os.fork() if number else 0
    if number and child == 0:
        os._exit(main(["build", line.strip()]))
    print(child, file=said)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if number else main(["build", line.strip()]), file=said)
"""


class Builds:
    """Starts builds, each in a process of its own."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("wb")
        command = [sys.executable, "-c", FORKS]
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._log, text=True, env=environment()
        )

    def start(self, recipe: Path) -> int:
        """Start a build and return its process id; that of the first one, which cannot be killed, is 0."""
        assert self._parent.stdin is not None
        print(recipe, file=self._parent.stdin, flush=True)
        return int(self._read())

    def wait(self) -> int:
        """Return how the build ended: an exit code, or a negative signal."""
        return int(self._read())

    def close(self) -> None:
        """Let the parent end."""
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=20)
        self._log.close()

    def _read(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


@pytest.fixture
def builds(tmp_path: Path) -> Iterator[Builds]:
    started = Builds(tmp_path / "log")
    yield started
    started.close()


class Killer:
    """A script that answers as the procedural teacher, and kills the asking process at a chosen moment."""

    def __init__(self) -> None:
        self._answer = scripted(procedural(ProceduralConfig()))
        self._moment: int | None = None
        self._asks = 0
        self._delay = 0.0
        self._named = threading.Event()
        self._process = 0

    def aim(self, asks: int | None, delay: float = 0.0) -> None:
        """Answer the next process so many asks, and kill it some seconds after the last one came; never where None."""
        self._named.clear()
        self._moment, self._asks, self._delay = asks, 0, delay

    def name(self, process: int) -> None:
        """Say which process that is; it may have asked already."""
        self._process = process
        self._named.set()

    def __call__(self, ask: Ask) -> Reply:
        self._asks += 1
        if self._asks == self._moment:
            threading.Timer(self._delay, self._kill).start()
        return HANG if self._moment is not None and self._asks > self._moment else self._answer(ask)

    def _kill(self) -> None:
        self._named.wait(20)
        os.kill(self._process, signal.SIGKILL)


def recipe_for(folder: Path, server: FaultServer) -> Path:
    recipe: dict[str, Any] = copy.deepcopy(EDIT)
    recipe["dataset"]["config"].update(
        problems={"source": "procedural", "tasks": ["ordering", "dates"], "n": 110, "n_test": 5, "seed": 0},
        teacher={"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": "NO_KEY"},
        sampling={"seed": 0},  # sent with the sample index added, so that no two requests have the same body
        collect={"concurrency": CONCURRENCY},
    )
    return written(folder, recipe)


def parquet_digests(folder: Path) -> dict[str, str]:
    hub = folder / "hub"
    return {
        str(path.relative_to(hub)): hashlib.sha256(path.read_bytes()).hexdigest() for path in hub.rglob("*.parquet")
    }


def stored(path: Path, asks: Iterable[Ask]) -> set[str]:
    """Digests of those asked for that the store has answers to."""
    with Store(path) as store:
        return {ask.digest for ask in asks if store.standing(request_of(ask.body)) == "answered"}


def request_of(body: dict[str, Any]) -> Request:
    messages = tuple((one["role"], one["content"]) for one in body["messages"])
    stop = tuple(body.get("stop", ()))
    sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], stop, seed=0)
    return Request(body["model"], messages, sampling, sample_index=body["seed"])


def test_kills_cost_only_what_was_in_flight_and_change_no_byte(builds: Builds, tmp_path: Path) -> None:
    rng = random.Random(0)
    killer = Killer()
    with FaultServer(killer, latency=fixed(0.003)) as server:
        whole, recipe = recipe_for(tmp_path / "whole", server), recipe_for(tmp_path / "killed", server)
        builds.start(whole)
        assert builds.wait() == 0, (tmp_path / "log").read_text()
        needed = {ask.digest for ask in server.asks}
        assert len(server.asks) == len(needed)
        server.asks.clear()

        path = tmp_path / "killed/hub/stores/tiny-cots.sqlite"
        kept: set[str] = set()
        for _ in range(KILLS_WHILE_ASKING):
            before = len(server.asks)
            killer.aim(rng.randint(1, MOST_ASKS), rng.uniform(0, 0.01))
            killer.name(builds.start(recipe))
            assert builds.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
            asked = {ask.digest: ask for ask in server.asks[before:]}
            assert not asked.keys() & kept, "what was in the store was asked for again"
            saved = stored(path, asked.values())
            assert len(asked.keys() - saved) <= CONCURRENCY, "more was lost than was in flight"
            kept |= saved
        assert KILLS_WHILE_ASKING < len(kept) < len(needed)

        killer.aim(None)
        for _ in range(KILLS_WHILE_BUILDING):
            process = builds.start(recipe)
            # Any moment will do: what is checked holds whether it comes while asking, while building or too late.
            threading.Timer(rng.uniform(0.2, 2.0), kill_if_there, [process]).start()
            assert builds.wait() in (0, -signal.SIGKILL)
        builds.start(recipe)
        assert builds.wait() == 0, (tmp_path / "log").read_text()
        again = len(server.asks) - len(needed)
        assert {ask.digest for ask in server.asks} == needed
        assert again <= CONCURRENCY * (KILLS_WHILE_ASKING + KILLS_WHILE_BUILDING)
        before = len(server.asks)
        builds.start(recipe)
        assert (builds.wait(), len(server.asks)) == (0, before)
    assert parquet_digests(tmp_path / "killed") == parquet_digests(tmp_path / "whole") != {}


def kill_if_there(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
