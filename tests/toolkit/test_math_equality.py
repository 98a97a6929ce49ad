"""The mathematics verifier: what it calls equal, and that its process starts late, is reused and can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from toolkit.math_equality import WORKER, MathWorker, judged_by, math_equal


@pytest.mark.parametrize(
    ("predicted", "gold"),
    [
        ("\\frac{1}{2}", "0.5"),
        ("1/2", "\\frac12"),
        ("(x+1)^2", "x^2+2x+1"),
        ("2\\sqrt{2}", "\\sqrt{8}"),
        ("x = 5", "5"),
        ("(84 / 2)", "42"),
        ("\\{2, 1\\}", "\\{1, 2\\}"),
        ("\\boxed{3\\pi}", "$3\\pi$"),
        ("so it is $x^2$ then", "x^2"),
    ],
)
def test_two_writings_of_one_object_are_equal(predicted: str, gold: str) -> None:
    assert math_equal(predicted, gold)


@pytest.mark.parametrize(
    ("predicted", "gold"),
    [("12", "1"), ("(1,2)", "(1,3)"), ("x", "y"), ("", "5"), ("\\text{Monday}", "\\text{Tuesday}"), ("\ud800\0", "5")],
)
def test_other_objects_are_not_equal(predicted: str, gold: str) -> None:
    assert not math_equal(predicted, gold)


@pytest.mark.parametrize(("passed", "is_patient"), [(8.0, True), (12.0, False)])
def test_seconds_are_those_of_computing_so_that_a_worker_that_has_to_wait_is_not_too_slow(
    monkeypatch: pytest.MonkeyPatch, passed: float, is_patient: bool
) -> None:
    """So many seconds pass at once after each question, none of them of computing; ten are allowed for one of those."""

    class PassedTime:
        def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
            self._seconds, self._expire = seconds, expire

        def start(self) -> None:
            if self._seconds < passed:
                self._expire()

        def cancel(self) -> None: ...

        join = cancel

    worker = MathWorker()
    assert worker.equal("1", "1", timeout=60.0)
    pid = worker.pid
    assert pid is not None
    monkeypatch.setattr("toolkit.math_equality.threading.Timer", PassedTime)
    assert worker.equal("0.5", "\\frac{1}{2}", timeout=1.0) is is_patient
    assert (worker.pid == pid) is is_patient
    worker.stop()


def test_another_judge_is_asked_in_the_worker_s_place_until_it_is_gone() -> None:
    asked: list[tuple[str, str, float]] = []

    def judge(predicted: str, gold: str, timeout: float) -> bool:
        asked.append((predicted, gold, timeout))
        return predicted == "yes"

    with judged_by(judge):
        assert math_equal("yes", "1", 2.5)
        with judged_by(lambda *_: True):
            assert math_equal("no", "1")
        assert not math_equal("no", "1")
    assert asked == [("yes", "1", 2.5), ("no", "1", 5.0)]
    with pytest.raises(KeyError), judged_by(judge):
        raise KeyError
    assert math_equal("1/2", "0.5")


def test_what_is_longer_than_any_expression_is_not_asked_about() -> None:
    asked: list[int] = []
    with judged_by(lambda predicted, gold, _: asked.append(max(len(predicted), len(gold))) is None):
        assert math_equal("1" * 2_000, "2")
        assert math_equal("1", "2" * 2_000)
        assert math_equal("1" * 2_001, "2") is False
        assert not math_equal("1", "2" * 2_001)
    assert asked == [2_000, 2_000]


def test_a_worker_that_dies_on_a_question_is_asked_twice_and_then_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker, asked = MathWorker(), []

    def dying(question: str, timeout: float) -> tuple[str, bool]:
        asked.append((json.loads(question), timeout))
        return "", False

    monkeypatch.setattr(worker, "_start", lambda: None)
    monkeypatch.setattr(worker, "_ask", dying)
    assert not worker.equal("1", "2", timeout=3.0)
    assert asked == [({"predicted": "1", "gold": "2", "seconds": 3.0}, 30.0)] * 2
    assert caplog.messages == ["math-verify died on '1' == '2': not equal"]
    caplog.clear()
    monkeypatch.setattr(worker, "_ask", lambda question, timeout: ("", True))
    assert not worker.equal("1", "2", timeout=3.0)
    assert caplog.messages == ["math-verify took over 3 s for '1' == '2': not equal"]


def test_a_worker_that_cannot_start_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = MathWorker()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"the math-verify worker did not start; is `math-verify\[.*\]` installed\?"):
        worker.equal("1", "1", timeout=1.0)
    assert worker.pid is None


def test_a_worker_that_is_forgotten_lives_on_and_one_that_is_stopped_does_not() -> None:
    worker = MathWorker()
    assert worker.pid is None
    worker.stop()  # there is none
    assert worker.equal("2/4", "0.5", timeout=60.0)
    pid, process = worker.pid, worker._process
    worker.forget()
    assert worker.pid is None
    assert pid is not None
    assert process is not None
    assert process.poll() is None
    worker._process = process
    worker.stop()
    assert process.poll() == -signal.SIGKILL
    assert worker.pid is None
    assert all(pipe is None or pipe.closed for pipe in (process.stdin, process.stdout))


def test_importing_starts_no_process_and_no_sympy() -> None:
    code = "import sys, toolkit.answers, toolkit.math_equality as m; print(m.WORKER.pid, 'sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "None False\n"


def test_one_process_answers_many_questions() -> None:
    math_equal("1", "1")
    first = WORKER.pid
    math_equal("x^2", "x^3")
    assert WORKER.pid == first is not None


SERVING = """
import resource, signal, sys, toolkit.math_judge as verifier, math_verify
calls = []
verify = math_verify.verify
math_verify.verify = lambda *a, **k: print('a library speaks') or verify(*a, **k)
signal.alarm = lambda seconds: calls.append(seconds)
signal.setitimer = lambda which, seconds: calls.append((which == signal.ITIMER_PROF, seconds))
verifier.serve()
print(calls, resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGINT).name, file=sys.stderr)
"""


def test_the_worker_limits_its_memory_and_its_seconds_and_leaves_ctrl_c_to_its_parent() -> None:
    questions = '{"predicted": "$1/2$", "gold": "0.5", "seconds": 1.5}\n\n'
    ended = subprocess.run([sys.executable, "-c", SERVING], input=questions, capture_output=True, text=True)
    assert ended.stdout == "1\n0\n"
    # 1.5 seconds of computing, ten times as many on the clock and two to spare; and both off again. Four GiB.
    limits = "[(True, 1.5), 17, (True, 0), 0] (4294967296, 4294967296) SIG_IGN"
    assert ended.stderr.strip().endswith(limits)


def test_a_verifier_that_hangs_is_killed_and_counts_as_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, asked = MathWorker(), []
    ask = worker._ask
    monkeypatch.setattr(worker, "_ask", lambda question, timeout: asked.append(question) or ask(question, timeout))
    assert not worker.equal("10^{10^{10}}", "5", timeout=1.0)
    assert worker.pid is None
    assert len(asked) == 2  # the first one is whether it has started: who computes too long is not asked again
    assert worker.equal("0.5", "\\frac{1}{2}", timeout=60.0)
    worker.stop()


def test_a_question_that_takes_too_long_on_the_clock_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that fires at once stands for one that has waited."""

    class Fired:
        def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
            self._expire = expire

        def start(self) -> None:
            self._expire()

        def cancel(self) -> None: ...

        join = cancel

    worker, asked = MathWorker(), []
    assert worker.equal("1", "1", timeout=60.0)
    ask = worker._ask
    monkeypatch.setattr(worker, "_ask", lambda question, timeout: asked.append(question) or ask(question, timeout))
    monkeypatch.setattr("toolkit.math_equality.threading.Timer", Fired)
    assert not worker.equal("1", "1", timeout=1.0)
    assert len(asked) == 1
    assert worker.pid is None


