"""Tier 1: programs in pydantic-monty, a Python subset without files, environment, network or processes.

The interpreter runs in a process of its own, never in this one: a crash of it costs one program. A worker is reused for
the next program in a fresh session, and replaced when a program used up its time.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import re
import threading
from typing import TYPE_CHECKING, Any

from toolkit.interpreted_modules import ROUND, SOURCE
from toolkit.program_outcome import Limits
from toolkit.program_source import Program

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError, MontySession

GRACE = 1.0  # seconds past the limit after which a worker that does not end the program itself is killed
CLOCK = datetime.datetime(2024, 1, 1)  # what every program takes for now
SEED = 0
_STARTING = threading.Lock()  # where its programme is looked for, `sysconfig` is first used: two threads trip over it

# What cannot be a value must not reach us as the text of an object, as the interpreter would send it, nor a long one at
# all. The names are bound before the program runs: many programs call a variable `list` or `str`.
_VALUE_OF = """
def _scalar(found, isinstance=isinstance, type=type, len=len, text=str, scalars=(bool, int, float)):
    short = isinstance(found, text) and len(found) <= {output}
    return found if short or isinstance(found, scalars) or type(found).__name__ == "Decimal" else None
def _value_of(found, isinstance=isinstance, len=len, lists=(list, tuple)):
    if isinstance(found, lists):
        return [_scalar(item) for item in found] if len(found) <= {output} else None
    return _scalar(found)
"""
_TOO_MUCH = "too much output"
# Errors of the program and of nothing else.
_CERTAIN = (ZeroDivisionError, IndexError, KeyError, AssertionError, SystemExit, UnboundLocalError)
_SCALARS = {"int", "float", "str", "bool"}
_SCALAR = f"'(?:{'|'.join(sorted(_SCALARS))}|NoneType)'"
_WRONG_SCALARS = re.compile(
    rf"unsupported operand type\(s\) for [^%]{{1,3}}: {_SCALAR} and {_SCALAR}$|can only concatenate str \(not \"int\"\)"
    rf"|{_SCALAR} object is not (?:callable|iterable|subscriptable)$"
)
_OBJECT = re.compile(r" at 0x|\[\.\.\.\]|\{\.\.\.\}")
_FLOAT = re.compile(r"(?P<whole>\d+)\.(?P<places>\d+)(?:e[-+]?\d+)?")
# What it says of a name or an attribute that there is not. Its types lack some that CPython's have.
_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_ATTRIBUTE = re.compile(r"(?:type object )?'(?:\w+\.)*(\w+)'(?: object)? has no attribute '(\w+)'")


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
                    return "unsupported", None
            except MontyError as error:
                status, found = _status(error, program.doubts.is_plain), None
                break
            # What cannot be brought over to CPython, e.g. an integer of more digits than it converts.
            except (ArithmeticError, MemoryError, RecursionError, TypeError, ValueError):
                status, found = "no_value", None
                break
        if status == "timeout":
            self.close()
        if (status in ("timeout", "memory") and program.doubts.is_lazy) or _reads_otherwise(found):
            return "unsupported", None
        return status, found

    def _run(self, program: Program, limits: Limits) -> tuple[str, object]:
        from pydantic_monty import MontyRuntimeError

        printed = 0

        def count(_stream: str, text: str) -> None:
            nonlocal printed
            printed += len(text)
            if printed > limits.output:
                raise RuntimeError(_TOO_MUCH)

        with self._session(limits) as session:
            session.feed_run(_VALUE_OF.format(output=limits.output), print_callback=count)
            if "round" in program.source:
                session.feed_run(ROUND, print_callback=count)
            if program.interpreted:
                session.feed_run(SOURCE, print_callback=count)
            # The text ends in a value of ours: that of the program's last line may be anything.
            session.feed_run(f"{program.interpreted or program.source}\n0", print_callback=count)
            try:
                return "ok", session.feed_run(f"_value_of({program.variable})", print_callback=count)
            except MontyRuntimeError as error:
                if isinstance(error.exception(), NameError):
                    return "no_value", None
                raise

    def _session(self, limits: Limits) -> MontySession:
        from pydantic_monty import Monty

        if self._pool is None:
            with _STARTING:
                pool = Monty(max_processes=1, feed_duration_limit_grace=GRACE)
                pool.__enter__()
            self._pool = pool
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


def _status(error: MontyError, is_plain: bool) -> str:
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
    return "runtime" if _is_certain(raised, is_plain) else "unsupported"


def _is_certain(raised: Any, is_plain: bool) -> bool:
    """Whether CPython raises the same: what the interpreter lacks it tells in many ways, so all else is handed on."""
    message = str(raised)
    if isinstance(raised, RuntimeError):
        return message == _TOO_MUCH or isinstance(raised, RecursionError)
    if not is_plain:
        return False
    if found := _NO_NAME.match(message):
        return not hasattr(builtins, found[1])
    if found := _NO_ATTRIBUTE.match(message):
        return found[1] in _SCALARS | {"list", "dict", "tuple"} and not hasattr(getattr(builtins, found[1]), found[2])
    return isinstance(raised, _CERTAIN) or (isinstance(raised, TypeError) and bool(_WRONG_SCALARS.match(message)))


def _reads_otherwise(found: object) -> bool:
    """Whether a value holds text that CPython writes otherwise: an object, a list that holds itself, a float in a tie.

    A float is written with as few digits as tell it apart; where two such numbers are equally near, each side has its
    own choice.
    """
    texts = [text for text in (found if isinstance(found, list | tuple) else [found]) if isinstance(text, str)]
    return any(_OBJECT.search(text) or any(map(_is_tie, _FLOAT.finditer(text))) for text in texts)


def _is_tie(written: re.Match[str]) -> bool:
    exact = decimal.Decimal(float(written.group())).as_tuple().digits
    return exact[-1] == 5 and len(exact) == len(written["whole"].lstrip("0") + written["places"]) + 1
