"""Puts what became of requests into a store while others are asked: durable, in few commits, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from toolkit.errors import UserError
from toolkit.store import Store
from toolkit.teachers.protocol import Completion, Request, TeacherError

Outcome = Completion | TeacherError

_LONGEST_LIST = 10


class Writer:
    """Puts outcomes into the store from one thread of its own: at once, all that came while it wrote those before.

    So a slow disk makes transactions larger, and never holds up the event loop. Where writing fails, the run is
    stopped, and what was answered is tried once more at its end.

    Args:
        store: Where they go.
        written: Told about each outcome that is on disk.
        stop: Told to stop the run, with what makes its error.
    """

    def __init__(
        self,
        store: Store,
        written: Callable[[Request, Outcome], None],
        stop: Callable[[Callable[[], Exception]], None],
    ) -> None:
        self._store, self._written, self._stop = store, written, stop
        self._thread = ThreadPoolExecutor(1, "store")
        self._unsaved: list[tuple[Request, Outcome]] = []
        self._saved: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._fault: Exception | None = None  # the first one

    def save(self, request: Request, outcome: Outcome) -> Awaitable[None]:
        """Return when the outcome is on disk, or the run is stopped because it cannot be."""
        self._unsaved.append((request, outcome))
        if self._saved is None:
            self._saved = asyncio.get_running_loop().create_future()
        saved = self._saved
        if self._fault is not None:  # nobody writes any more, but at the end
            self._release(saved)
            self._saved = None
        elif self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return saved

    async def drain(self) -> None:
        """Return when everything is on disk; what cannot be is named by the error that ends the run."""
        if self._writing is not None:
            await self._writing
        if self._unsaved:
            await self._write()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unsaved:
            outcomes, saved = self._unsaved, self._saved
            self._unsaved, self._saved = [], None
            try:
                await loop.run_in_executor(self._thread, _put, self._store, outcomes)
            except Exception as fault:
                self._unsaved = [*outcomes, *self._unsaved]
                self._fault = self._fault or fault
                self._stop(self._cannot_write)
                self._release(self._saved)  # of those that came meanwhile
                self._saved = None
                break
            finally:
                self._release(saved)
            for request, outcome in outcomes:
                self._written(request, outcome)
        self._writing = None

    @staticmethod
    def _release(saved: asyncio.Future[None] | None) -> None:
        """Have those go on who wait for it."""
        if saved is not None and not saved.done():  # done where they were cancelled
            saved.set_result(None)

    def _cannot_write(self) -> Exception:
        assert self._fault is not None
        if not isinstance(self._fault, UserError) or not self._unsaved:
            return self._fault
        names = [request.digest[:12] for request, _ in self._unsaved]
        more = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
        return UserError(
            f"{self._fault}. {len(names)} outcomes could not be written and are lost, those of the requests "
            f"{', '.join(names[:_LONGEST_LIST])}{more}"
        )


def _put(store: Store, outcomes: list[tuple[Request, Outcome]]) -> None:
    answers = [(request, outcome) for request, outcome in outcomes if isinstance(outcome, Completion)]
    if answers:
        store.put_many(answers)
    for request, outcome in outcomes:
        if isinstance(outcome, TeacherError):
            store.put_failure(request, outcome.reason, permanent=outcome.kind == "permanent")
