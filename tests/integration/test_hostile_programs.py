"""Hostile programs: what each gets under rlimits only, and that it gets nothing from the interpreter and the jail."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.hostile_programs import BREAK, REACH
from toolkit import program_jail
from toolkit.program_interpreter import Interpreter
from toolkit.program_outcome import Limits, small_value
from toolkit.program_source import Program
from toolkit.programs import Runner

pytestmark = pytest.mark.slow

NAME = "COT_PROBED_SECRET"
USUAL = Limits(memory=64_000_000)
BRIEF = Limits(seconds=0.2, memory=64_000_000)

# The process that calls the tiers, with a secret in its environment from the start. `rlimits` is what those do who
# trust rlimits: it shows that a probe works.
CALLER = """
import json, resource, subprocess, sys
from toolkit import program_jail
from toolkit.program_interpreter import Interpreter
from toolkit.program_outcome import Limits, small_value
from toolkit.program_source import Program
from toolkit.programs import Runner
BARE = "import json, sys; names = {}; exec(sys.stdin.read(), names); print(json.dumps(names.get('ans')))"

def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

def rlimits(source):
    done = subprocess.run([sys.executable, "-S", "-c", BARE], input=source, capture_output=True, text=True, timeout=30,
                          close_fds=False, preexec_fn=limit)
    return json.loads(done.stdout or "null")

interpreter = Interpreter()
for line in sys.stdin:
    tier, source = json.loads(line)
    if tier == "rlimits":
        found = rlimits(source)
    else:
        run = interpreter.run if tier == "interpreter" else program_jail.run
        found = small_value(run(Program(source, "ans"), Limits(memory=64_000_000))[1], 4000)
    print(json.dumps(found), flush=True)
interpreter.close()
"""


def jail_or_skip() -> None:
    """No jail is a failure where CI runs: a skipped probe would count as a contained one."""
    reason = program_jail.unavailable()
    if reason and os.environ.get("CI"):
        pytest.fail(f"tier 2 is not available: {reason}")
    if reason:
        pytest.skip(f"tier 2 is not available: {reason}")


class Caller:
    """The calling process, what its secret is and where else that can be found."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = folder / f"found{secrets.token_hex(4)}"
        self.folder.mkdir()
        (self.folder / "planted.py").write_text(f"secret = {self.secret!r}\n")
        (self.folder / f"{self.secret}.txt").touch()
        self.held = os.open(self.folder / "planted.py", os.O_RDONLY)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CALLER],
            env={**os.environ, NAME: self.secret},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self.held],
        )

    def ask(self, tier: str, source: str) -> object:
        """Have a program run by `interpreter`, `jail` or `rlimits` -> what `ans` was."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([tier, source]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    made = Caller(tmp_path_factory.mktemp("probes"))
    with made.process:
        yield made
        made.process.communicate()
    os.close(made.held)


class Planted(NamedTuple):
    """What a probe may look for or harm, and the means to see whether it got there."""

    caller: Caller
    victim: subprocess.Popen[bytes]
    listeners: tuple[socket.socket, ...]
    names: str  # assignments that go in front of a probe

    def reached(self, value: object) -> list[str]:
        """Return what the probe got; never the value itself, which may be the environment of this machine."""
        got = []
        if value is True or self.caller.secret in str(value):
            got.append("value")
        if os.path.lexists(self.caller.folder / "outside"):
            got.append("file made")
        spare = self.caller.folder / "spare"
        if not spare.exists() or spare.read_text() != "spare" or spare.stat().st_mode & 0o777 != 0o644:
            got.append("file harmed")
        if select.select(self.listeners, [], [], 0)[0]:
            got.append("connection")
        if self.victim.poll() is not None:
            got.append("process ended")
        elif os.getpriority(os.PRIO_PROCESS, self.victim.pid) == 15:
            got.append("process slowed")
        elif Path(f"/proc/{self.victim.pid}/oom_score_adj").read_text() == "500\n":
            got.append("process marked")
        return got


@pytest.fixture
def planted(caller: Caller) -> Iterator[Planted]:
    """Listen, start a process to be harmed and put a file there for it."""
    folder = caller.folder
    outside = folder / "outside"
    (folder / "spare").write_text("spare")
    (folder / "spare").chmod(0o644)
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        by_path = stack.enter_context(socket.socket(socket.AF_UNIX))
        # Through a descriptor: a path that long may not be bound.
        here = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, here)
        (folder / "socket").unlink(missing_ok=True)
        by_path.bind(f"/proc/self/fd/{here}/socket")
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0probe{caller.secret}")
        for listener in (by_path, abstract):
            listener.listen()
        victim = subprocess.Popen(["sleep", "600"], env={NAME: caller.secret}, start_new_session=True)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        values = {
            "FILE": str(folder / "planted.py"), "FOLDER": str(folder), "OUTSIDE": str(outside),
            "SPARE": str(folder / "spare"), "VICTIM": victim.pid, "CALLER": caller.process.pid, "NAME": NAME,
            "PORT": tcp.getsockname()[1], "SOCKET": f"/proc/{os.getpid()}/fd/{here}/socket",
            "ABSTRACT": f"probe{caller.secret}", "HOST": platform.node(), "HELD": caller.held,
        }  # fmt: skip
        names = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        yield Planted(caller, victim, (tcp, by_path, abstract), names)
    if outside.is_dir() and not outside.is_symlink():
        outside.rmdir()
    else:
        outside.unlink(missing_ok=True)


@pytest.mark.parametrize("tier", ["rlimits", "interpreter", "jail"])
@pytest.mark.parametrize("name", REACH)
def test_a_probe_reaches_its_goal_under_rlimits_and_in_no_tier(name: str, tier: str, planted: Planted) -> None:
    if tier == "jail":
        jail_or_skip()
    got = planted.reached(planted.caller.ask(tier, planted.names + REACH[name]))
    assert bool(got) == (tier == "rlimits"), got


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    """One worker for all: whatever a program does to it, the next must find it in order."""
    made = Interpreter()
    yield made
    made.close()


@pytest.mark.parametrize("tier", ["interpreter", "jail"])
@pytest.mark.parametrize("name", BREAK)
def test_a_program_that_wants_too_much_ends_and_the_next_one_runs(
    name: str, tier: str, interpreter: Interpreter
) -> None:
    source, allowed = BREAK[name]
    expected = allowed.split()
    if tier == "jail":
        jail_or_skip()
    else:  # what the interpreter lacks ends there as that; the jail has all of Python
        expected += ["import", "unsupported", "runtime"]
    run = interpreter.run if tier == "interpreter" else program_jail.run
    limits = BRIEF if "timeout" in expected else USUAL
    began = time.monotonic()
    status, found = run(Program(source, "ans"), limits)
    assert time.monotonic() - began < 20
    if status == "ok" and small_value(found, limits.output) is None:
        status = "no_value"
    assert status in expected, found
    assert run(Program("ans = 6 * 7", "ans"), USUAL) == ("ok", 42)


LOOPS = """
import sys
from toolkit.programs import Limits, Runner
with Runner(workers=2, limits=Limits(seconds=float(sys.argv[2])), tiers=(int(sys.argv[1]),)) as runner:
    list(runner.run_many(["while True:\\n    pass"] * 2))