def test_a_question_that_raises_leaves_the_worker_alive() -> None:
    assert math_equal("1", "1")
    pid = WORKER.pid
    assert not math_equal("\\frac{1}{", "\\frac{2}{")
    assert not math_equal("1/0", "1/0+1")
    assert WORKER.pid == pid is not None


def test_a_worker_that_somebody_killed_is_replaced() -> None:
    assert math_equal("1/4", "0.25")
    assert WORKER.pid is not None
    os.kill(WORKER.pid, signal.SIGKILL)
    assert math_equal("1/4", "0.25")


def test_threads_take_turns() -> None:
    answers: dict[int, bool] = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.__setitem__(i, math_equal(f"{i}/4", f"{i * 0.25}")))  # type: ignore[misc]
        for i in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(1, 9), True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_starts_its_own_worker() -> None:
    code = (
        "import os, sys; from toolkit.math_equality import WORKER, math_equal\n"
        "assert math_equal('1/2', '0.5'); parent = WORKER.pid\n"
        "child = os.fork()\n"
        "forgot = WORKER._process is None\n"
        "if not child: os._exit(0 if forgot and math_equal('1/2', '0.5') and WORKER.pid != parent else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert math_equal('1/4', '0.25') and WORKER.pid == parent"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks /proc")
def test_the_worker_ends_with_its_parent() -> None:
    code = "import os, signal; from toolkit.math_equality import *; math_equal('1', '2'); print(WORKER.pid, flush=True)"
    for ending in ("", "; os.kill(os.getpid(), signal.SIGKILL)"):
        ended = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True)
        # `run` waits for the parent only; the worker ends when it finds its stdin closed.
        worker = int(ended.stdout)
        for _ in range(200):
            if not _is_running(worker):
                break
            threading.Event().wait(0.05)
        assert not _is_running(worker)


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
