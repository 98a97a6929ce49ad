"""The process that compares mathematics: sympy, latex2sympy and math-verify live here, and nothing else.

One JSON question per line of standard input, `1` or `0` per line of standard output, until the input closes. What
math-verify calls equal is checked once more: it rounds to six places, so that `1/2006!` and `1/2004!` are both nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
from fractions import Fraction
from functools import lru_cache
from typing import Any

from toolkit import math_reading
from toolkit.math_reading import Reading

PATIENCE = 10.0  # wall seconds allowed for each second of computing, on a machine with other work
MEMORY_BYTES = 4 << 30  # address space of the worker: `10^{10^{10}}` must not take the trainer's memory

_DIGITS = 150  # in which values are compared that no decimal was written for
_OF_DECIMALS = 2e-6  # relative: 0.333333 is 1/3 to math-verify's six places
_POINTS = ((3, 7), (11, 5), (13, 17), (19, 23), (29, 31))  # where expressions with variables are compared


def equal(predicted: str, gold: str) -> bool:
    """Whether two texts say the same mathematical object; False for what is not wholly understood.

    Lists in braces and lists without brackets are compared as sets, others in order. An interval may be written as an
    inequality. Units count where both have one.
    """
    if predicted.strip() and math_reading.spelling(predicted) == math_reading.spelling(gold):
        return True
    said, expected = math_reading.read(predicted), math_reading.read(gold)
    if said is None or expected is None or (said.unit and expected.unit and said.unit != expected.unit):
        return False
    letters = math_reading.letters(said), math_reading.letters(expected)
    if letters[0] != letters[1] and {each.lower() for each in letters[0]} == {each.lower() for each in letters[1]}:
        return False
    real = not any("i" in each for each in letters)
    if said.is_relation != expected.is_relation:
        is_set = any(each.brackets not in ("", "{}") or "\\cup" in each.whole for each in (said, expected))
        return is_set and _same(said.whole, expected.whole, real)
    relations = [item for item in (*said.items, *expected.items) if _RELATION.search(item)]
    if (relations and len(said.items) > 1) or any(
        not re.search("[A-Za-z]", _COMMAND.sub("", item)) for item in relations
    ):
        return False  # "and" and "or" are not told apart, and "1 < 2" says as much as "3 < 4"
    if len(said.items) != len(expected.items) or _loses_names(said, expected) or _loses_names(expected, said):
        return False
    if {said.brackets, expected.brackets} == {"", "{}"} and not re.search("[0-9]", said.whole):
        return False
    if {said.brackets, expected.brackets} <= {"", "{}"}:
        return _as_sets(said, expected, real)
    return said.brackets == expected.brackets and all(
        _same(one, other, real) for one, other in zip(said.items, expected.items, strict=True)
    )


_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![a-z])")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ASSIGNED = re.compile(r" *([A-Za-z](?: *_ *(?:\{\w+\}|\w))?(?: *\( *[a-z] *\))?) *= *(?! *[A-Za-z] *$)[^=<>]+")


def _loses_names(one: Reading, other: Reading) -> bool:
    """Whether `one` is equations, `other` is none, and they are no values of one variable: "x=2, y=3", "2x=10"."""
    if not any("=" in item for item in one.items) or any("=" in item for item in other.items):
        return False
    assigned = [_ASSIGNED.fullmatch(item) for item in one.items]
    return not all(assigned) or len({found[1] for found in assigned if found}) > 1


def _as_sets(said: Reading, expected: Reading, real: bool) -> bool:
    left = list(said.items)
    for gold in expected.items:
        found = next((each for each in left if _same(each, gold, real)), None)
        if found is None:
            return False
        left.remove(found)
    return True


_DECIMAL = re.compile(r" *-? *(?:[0-9]+\.?[0-9]*|\.[0-9]+) *")


def _same(predicted: str, gold: str, real: bool) -> bool:
    from math_verify import verify

    if _DECIMAL.fullmatch(predicted) and _DECIMAL.fullmatch(gold):  # both written out: in all their digits
        return Fraction(predicted.replace(" ", "")) == Fraction(gold.replace(" ", ""))

    one, other = _parsed(predicted, real), _parsed(gold, real)
    return bool(verify(other, one, allow_set_relation_comp=True, timeout_seconds=None)) and _exactly(one, other)


@lru_cache(maxsize=64)  # one gold answer is held against many samples
def _parsed(written: str, real: bool) -> Any:
    """Parse all of `written`; latex2sympy raises on what it does not know."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import latex2sympy

    parsed = latex2sympy(written, is_real=real, convert_degrees=False, normalization_config=None)
    if not real:
        parsed = parsed.subs({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})
    if isinstance(parsed, sympy.Basic) and parsed.has(sympy.nan, sympy.zoo):
        raise ValueError("not a number")
    return parsed


