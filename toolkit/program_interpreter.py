"""Tier 1: programs in pydantic-monty, a Python subset without files, environment, network or processes.

The interpreter runs in a process of its own, never in this one: a crash of it costs one program. A worker is reused for
the next program in a fresh session, and replaced when a program used up its time.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

from toolkit.program_outcome import Limits
from toolkit.program_source import Program

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError, MontySession

GRACE = 1.0  # seconds past the limit after which a worker that does not end the program itself is killed
CLOCK = datetime.datetime(2024, 1, 1)  # what every program takes for now
SEED = 0

# What cannot be a value must not reach us as the text of an object, as the interpreter would send it. The names are
# bound before the program runs: many programs call a variable `list` or `str`.
_VALUE_OF = """
def _scalar(found, isinstance=isinstance, type=type, scalars=(bool, int, float, str)):
    return found if isinstance(found, scalars) or type(found).__name__ == "Decimal" else None
def _value_of(found, isinstance=isinstance, lists=(list, tuple)):
    return [_scalar(item) for item in found[:5000]] if isinstance(found, lists) else _scalar(found)
"""
_MISSING = re.compile(r"module '[\w.]+' has no attribute|name '(\w+)' is not defined")


class Interpreter:
    """One worker process, started at the first program; one program at a time."""

    def __init__(self) -> None:
        self._pool: Monty | None = None

    def close(self) -> None:
        """End the worker process, if there is one; the next program starts another."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)

    def run(self, program: Program, limits: Limits) -> tuple[str, object]:
        """Run one program -> (status, what its variable held).

        A worker that dies while it runs is replaced and the program run once more: somebody may have killed the worker.
        """
        from pydantic_monty import MontyCrashedError, MontyError

        for attempt in range(2):
            try:
                status, found = self._run(program, limits)
                break
            except MontyCrashedError as error:
                self.close()
                if error.timed_out:
                    return "timeout", None
                if attempt:
                    return "runtime", None
            except MontyError as error:
                status, found = _status(error), None
                break
            except ValueError:  # an integer of more digits than CPython converts
                status, found = "no_value", None
                break
        if status == "timeout":
            self.close()
        return status, found

    def _run(self, program: Program, limits: Limits) -> tuple[str, object]:
        from pydantic_monty import MontyRuntimeError

        printed = 0

        def count(_stream: str, text: str) -> None:
            nonlocal printed
            printed += len(text)
            if printed > limits.output:
                raise RuntimeError("too much output")

        with self._session(limits) as session:
            session.feed_run(_VALUE_OF, print_callback=count)
            session.feed_run(f"{program.source}\n0", print_callback=count)
            try:
                return "ok", session.feed_run(f"_value_of({program.variable})", print_callback=count)
            except MontyRuntimeError as error:
                if isinstance(error.exception(), NameError):
                    return "no_value", None
                raise

    def _session(self, limits: Limits) -> MontySession:
        from pydantic_monty import Monty

        if self._pool is None:
            self._pool = Monty(max_processes=1, feed_duration_limit_grace=GRACE)
            self._pool.__enter__()
        return self._pool.checkout(
            limits={
                "max_feed_duration_secs": limits.seconds,
                "max_memory": limits.memory,
                "max_recursion_depth": limits.recursion,
                "max_total_sleep_secs": limits.seconds,
            },
            # A sleep returns at once: neither the time limit nor a watchdog would count it.
            os_policy={"sleep": "zero", "datetime": CLOCK, "random_start": {"seed": SEED}},
        )


def _status(error: MontyError) -> str:
    from pydantic_monty import MontySyntaxError

    raised: Any = error.exception()
    if isinstance(error, MontySyntaxError):  # it parsed before: it is Python that the interpreter does not have
        return "unsupported"
    if isinstance(raised, ImportError):
        return "import"
    if isinstance(raised, TimeoutError):
        return "timeout"
    if isinstance(raised, MemoryError):
        return "memory"
    missing = _MISSING.match(str(raised))
    if isinstance(raised, NotImplementedError) or (missing and (not missing[1] or missing[1] in _builtin_names())):
        return "unsupported"
    return "runtime"


def _builtin_names() -> frozenset[str]:
    import builtins

    return frozenset(dir(builtins))
