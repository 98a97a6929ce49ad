"""Running the Python that models write: the one place that does, and never in this process.

    from toolkit.programs import Runner, run
    run("ans = 6 * 7")                                  # Outcome(status='ok', value=42.0, milliseconds=6.1, tier=1)
    with Runner() as runner:
        outcomes = list(runner.run_many(sources, variable="answer"))

Programs are taken for hostile. Each one is looked at (`toolkit.program_source`), then run by an interpreter that has
nothing to reach (`toolkit.program_interpreter`), and, only where that lacks a module or a feature, by CPython in a jail
(`toolkit.program_jail`). Where there is no jail, such a program is `unsupported`. docs/programs.md has the contract.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from toolkit import program_jail
from toolkit.program_interpreter import Interpreter
from toolkit.program_outcome import DEFAULT_LIMITS, STATUSES, Limits, Outcome, Value, small_value
from toolkit.program_source import Program, Rejected, prepared

logger = logging.getLogger(__name__)

__all__ = ["DEFAULT_LIMITS", "STATUSES", "TIERS", "Limits", "Outcome", "Runner", "Value", "run"]

# Python 3.11 counts the depth of a syntax tree in one place for all threads: two that parse at once fail (SystemError).
_PARSING = threading.Lock()
TIERS = (1, 2)  # the interpreter; CPython in a jail for what the interpreter lacks


class Runner:
    """Runs many programs, several at a time, in worker processes that are reused; a context manager.

    Args:
        workers: Programs at a time; by default as many as there are processors.
        limits: What each program may use.
        tiers: `(1,)` never starts CPython: a program that needs it is `import` or `unsupported` on every machine.
            `(2,)` runs every program in the jail.
    """

    def __init__(
        self, workers: int | None = None, limits: Limits = DEFAULT_LIMITS, tiers: Sequence[int] = TIERS
    ) -> None:
        self.limits = limits
        self.tiers = tuple(tiers)
        self.workers = workers or os.cpu_count() or 1
        sysconfig.get_config_vars()  # filled at the first call, which must not be made by two threads at once
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="programs")
        self._interpreters: queue.SimpleQueue[Interpreter] = queue.SimpleQueue()
        for _ in range(self.workers):
            self._interpreters.put(Interpreter())

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self.workers):
            self._interpreters.get().close()

    def run_many(self, sources: Iterable[str], variable: str = "ans") -> Iterator[Outcome]:
        """Run all `sources` and yield their outcomes in the same order."""
        return self._threads.map(lambda source: self.run(source, variable), sources)

    def run(self, source: str, variable: str = "ans") -> Outcome:
        """Run one program; safe to call from several threads.

        Args:
            source: The program.
            variable: The name of its result; `solver()` calls the function of that name for it.

        Raises:
            UserError: `variable` is no name. Nothing that the program does raises.
        """
        began = time.perf_counter()
        tier = 0
        found: object = None
        try:
            with _PARSING:
                program = prepared(source, variable, self.limits.source)
        except Rejected as rejection:
            status = rejection.status
        else:
            status = "unsupported"
            if 1 in self.tiers:
                tier = 1
                if not program.doubts.reason:
                    status, found = self._interpreted(program)
            if 2 in self.tiers and status in ("import", "unsupported"):
                tier, (status, found) = 2, _jailed(program, self.limits)
        value = small_value(found, self.limits.output) if status == "ok" else None
        if status == "ok" and value is None:
            status = "no_value"
        return Outcome(status, value, 1000 * (time.perf_counter() - began), tier)

    def _interpreted(self, program: Program) -> tuple[str, object]:
        interpreter = self._interpreters.get()
        try:
            return interpreter.run(program, self.limits)
        finally:
            self._interpreters.put(interpreter)


def _jailed(program: Program, limits: Limits) -> tuple[str, object]:
    reason = program_jail.unavailable()
    if reason:
        _warn_once(reason)
        return "unsupported", None
    return program_jail.run(program, limits)


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning(
        "programs that need CPython (numpy, sympy, ...) count as unsupported, for want of a jail: %s", reason
    )


def run(source: str, variable: str = "ans", limits: Limits = DEFAULT_LIMITS, tiers: Sequence[int] = TIERS) -> Outcome:
    """Run one program, in a process that is started for it and ended after it; `Runner` keeps its processes."""
    with Runner(workers=1, limits=limits, tiers=tiers) as runner:
        return runner.run(source, variable)
