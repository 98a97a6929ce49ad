from __future__ import annotations

import ast
import datetime
import logging
import operator
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import program_jail
from toolkit.errors import UserError
from toolkit.program_source import Rejected, prepared
from toolkit.programs import STATUSES, Limits, Outcome, Runner, run

SHORT = Limits(seconds=1.0, memory=64_000_000)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """The interpreter only: these tests hold on every machine."""
    with Runner(workers=1, limits=SHORT, tiers=(1,)) as made:
        yield made


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("ans = 6 * 7", 42.0),
        ("ans = 0", 0.0),
        ("ans = -3", -3.0),
        ("ans = False", False),
        ("ans = ''", ""),
        ("ans = 1 / 4", 0.25),
        ("from decimal import Decimal\nans = Decimal('1.5')", 1.5),
        ("ans = [1, 'two', True]", [1.0, "two", True]),
        ("ans = (1, 2)", [1.0, 2.0]),
        ("list = str = isinstance = type = 3\nans = 4", 4.0),
        ("ans = 5  # no end of line", 5.0),
        ("ans = 5\n10 ** 5000", 5.0),
    ],
)
def test_a_value_is_a_float_a_bool_a_string_or_a_short_list(runner: Runner, source: str, value: object) -> None:
    outcome = runner.run(source)
    assert (outcome.status, outcome.value, outcome.tier) == ("ok", value, 1)
    assert type(outcome.value) is type(value)
    assert 0 < outcome.milliseconds < 60_000


@pytest.mark.parametrize(
    ("source", "status", "tier"),
    [
        ("x = 1", "no_value", 1),
        ("ans = None", "no_value", 1),
        ("ans = float('nan')", "no_value", 1),
        ("ans = 10 ** 400", "no_value", 1),
        ("ans = {1: 2}", "no_value", 1),
        ("ans = [[1]]", "no_value", 1),
        ("ans = range(3)", "no_value", 1),
        ("ans = print", "no_value", 1),
        ("ans = 'x' * 5000", "no_value", 1),
        ("ans = ", "syntax", 0),
        ("ans = 1\0", "syntax", 0),
        ("ans = '\ud800'", "syntax", 0),
        ("-" * 3900 + "1", "syntax", 0),
        ("1+" * 3900 + "1", "syntax", 0),
        ("(" * 4000 + ")" * 4000, "syntax", 0),
        ("ans = 1\n" + "#" * 8000, "syntax", 0),
        ("ans = 1 / 0", "runtime", 1),
        ("raise SystemExit", "runtime", 1),
        ("ans = undefined", "runtime", 1),
        ("ans = [].missing", "runtime", 1),
        ("print('x' * 5000)", "runtime", 1),
        ("while True:\n    pass", "timeout", 1),
        ("ans = 9 ** 9 ** 9", "memory", 1),
        ("import os\nans = os.getcwd()", "import", 0),
        ("from .here import ans", "import", 0),
        ("import numpy\nans = numpy.mean([1])", "import", 1),
        ("def f():\n    yield 1\nans = list(f())", "unsupported", 1),
        ("ans = input()", "unsupported", 1),
        ("d = {1: 2}\nans = max(d, key=d.get)", "unsupported", 1),
        ("from datetime import date, datetime\nans = datetime.strftime(date(2020, 1, 2), '%d')", "unsupported", 1),
        ("from math import *\nans = sqrt(4)", "unsupported", 1),
    ],
)
def test_what_gives_no_value_says_why_and_who_decided(runner: Runner, source: str, status: str, tier: int) -> None:
    outcome = runner.run(source)
    assert (outcome.status, outcome.value, outcome.tier) == (status, None, tier)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np\nans = 1", "pass\nans = 1"),
        ("import math, numpy\nans = math.pi", "import math\nans = math.pi"),
        ("from math import (\n    pi,\n    tau,\n)\nans = pi", "from math import pi\nans = pi"),
        ("if True:\n    import os\nans = 1", "if True:\n    pass\nans = 1"),
        ("é = 1; import os; ans = é", "é = 1; pass; ans = é"),
        ("# coding: latin-1\né = 1; import os; ans = é", "# coding: latin-1\né = 1; pass; ans = é"),
        ("import os\rans = 1\r\nimport sys\nb = 2", "pass\rans = 1\r\npass\nb = 2"),
        ("import os.path\nans = 1", "pass\nans = 1"),
        ("ans = 'import os'", "ans = 'import os'"),
        ("import math as m\nm = 2", "pass\nm = 2"),
        ("import math as m\ndel m", "import math as m\ndel m"),
        ("from __future__ import annotations\nans = 1", "from __future__ import annotations\nans = 1"),
        ("try:\n    import os\nexcept: 0\nans = 1", "try:\n    pass\nexcept: 0\nans = 1"),
    ],
)  # fmt: skip
def test_unused_imports_go_by_the_syntax_tree(source: str, expected: str) -> None:
    assert prepared(source, "ans", 8000).source == expected


