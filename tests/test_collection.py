"""Every process collects the same tests: two workers of `pytest -n 2` that differ end a run before it begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COLLECTED
from tests.tiny_recipe import ROOT

pytestmark = pytest.mark.slow

# Collects as a process does that is started a day later: what holds the time in its name has another one.
COLLECT = """
import sys, time
import pytest

class Names:
    def pytest_collection_finish(self, session):
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            file.writelines(ascii(item.nodeid) + "\\n" for item in session.items)

now, later = time.time, float(sys.argv[2])
time.time = lambda: now() + later
options = ["-o", "addopts=--strict-markers --import-mode=importlib", "-p", "no:cacheprovider", "--collect-only", "-qq"]
sys.exit(pytest.main([*options, "tests"], plugins=[Names()]))
"""


def collecting(folder: Path, seed: str, later: int, surroundings: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that writes the names of all tests into `folder`."""
    (folder / "tmp").mkdir(parents=True)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(folder / "tmp"), **surroundings}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-c", COLLECT, str(folder / "names"), str(later)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def collected(process: subprocess.Popen[str], folder: Path) -> list[str]:
    """Return the names that such a process has written."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return (folder / "names").read_text().splitlines()


def test_tests_have_the_same_names_and_order_in_every_process_at_every_time(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    later, now = tmp_path / "later", tmp_path / "now"
    process = collecting(later, "1", 24 * 60 * 60, {"TZ": "Asia/Tokyo", "LC_ALL": "C"})
    again = collected(process, later)
    names = [ascii(name) for name in pytestconfig.stash[COLLECTED]]  # by this process, with a random seed
    if len(names) != len(again):  # this process was asked for a part of the tests
        names = collected(collecting(now, "2", 0, {"TZ": "UTC", "LC_ALL": "C.UTF-8"}), now)
    assert [pair for pair in zip(names, again, strict=True) if pair[0] != pair[1]] == []
    assert len(set(names)) == len(names) > 1000
