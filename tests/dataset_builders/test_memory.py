"""A build keeps no row in memory: what is alive at any moment does not grow with the number of problems."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataset_builders import figures, load_builder
from dataset_builders.asking import Asker
from dataset_builders.building import build_dataset
from dataset_builders.chains import Chain
from toolkit.problem import Problem
from toolkit.teachers.protocol import Completion, Request

pytestmark = pytest.mark.slow

KINDS = {Problem, Chain, Request, Completion}
PROBLEMS = 300
CONFIG = {
    "problems": {"source": "procedural", "tasks": ["chained_arithmetic", "ordering"], "n": PROBLEMS, "n_test": 10},
    "teacher": {"kind": "procedural", "error_rate": 0.5},
    "collect": {"concurrency": 4},
}


@pytest.fixture(autouse=True)
def nothing_older() -> Iterator[None]:
    """Leave out what was alive before: to look at all objects of the libraries takes most of a minute."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def alive() -> int:
    """Return how many problems, chains, requests, completions and columns of chains came into memory and are there."""
    return sum(
        type(thing) in KINDS or (type(thing) is dict and "sample_index" in thing and "top_p" in thing)
        for thing in gc.get_objects()
    )


@pytest.mark.parametrize(
    ("builder", "more"),
    [
        ("teacher_cots", {"demonstrations": 2}),
        ("dual_cots", {}),
        ("counterfactual_rationales", {}),
        ("socratic_steps", {}),
        ("counterfactual_pairs", {"problems": {**CONFIG["problems"], "tasks": ["contests"]}, "edits": 1}),
    ],
)
def test_no_row_stays_in_memory(builder: str, more: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, counts, allocated = 0, [], [0]
    before_in_arrow = pa.total_allocated_bytes()

    def watched(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 61 == 0:  # a look at all objects takes a while
                counts.append(alive())
            allocated.append(pa.total_allocated_bytes() - before_in_arrow)  # rows of a table are no Python objects
            return function(*args, **kwargs)

        return call

    # While the store is read, in asking and in building; and while the card's figures are taken.
    monkeypatch.setattr(Asker, "chain", watched(Asker.chain))
    monkeypatch.setattr(figures, "words", watched(figures.words))

    report = build_dataset(
        builder,
        load_builder(builder).SETTINGS.model_validate({**CONFIG, **more}),
        tmp_path / "store.sqlite",
        hub_dir=tmp_path / "hub",
        repo_id="org/many",
        revision="v1.0.0",
        command="distill build recipe.yaml",
        cache_dir=tmp_path / "cache",
        show_progress=False,
    )

    assert len(report.outcome.train) + len(report.outcome.rejected) >= PROBLEMS
    assert len(counts) >= 4
    # Sixteen exemplars of each of two tasks, with two chains and their provenance each, are 160; the rest is in flight.
    # Rows that were kept would be three times as many as there are problems at least.
    assert 0 < max(counts) < PROBLEMS, counts
    written = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.arrow"))
    assert written > 100_000
    assert max(allocated) < written / 10
