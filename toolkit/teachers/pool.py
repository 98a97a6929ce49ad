"""Several servers of one model as one teacher: one vLLM per GPU, for example.

A request goes where requests of the same messages went before, so that the server's prefix cache is hit, unless that
server has clearly more to do than another one. A server that is down is left alone for a while and fails no request.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Sequence

from toolkit.teachers.openai_compatible import OpenAITeacher, Unreachable
from toolkit.teachers.protocol import Completion, Request, TeacherError

_REST_S = 5.0
_FAULTS_IN_A_ROW = 3  # a server that fails at once always has the fewest in flight, and would draw every request


class _Server:
    """One of the servers: what it has to do, and whether it is left alone."""

    def __init__(self, teacher: OpenAITeacher) -> None:
        self.teacher = teacher
        self.in_flight = 0
        self.faults = 0
        self.rests_until: float | None = None
        self.probe: asyncio.Task[None] | None = None
        self.reason = ""


class Pool:
    """Sends each request to one of several servers.

    Attributes:
        kind: `openai`.
        model: Model name that requests carry; the same at every server.
    """

    kind = "openai"

    def __init__(self, teachers: Sequence[OpenAITeacher], clock: Callable[[], float] = time.monotonic) -> None:
        self.model = teachers[0].model
        self._servers = [_Server(teacher) for teacher in teachers]
        self._clock = clock

    async def complete(self, request: Request) -> Completion:
        """Answer one request; a server that cannot be reached passes it on.

        Raises:
            TeacherError: As the server that was asked says; `fatal`, where no server can be reached.
        """
        while True:
            server = self._choose(request) or await self._revive()
            server.in_flight += 1
            try:
                completion = await server.teacher.complete(request)
            except Unreachable as error:  # it never saw the request
                self._rest(server, error)
            except TeacherError as error:
                server.faults += error.kind == "retry"
                if server.faults >= _FAULTS_IN_A_ROW:
                    self._rest(server, error)
                raise
            else:
                server.faults = 0
                return completion
            finally:
                server.in_flight -= 1

    async def check(self) -> None:
        """Check every server; those that cannot be reached are left alone for now.

        Raises:
            TeacherError: `fatal`, where no server can be reached, or one of them refuses the key.
        """
        await asyncio.gather(*(self._check(server) for server in self._servers))
        if all(server.rests_until is not None for server in self._servers):
            raise self._all_down()

    async def close(self) -> None:
        """Release all connections."""
        for server in self._servers:
            if server.probe is not None:
                server.probe.cancel()
                server.probe = None
            await server.teacher.close()

    def _choose(self, request: Request) -> _Server | None:
        for server in self._servers:
            if server.rests_until is not None and self._clock() >= server.rests_until and server.probe is None:
                server.probe = asyncio.create_task(self._probe(server))
        awake = [server for server in self._servers if server.rests_until is None]
        if not awake:
            return None
        least = min(awake, key=lambda server: server.in_flight)
        familiar = self._servers[zlib.crc32(repr(request.messages).encode()) % len(self._servers)]
        is_crowded = familiar.in_flight > 1.25 * least.in_flight + 2
        return least if familiar.rests_until is not None or is_crowded else familiar

    async def _revive(self) -> _Server:
        """Ask all servers now, as none is left, and return one that answers."""
        await asyncio.gather(*(self._probe(server) for server in self._servers))
        awake = [server for server in self._servers if server.rests_until is None]
        if not awake:
            raise self._all_down()
        return min(awake, key=lambda server: server.in_flight)

    async def _probe(self, server: _Server) -> None:
        try:
            await self._check(server)
        except TeacherError as error:
            self._rest(server, error)
        finally:
            server.probe = None

    async def _check(self, server: _Server) -> None:
        try:
            await server.teacher.check()
        except Unreachable as error:
            self._rest(server, error)
        else:
            server.rests_until = None
            server.faults = max(0, server.faults - 1)  # one that failed in a row is on trial

    def _rest(self, server: _Server, error: TeacherError) -> None:
        server.rests_until = self._clock() + _REST_S
        server.reason = error.reason

    def _all_down(self) -> TeacherError:
        reasons = "; ".join(dict.fromkeys(f"{server.teacher.address}: {server.reason}" for server in self._servers))
        return TeacherError("fatal", f"none of {len(self._servers)} servers can be reached ({reasons})")
