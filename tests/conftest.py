"""What holds for every test: drawn examples are the same in every run; `--hypothesis-profile default` draws others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from toolkit.store import Store

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


COLLECTED = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)  # before `-m` and `-k` take any away
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: of two processes, neither is left alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    config.stash[COLLECTED] = [item.nodeid for item in items]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store, open."""
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened
