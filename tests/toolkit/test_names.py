"""No module of the toolkit bears the name of a library: `accelerate launch toolkit/train.py` puts its folder first."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest

import toolkit

FOLDER = Path(toolkit.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
def test_a_module_shadows_no_library(name: str) -> None:
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() not in (FOLDER, FOLDER.parent)]
    assert name not in sys.stdlib_module_names
    assert importlib.machinery.PathFinder.find_spec(name, elsewhere) is None
