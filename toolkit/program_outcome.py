"""What running a program gives: a status and one small value, under limits that are the same wherever it ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

STATUSES = ("ok", "no_value", "syntax", "runtime", "timeout", "memory", "import", "unsupported")
"""`ok`: there is a value. `no_value`: it ran and left none that can be used. `syntax`: not run, because it is no
Python, or too long. `runtime`: it raised, or ended its process. `timeout`, `memory`: it met a limit. `import`: it wants
a module that it may not have. `unsupported`: it needs what only CPython has, or has otherwise, and CPython cannot be
confined here."""

Scalar = float | bool | str
Value = Scalar | list[Scalar]


class Limits(NamedTuple):
    """What one program may use; the defaults are those of every dataset and evaluation here."""

    seconds: float = 2.0
    memory: int = 128_000_000  # bytes
    recursion: int = 500  # nested calls
    output: int = 4_000  # bytes: of what it prints, and of its value
    source: int = 8_000  # bytes of UTF-8


DEFAULT_LIMITS = Limits()


class Outcome(NamedTuple):
    """The end of one program.

    `status` is one of `STATUSES`; whether an `ok` value is right is the scorer's business. `value` is None unless the
    status is `ok`: a float (every number becomes one), a bool, a string or a short list of these; 0 and False are
    values. `milliseconds` is wall time, including the start of a process where one was needed. `tier` is what decided:
    0 the look at the source, 1 the interpreter, 2 the jail.
    """

    status: str
    value: Value | None
    milliseconds: float
    tier: int


def small_value(found: object, output: int) -> Value | None:
    """Return `found` as an outcome's value, or None where it is none: NaN, infinite, nested, too long, an object."""
    if isinstance(found, list | tuple):
        if len(found) > output:
            return None
        items = [_scalar(item, output) for item in found]
        kept = [item for item in items if item is not None]
        return kept if len(kept) == len(items) and _length(kept) <= output else None
    return _scalar(found, output)


def _scalar(found: object, output: int) -> Scalar | None:
    if isinstance(found, bool):
        return found
    if isinstance(found, str):
        return found if len(found.encode(errors="replace")) <= output else None
    if isinstance(found, int | float | Decimal):
        try:
            number = float(found)
        except (OverflowError, ValueError):  # an integer beyond 1e308; a signalling NaN
            return None
        return number if math.isfinite(number) else None
    return None


def _length(items: Sequence[Scalar]) -> int:
    return sum(len(str(item).encode(errors="replace")) + 2 for item in items)