def test_the_result_may_be_that_of_a_function(runner: Runner) -> None:
    assert runner.run("def solver():\n    return 4", "solver()").value == 4.0
    assert runner.run("solver = 4", "solver()").status == "runtime"
    assert runner.run("answer = 5", "answer").value == 5.0


@pytest.mark.parametrize("variable", ["", "a b", "1a", "a.b", "f(1)", "a\n", "class", "()"])
def test_a_variable_is_a_name(runner: Runner, variable: str) -> None:
    with pytest.raises(UserError, match="variable: found"):
        runner.run("ans = 1", variable)


def test_nothing_of_a_program_is_printed(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    assert runner.run("print('out')\nans = 1").value == 1.0
    assert capfd.readouterr() == ("", "")


def test_two_runs_are_alike(runner: Runner) -> None:
    source = (
        "import random, time\nfrom datetime import datetime\n"
        "ans = [random.random(), time.time(), str(datetime.now()), str(len({'a', 'b', 'c'}))]"
    )
    assert runner.run(source).value == run(source, tiers=(1,)).value != None  # noqa: E711


def test_many_come_in_order_whatever_happens_to_some(runner: Runner) -> None:
    bad = {3: "while True:\n    pass", 5: "ans = 9 ** 9 ** 9", 6: "1 / 0", 8: "ans ="}
    with Runner(workers=2, limits=SHORT, tiers=(1,)) as both:
        outcomes = list(both.run_many(bad.get(n, f"ans = {n}") for n in range(12)))
    assert [outcome.value for outcome in outcomes] == [None if n in bad else float(n) for n in range(12)]
    assert [outcomes[n].status for n in bad] == ["timeout", "memory", "runtime", "syntax"]


def test_a_worker_that_dies_takes_no_program_with_it() -> None:
    before = set(psutil.Process().children())
    with Runner(workers=1, tiers=(1,)) as one:
        for n in range(3):
            assert one.run(f"ans = {n}").value == n
            for worker in set(psutil.Process().children()) - before:
                worker.kill()
                worker.wait()
    assert set(psutil.Process().children()) <= before


def test_a_worker_is_replaced_after_a_timeout_and_kept_otherwise(runner: Runner) -> None:
    def workers() -> set[psutil.Process]:
        return set(psutil.Process().children())

    runner.run("ans = 1")
    first = workers()
    runner.run("1 / 0")
    assert workers() == first
    runner.run("while True:\n    pass")
    runner.run("ans = 1")
    assert len(workers()) == len(first)
    assert workers() != first


def test_without_a_jail_what_needs_cpython_is_unsupported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(program_jail, "unavailable", lambda: "no `bwrap` in this test")
    with caplog.at_level(logging.WARNING), Runner(workers=1) as both:
        outcomes = list(both.run_many(["import numpy\nans = numpy.mean([1])", "ans = input()", "ans = 2"]))
    assert [(outcome.status, outcome.value) for outcome in outcomes] == [
        ("unsupported", None), ("unsupported", None), ("ok", 2.0),
    ]  # fmt: skip
    assert [record.getMessage() for record in caplog.records].count(caplog.records[0].getMessage()) == 1
    assert "no `bwrap` in this test" in caplog.records[0].getMessage()


def test_a_missing_bubblewrap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(program_jail.platform, "system", lambda: "Linux")
    monkeypatch.setattr(program_jail.platform, "machine", lambda: "x86_64")
    assert "`bwrap` is not installed" in program_jail.unavailable.__wrapped__()


def test_importing_the_module_starts_and_loads_nothing() -> None:
    code = "import sys, toolkit.programs; print([m for m in ('pydantic_monty', 'torch', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


WORDS = "ans = ( ) [ ] 1 0 ' import math os def f : for in lambda * - if else . { } class print yield try \\ # é"
PIECES = st.sampled_from([*WORDS.split(), " ", "\n", "\t", "    "])
SOURCES = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join))


