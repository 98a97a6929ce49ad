"""The lock of libraries that is published with a student."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from toolkit import installed


def test_every_direct_dependency_is_pinned_to_what_is_installed() -> None:
    pins = installed.versions(installed.lock())
    direct = [Requirement(line) for line in requires("cot-distillery") or []]
    assert "trl" in {requirement.name for requirement in direct}
    for requirement in direct:
        if requirement.marker is None:
            assert pins[requirement.name.lower().replace("_", "-")] == version(requirement.name)


def test_what_a_dependency_needs_is_pinned_and_what_tests_need_is_not() -> None:
    pins = installed.versions(installed.lock())
    assert {"safetensors", "mpmath", "antlr4-python3-runtime"} <= pins.keys()
    assert not {"pytest", "hypothesis", "ruff"} & pins.keys()


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="no pip here")
def test_pip_takes_it_and_finds_nothing_to_install(tmp_path: Path) -> None:
    """Pip parses every line; what is installed satisfies it, local builds included."""
    file = tmp_path / "environment.txt"
    file.write_text(installed.lock())
    words = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "-r", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_a_local_build_is_pinned_by_its_public_version_and_read_with_its_own() -> None:
    assert installed._pin("torch", "2.13.0+cpu") == "torch==2.13.0  # 2.13.0+cpu"
    assert installed.versions("torch==2.13.0  # 2.13.0+cpu\n") == {"torch": "2.13.0+cpu"}


def test_no_difference_from_itself() -> None:
    assert installed.differences(installed.lock()) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rapidfuzz==0.0.1", f"rapidfuzz was 0.0.1, is {version('rapidfuzz')}"),
        ("no-such-library==1.0", "no-such-library was 1.0, is missing"),
        ("# cot-distillery 9.9, Python 3.0.0", "cot-distillery was 9.9"),
    ],
)
def test_a_difference_is_named_with_both_versions(line: str, told: str) -> None:
    assert installed.differences(f"{line}\n")[0].startswith(told)
