"""Programs have CPython's value in the interpreter, or are handed on: on a table, on drawn numbers and on real ones."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.programs import by_cpython, files, same, tasks
from tests.program_expressions import expressions, programs
from toolkit import program_jail
from toolkit.program_outcome import Value, small_value
from toolkit.programs import DEFAULT_LIMITS, Runner, run

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_jail = pytest.mark.skipif(bool(program_jail.unavailable()), reason="needs bubblewrap")


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """The interpreter alone."""
    with Runner(workers=1, tiers=(1,)) as made:
        yield made


def cpython(source: str) -> tuple[str, Value | None]:
    """Return what CPython makes of a program of this project's own: (status, value)."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "<table>", "exec"), names)
    except SyntaxError:
        return "syntax", None
    except Exception:
        return "runtime", None
    value = small_value(names["ans"], DEFAULT_LIMITS.output)
    return ("no_value" if value is None else "ok"), value


def unlike_cpython(runner: Runner, sources: list[str]) -> tuple[list[str], Counter[str]]:
    """Run programs -> (those that differ, with both values; how many there are of each end)."""
    ends: Counter[str] = Counter()
    differing = []
    for source in sources:
        with warnings.catch_warnings(action="ignore"):
            outcome = runner.run(source)
        if outcome.status in ("unsupported", "import"):
            ends["handed on"] += 1
            continue
        ends[outcome.status] += 1
        if (outcome.status, outcome.value) != cpython(source):
            differing.append(f"{source}: {outcome}, CPython {cpython(source)}")
    return differing, ends


def test_every_expression_of_the_table_has_cpythons_value_or_is_handed_on(runner: Runner) -> None:
    table = expressions()
    differing, ends = unlike_cpython(runner, [f"ans = repr({expression})" for expression in table])
    assert differing == []
    assert len(table) > 2000
    assert ends["ok"] > 0.8 * len(table), ends  # the table is not handed on as a whole


def test_every_program_of_the_table_has_cpythons_value_or_is_handed_on(runner: Runner) -> None:
    differing, ends = unlike_cpython(runner, programs())
    assert differing == []
    assert ends["ok"] > 10, ends


@example(2.675, 2)
@example(1.005, 2)
@example(-0.001, 2)
@given(st.floats(), st.integers(0, 330))
def test_a_float_is_rounded_as_cpython_rounds_it(runner: Runner, number: float, places: int) -> None:
    source = f"ans = repr(round(float({str(number)!r}), {places}))"
    outcome = runner.run(source)
    assert outcome.status == "unsupported" or outcome.value == cpython(source)[1]


@given(st.floats(0, 10**6), st.integers(0, 6))
def test_rounding_to_places_is_not_handed_on(runner: Runner, number: float, places: int) -> None:
    assert runner.run(f"ans = round({number!r}, {places})")[:2] == ("ok", round(number, places))


DOUBTFUL = [
    ("ans = next(x for x in [1, 2, 3] if x > 1)", 2.0),
    ("ans = next((x for x in [1, 2] if x > 5), -1)", -1.0),
    ("ans = next((x for x in [1] if x > 5), 'none')", "none"),
    ("ans = pow(3, -1, 7)", 5.0),
    ("ans = list({3, 1, 2})", [1.0, 2.0, 3.0]),
    ("m = map(int, '12')\nans = [sum(m), sum(m)]", [3.0, 0.0]),
    ("try:\n    ans = pow(3, -1, 7)\nexcept ValueError:\n    ans = 0", 5.0),
    ("b = [1]\nb += (2,)\nans = b", [1.0, 2.0]),
    ("ans = any(1 / x > 0.5 for x in [1, 0])", True),
    ("for i, x in enumerate(range(10 ** 9)):\n    if x > 5: break\nans = i", 6.0),
    ("ans = int('\u0661\u0662')", 12.0),
    ("ans = str(105945 / 131072)", "0.8082962036132812"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "value"), DOUBTFUL)
def test_what_the_interpreter_has_otherwise_is_judged_by_no_interpreter(
    runner: Runner, source: str, value: Value
) -> None:
    assert runner.run(source)[:2] == ("unsupported", None)


@needs_jail
@pytest.mark.slow
def test_what_the_interpreter_has_otherwise_falls_through_to_cpython() -> None:
    with Runner(workers=1) as both:
        for source, value in DOUBTFUL:
            outcome = both.run(source)
            assert (outcome.status, outcome.value, outcome.tier) == ("ok", value, 2), source


@needs_jail
def test_an_error_that_the_interpreter_may_have_made_is_left_to_cpython_to_judge() -> None:
    outcome = run("ans = int('abc')")
    assert (outcome.status, outcome.tier) == ("runtime", 2)


@pytest.mark.parametrize(
    "source",
    [
        *("ans = 1 / 0", "ans = [1][5]", "ans = {}['a']", "ans = undefined", "assert False", "ans = None + 1"),
        *("ans = 1 + 'a'", "ans = 'a' + 1", "ans = 5(3)", "ans = [].missing", "raise SystemExit", "ans = len"),
    ],
)  # fmt: skip
def test_an_error_that_is_plainly_the_programs_needs_no_cpython(source: str) -> None:
    outcome = run(source)
    assert outcome.tier == 1
    assert outcome.status in ("runtime", "no_value")


@pytest.mark.data
@pytest.mark.slow
@needs_jail
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_real_programs_have_cpythons_value_or_are_handed_on(runner: Runner) -> None:
    """The reference is one CPython process in a jail for each file, which forks for each program."""
    seen = 0
    for path in files(DATA):
        some = list(tasks(path))[:15]
        values, _ = by_cpython(some)
        for (source, variable), value in zip(some, values, strict=True):
            with warnings.catch_warnings(action="ignore"):
                outcome = runner.run(source, variable)
            if outcome.status == "ok":
                seen += 1
                assert value is not None, (source, outcome)
                assert same(outcome.value, value), (source, outcome, value)
            elif outcome.status in ("no_value", "runtime"):
                # The reference does not stop a program that prints too much.
                assert value is None or "print(" in source, (source, outcome, value)
    assert seen > 300