@settings(max_examples=100, deadline=None)
@given(SOURCES)
def test_arbitrary_text_has_an_outcome(runner: Runner, source: str) -> None:
    outcome = runner.run(source)
    assert isinstance(outcome, Outcome)
    assert outcome.status in STATUSES
    assert (outcome.value is None) == (outcome.status != "ok")


@settings(max_examples=100, deadline=None)
@given(SOURCES)
def test_what_is_taken_out_leaves_python(source: str) -> None:
    try:
        program = prepared(source, "ans", 8000)
    except Rejected:
        return
    assert names_in(program.source) == names_in(source)


def names_in(source: str) -> Counter[str]:
    """Names that a program reads or assigns, which no import does."""
    return Counter(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))


OPERATIONS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
    "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip
Written = tuple[str, int | float]


def _joined(parts: tuple[Written, str, Written]) -> Written:
    (left, x), sign, (right, y) = parts
    if y == 0 and sign in ("/", "//", "%"):
        sign = "+"
    return f"({left} {sign} {right})", OPERATIONS[sign](x, y)


NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12), st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
).map(lambda number: (repr(number), number))
EXPRESSIONS = st.recursive(
    NUMBERS, lambda inner: st.tuples(inner, st.sampled_from(sorted(OPERATIONS)), inner).map(_joined), max_leaves=8
)


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_arithmetic_is_cpythons(runner: Runner, written: Written) -> None:
    text, value = written
    assert runner.run(f"ans = {text}").value == float(value)


SHIFTS = st.fixed_dictionaries(
    {},
    optional={
        "years": st.integers(-30, 30),
        "months": st.integers(-40, 40),
        **{unit: st.integers(-400, 400) for unit in ("weeks", "days", "hours", "minutes", "seconds")},
    },
)
MOMENTS = st.one_of(
    st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 12, 31)),
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 12, 31)),
)


@settings(max_examples=100, deadline=None)
@given(MOMENTS, SHIFTS, st.sampled_from(["{0} + {1}", "{1} + {0}", "{0} - {1}"]))
def test_relativedelta_in_the_interpreter_is_the_librarys(
    runner: Runner, moment: datetime.date, shift: dict[str, int], form: str
) -> None:
    delta = "relativedelta(" + ", ".join(f"{unit}={count}" for unit, count in shift.items()) + ")"
    imports = "import datetime\nfrom dateutil.relativedelta import relativedelta\n"
    outcome = runner.run(f"{imports}ans = str({form.format(repr(moment), delta)})")
    expected = moment - relativedelta(**shift) if "-" in form else moment + relativedelta(**shift)
    assert (outcome.value, outcome.tier) == (str(expected), 1)


@pytest.mark.parametrize(
    "use",
    ["relativedelta(months=1).months", "str(relativedelta(days=1))", "date(2020, 3, 31) + relativedelta(day=1)",
     "date(2020, 3, 31) + 2 * relativedelta(months=1)", "relativedelta(days=1) == relativedelta(days=1)",
     "date(2020, 1, 1) + relativedelta(days=1.5)", "relativedelta(date(2020, 3, 1), date(2020, 1, 1)).months"],
)  # fmt: skip
def test_other_uses_of_relativedelta_are_left_to_the_library(runner: Runner, use: str) -> None:
    head = "from datetime import date\nfrom dateutil.relativedelta import relativedelta\n"
    assert runner.run(f"{head}ans = {use}").status == "unsupported"