def _exactly(one: Any, other: Any) -> bool:
    """Whether two objects that agree to six places agree in all: exactly, or as far as a decimal was written."""
    import sympy

    if isinstance(one, sympy.Interval) and isinstance(other, sympy.Interval):
        return _exactly(one.start, other.start) and _exactly(one.end, other.end)
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return all(map(_exactly, one.flat(), other.flat()))
    if isinstance(one, sympy.Eq) and isinstance(other, sympy.Eq):
        return _same_equation(one, other)
    if isinstance(one, sympy.Eq) != isinstance(other, sympy.Eq):  # "x = 5" against "5"
        one, other = (each.rhs if isinstance(each, sympy.Eq) else each for each in (one, other))
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return True
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if not symbols:
        return _same_value(one, other)
    if one.has(sympy.core.function.AppliedUndef) or other.has(sympy.core.function.AppliedUndef):
        return True
    for above, below in _POINTS:
        at = {symbol: sympy.Rational(above + place, below) for place, symbol in enumerate(symbols)}
        if not _same_value(one.subs(at), other.subs(at)):
            return False
    return True


def _same_equation(one: Any, other: Any) -> bool:
    """Whether two equations have equal sides, or differ by a factor; without variables nothing else makes them one."""
    import sympy

    if one.lhs == other.lhs or one.rhs == other.rhs or one.lhs == other.rhs:
        sides = (
            (one.rhs, other.rhs)
            if one.lhs == other.lhs
            else (one.lhs, other.lhs if one.rhs == other.rhs else other.rhs)
        )
        pairs = [sides] if one.lhs == other.lhs or one.rhs == other.rhs else [(one.rhs, other.lhs)]
        return all(_exactly(*pair) for pair in pairs)
    functions = one.has(sympy.core.function.AppliedUndef) or other.has(sympy.core.function.AppliedUndef)
    return bool(one.free_symbols) and not functions and one.free_symbols == other.free_symbols


def _same_value(one: Any, other: Any) -> bool:
    import sympy

    one, other = one.doit(), other.doit()
    if one.is_Rational and other.is_Rational:
        return bool(one == other)
    if one == other:
        return True
    written = one.has(sympy.Float) or other.has(sympy.Float)
    values = sympy.N(one, _DIGITS), sympy.N(other, _DIGITS)
    size = max(map(abs, values))
    return bool(abs(values[0] - values[1]) <= size * (_OF_DECIMALS if written else sympy.Float(10) ** -(_DIGITS - 20)))


def serve() -> None:
    """Answer questions until standard input closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not be taken for a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it stops us
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import math_verify  # noqa: F401 (before the first question, whose seconds are counted)

    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        verdict = False
        if line.strip():
            question = json.loads(line)
            # The default action of SIGALRM ends this process from inside C code too: no orphan keeps computing
            # when the parent was killed and can no longer kill us.
            if hasattr(signal, "alarm"):
                signal.setitimer(signal.ITIMER_PROF, question["seconds"])  # its signal ends the process in the same way
                signal.alarm(int(PATIENCE * question["seconds"]) + 2)
            with contextlib.suppress(Exception):
                verdict = equal(question["predicted"], question["gold"])
            if hasattr(signal, "alarm"):
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
        print(int(verdict), file=replies, flush=True)
