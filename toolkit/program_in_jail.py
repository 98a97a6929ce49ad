"""What runs inside the jail: one program from stdin, one line of JSON back. Executed by path, never imported.

Nothing protects this process from the program, nor needs to: whoever started the jail trusts no byte of the reply. What
is done here serves repeatability (a frozen clock, fixed seeds) and the limits that the process sets for itself.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import math
import numbers
import os
import random
import resource
import secrets
import sys
import time

CLOCK = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)  # as in the interpreter
SEED = 0


class Sink:
    """A file that forgets what is written to it and refuses to take more than a bound."""

    def __init__(self, most: int) -> None:
        self.left = most

    def write(self, text: str) -> int:
        """Count `text`; RuntimeError beyond the bound."""
        self.left -= len(text)
        if self.left < 0:
            raise RuntimeError("too much output")
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is kept."""


class Frozen(type):
    """Calls what it makes an instance of its base, and makes instances of that: a date is a date, whoever made it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.__mro__[1])

    def __call__(cls, *args: object, **kwargs: object) -> object:
        """Make an instance of the base."""
        return cls.__mro__[1](*args, **kwargs)


class FrozenDate(datetime.date, metaclass=Frozen):
    """`datetime.date` on the day when the clock stands."""

    @classmethod
    def today(cls) -> datetime.date:  # type: ignore[override]
        """Return that day."""
        return CLOCK.date()


class FrozenDatetime(datetime.datetime, metaclass=Frozen):
    """`datetime.datetime` at the moment when the clock stands."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        """Return that moment, in UTC or in the zone asked for."""
        return CLOCK.replace(tzinfo=None) if tz is None else CLOCK.astimezone(tz)

    today = utcnow = now  # type: ignore[assignment]


def freeze() -> None:
    """Stop the clock, make a sleep return at once and fix what is drawn."""
    for name, value in {"time": CLOCK.timestamp(), "monotonic": 0.0, "perf_counter": 0.0, "process_time": 0.0}.items():
        setattr(time, name, lambda value=value: value)
        setattr(time, f"{name}_ns", lambda value=value: int(value * 1e9))
    for module, name, replaced in (
        (time, "sleep", lambda seconds: None),
        (datetime, "date", FrozenDate),
        (datetime, "datetime", FrozenDatetime),
        (secrets, "randbits", lambda bits: SEED),  # where numpy's own generators get their first state from
    ):
        setattr(module, name, replaced)
    random.seed(SEED)


def prepare(source: str) -> None:
    """Import the large libraries that the program names, so that its limits are its own."""
    sys.path.append("/packages")
    if "numpy" in source:
        with contextlib.suppress(ImportError):
            import numpy

            numpy.random.seed(SEED)
    for name in ("sympy", "dateutil.relativedelta", "dateutil.parser"):
        if name in source:
            with contextlib.suppress(ImportError):
                __import__(name)


def confine(seconds: float, memory: int, recursion: int) -> None:
    """Set the limits of this process.

    Args:
        seconds: Of processor time, since it started.
        memory: In bytes, above what is mapped by now: the libraries do not count.
        recursion: Nested calls.
    """
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    processor = math.ceil(seconds)
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, processor, processor + 1),
        (resource.RLIMIT_AS, mapped + memory, mapped + memory),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 32, 32),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NPROC, 1, 1),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))
    sys.setrecursionlimit(recursion)


def plain(found: object, most: int) -> object:
    """Return what JSON can hold of `found`: numbers of every kind as floats; None for what is no value or too long."""
    if hasattr(found, "tolist"):  # arrays and scalars of numpy
        found = found.tolist()
    if isinstance(found, list | tuple):
        return [scalar(item, most) for item in found] if len(found) <= most else None
    return scalar(found, most)


def scalar(found: object, most: int) -> object:
    """Return a bool or a short string as it is, a number as a float, anything else as None."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    if isinstance(found, bool):
        return found
    if isinstance(found, str):
        return found if len(found) <= most else None
    if isinstance(found, numbers.Number | decimal.Decimal) or getattr(found, "is_number", False) is True:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(found)  # type: ignore[arg-type]
    return None


def outcome(source: str, variable: str, output: int) -> tuple[str, object]:
    """Run the program -> (status, value)."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        try:
            code = compile(source, "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            return "syntax", None
        exec(code, names)
        value = plain(names[variable], output) if variable in names else None
    except ImportError:
        return "import", None
    except MemoryError:
        return "memory", None
    except BaseException:
        return "runtime", None
    return ("no_value", None) if value is None else ("ok", value)


def main() -> None:
    """Read the request, say that we are ready, run it and reply."""
    request = json.loads(sys.stdin.buffer.read())
    replies = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)  # what is printed must not be taken for a reply
    used = time.process_time  # before it stands still
    freeze()
    prepare(request["source"])
    confine(used() + request["seconds"], request["memory"], request["recursion"])
    os.write(replies, (request["nonce"] + "\n").encode())
    sys.stdout = sys.stderr = Sink(request["output"])
    status, value = outcome(request["source"], request["variable"], request["output"])
    reply = json.dumps({"status": status, "value": value})
    if len(reply) > 8 * request["output"]:  # not even escapes make an allowed value that long
        reply = json.dumps({"status": "no_value", "value": None})
    os.write(replies, f"{request['nonce']}{reply}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