"""


# The interpreter's worker ends with the program's own time; a jail ends at once, whatever time is left.
@pytest.mark.parametrize(("tier", "seconds", "name"), [(1, 2.0, "monty"), (2, 600.0, "python")])
def test_no_process_is_left_when_the_caller_is_killed(tier: int, seconds: float, name: str) -> None:
    if tier == 2:
        jail_or_skip()
    caller = subprocess.Popen([sys.executable, "-c", LOOPS, str(tier), str(seconds)])
    try:
        tree: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while sum(process.name().startswith(name) for process in tree) < 2:
            assert time.monotonic() < deadline, tree
            time.sleep(0.02)
            with contextlib.suppress(psutil.NoSuchProcess):
                tree = psutil.Process(caller.pid).children(recursive=True)
    finally:
        caller.kill()
        caller.wait()
    left = psutil.wait_procs(tree, timeout=30)[1]
    for process in left:
        process.kill()
    assert left == []


def test_the_jail_gives_values_of_libraries_and_two_runs_are_alike() -> None:
    jail_or_skip()
    programs = {
        "import numpy as np\nans = np.mean([1, 2])": 1.5,
        "import numpy as np\nans = np.array([1, 2])": [1.0, 2.0],
        "import numpy as np\nans = np.int64(3) > 2": True,
        "import sympy\nx = sympy.Symbol('x')\nans = sympy.solve(x**2 - 4, x)": [-2.0, 2.0],
        "from fractions import Fraction\nans = Fraction(1, 4)": 0.25,
        "def f():\n    yield 7\nans = next(f())": 7.0,
        "import datetime\nans = str(datetime.datetime.now())": "2024-01-01 00:00:00",
        "import datetime\nans = str(datetime.date.today())": "2024-01-01",
        "import datetime\nans = isinstance(datetime.datetime(2020, 1, 1), datetime.date)": True,
        "import time\ntime.sleep(60)\nans = time.time()": 1704067200.0,
        "from dateutil.relativedelta import relativedelta\nans = relativedelta(months=14).years": 1.0,
    }  # fmt: skip
    with Runner(workers=2, tiers=(2,)) as runner:
        outcomes = list(runner.run_many(programs))
        drawn = (
            "import random, numpy as np\nans = [random.random(), np.random.rand(), np.random.default_rng().random()]"
        )
        draws = [runner.run(drawn).value for _ in range(2)]
    assert [outcome.value for outcome in outcomes] == list(programs.values())
    assert {outcome.tier for outcome in outcomes} == {2}
    assert draws[0] == draws[1] is not None
    assert len(set(draws[0])) == 3


def test_what_a_program_leaves_of_a_jail_is_nothing() -> None:
    jail_or_skip()
    before = {process.pid for process in psutil.process_iter()}
    status, _ = program_jail.run(Program("while True:\n    pass", "ans"), BRIEF)
    assert status == "timeout"
    _, alive = psutil.wait_procs(
        [p for p in psutil.Process().children(recursive=True) if p.pid not in before], timeout=10
    )
    assert alive == []
