"""Are two mathematical expressions equal? Asked of `math_judge`, in a process that can be killed.

math-verify's own timeouts use SIGALRM: they fail outside the main thread and cannot interrupt C code. Here one worker
process is started at the first question, reused for the next ones, and killed when it takes too long. Nothing starts at
import. What this module does not do: find the answer in a completion (`toolkit.answers` does).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from toolkit.math_judge import PATIENCE
from toolkit.math_reading import LONGEST

logger = logging.getLogger(__name__)

START_SECONDS = 120.0  # importing sympy and antlr on a busy machine
# By path and with -P, so that the worker imports neither the caller's __main__ nor what lies in its working directory.
_SERVE = "import sys; sys.path.insert(0, sys.argv.pop()); from toolkit.math_judge import serve; serve()"


class MathWorker:
    """The worker process and the right to ask it; threads take turns.

    A forked child never shares its parent's worker (`forget` runs in it); a spawned one starts its own at need.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the worker without touching it: it belongs to the process that forked us."""
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the living worker, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def stop(self) -> None:
        """Kill the worker if there is one; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                # A dead reader makes the flush inside close() fail; the pipe is closed all the same.
                with contextlib.suppress(OSError):
                    _opened(pipe).close()

    def equal(self, predicted: str, gold: str, timeout: float) -> bool:
        """Ask once; a worker that somebody else killed is replaced and asked again, one that hangs is not."""
        question = json.dumps({"predicted": predicted, "gold": gold, "seconds": timeout})
        with self._lock:
            for _ in range(2):
                if self.pid is None:
                    self._start()
                answer, expired = self._ask(question, PATIENCE * timeout)
                if answer:
                    return answer == "1\n"
                if expired:
                    logger.warning("math-verify took over %g s for %.80r == %.80r: not equal", timeout, predicted, gold)
                    return False
        logger.warning("math-verify died on %.80r == %.80r: not equal", predicted, gold)
        return False

    def _start(self) -> None:
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(Path(__file__).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if not self._ask("", START_SECONDS)[0]:
            self.stop()
            raise RuntimeError("the math-verify worker did not start; is `math-verify[antlr4_13_2]` installed?")

    def _ask(self, question: str, timeout: float) -> tuple[str, bool]:
        """Send one line, read one line -> (line or "" for a worker that is dead now, whether it was too slow)."""
        process = self._process
        assert process is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()  # the blocking read below then ends, on every platform

        timer = threading.Timer(timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            _opened(process.stdin).write(question + "\n")
            _opened(process.stdin).flush()
            answer = _opened(process.stdout).readline()
        except OSError:
            answer = ""
        finally:
            timer.cancel()
            timer.join()  # after this line the timer can no longer kill what we are about to reuse
        if not answer:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        computed_too_long = hasattr(signal, "SIGPROF") and process.returncode == -signal.SIGPROF
        if expired.is_set() or not answer:
            self.stop()
        return answer, expired.is_set() or computed_too_long


def _opened(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


Judge = Callable[[str, str, float], bool]
"""Says whether (predicted, gold) are equal, given the seconds that it may compute."""

WORKER = MathWorker()
_judge: Judge = WORKER.equal
atexit.register(WORKER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)


@contextlib.contextmanager
def judged_by(judge: Judge) -> Iterator[None]:
    """Have `judge` asked in the place of this process's worker, e.g. one that knows what was judged elsewhere."""
    global _judge
    before, _judge = _judge, judge
    try:
        yield
    finally:
        _judge = before


def math_equal(predicted: str, gold: str, timeout: float = 5.0) -> bool:
    """Whether `predicted` is the same mathematical object as `gold`, both wholly understood (`math_judge.equal`).

    Args:
        predicted: An expression, in LaTeX or plain; with or without dollar signs.
        gold: The reference. The order matters to math-verify: it simplifies assignments on the gold side.
        timeout: Seconds of computing after which the worker is killed and the pair counts as not equal; of computing,
            so that a busy machine judges as an idle one does.

    Raises:
        RuntimeError: The worker cannot start, e.g. because math-verify is not installed.
    """
    if max(len(predicted), len(gold)) > LONGEST:
        return False
    return _judge(predicted, gold, timeout)
