"""Commands of `distill` in processes of their own that need not import torch and TRL, which takes ten seconds, each.

They are forked from a server process that has imported both and has done nothing else. Their environment is
`tests.tiny_recipe.environment()`. What depends on the order of imports, or on variables that libraries read when they
are imported, is tested in a fresh process.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

TIMEOUT_S = 300


@cache
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm_imports"])
    return context


def _begin(run: Callable[..., Any], words: Sequence[str], out: str, err: str) -> None:
    for place, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), place)
    # The server's own are closed or belong to it.
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [run.__name__, *words]
    sys.exit(run(*words))


def in_warm_process(run: Callable[..., Any], *words: str) -> subprocess.CompletedProcess[str]:
    """Call a function of a module with words, in a process; what it returns is the exit code, None is 0."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (str(Path(folder) / name) for name in ("out", "err"))
        process = _server().Process(target=_begin, args=(run, words, out, err))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([run.__name__, *words], TIMEOUT_S)
        said = [Path(file).read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return subprocess.CompletedProcess([run.__name__, *words], process.exitcode, *said)


def distill_words(*words: str) -> int:
    """Run a command of `distill`."""
    from toolkit.cli import main

    return main(words)
