"""Stores as files: merged, checked, salvaged, pruned, and exported for others to read.

Everything streams: no function holds more than a batch of rows, however many a store has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.store import ANSWER, COMPLETION_COLUMNS, FAILURE_COLUMNS, Store, row_digest

_BATCH = 500
_COMPLETIONS = f"SELECT {', '.join(COMPLETION_COLUMNS)} FROM completions"
_FAILURES = f"SELECT {', '.join(FAILURE_COLUMNS)} FROM failures"


@dataclass
class MergeReport:
    """What a merge, an import or a recovery brought into a store.

    Attributes:
        added: Completions that were new.
        known: Completions that were there already.
        conflicts: Those of the known that answer otherwise than the one that was there, which stays.
        failures: Failures that were new, or later than the one that was there.
    """

    added: int = 0
    known: int = 0
    conflicts: int = 0
    failures: int = 0


def merge(into: str | Path, sources: Iterable[str | Path]) -> MergeReport:
    """Bring everything that `sources` hold into a store.

    The first answer to a request stays; answers go before failures, and of two failures the later one stays. Each
    batch is a transaction, so an interrupted merge is finished by doing it again, and a collector may go on meanwhile.

    Args:
        into: The store that is added to; made where it is missing.
        sources: Stores, which stay as they are.

    Raises:
        UserError: A source is missing or no store.
        StoreDamaged: A source has a damaged row; what came before it is merged.
    """
    report = MergeReport()
    opened = [Path(source) for source in sources]
    for path in opened:
        Store(path, read_only=True).close()  # a missing one is told before anything is written
    with Store(into) as store:
        for path in opened:
            with Store(path, read_only=True) as source:
                add_completions(store, _sound(source, _COMPLETIONS), report)
                add_failures(store, _sound(source, _FAILURES), report)
    return report


def add_completions(store: Store, rows: Iterable[Any], report: MergeReport) -> None:
    """Add rows with the columns of `COMPLETION_COLUMNS` to a store, batch by batch, and count them in `report`."""
    for batch in _batches(rows):
        digests = [row[0] for row in batch]
        there = f"{_COMPLETIONS} WHERE digest IN ({', '.join('?' * len(digests))})"
        kept = {row[0]: row[ANSWER] for row in store.select(there, tuple(digests))}
        added = store.add_completions(batch)
        report.added += added
        report.known += len(batch) - added
        report.conflicts += sum(kept.setdefault(row[0], row[ANSWER]) != row[ANSWER] for row in batch)


def add_failures(store: Store, rows: Iterable[Any], report: MergeReport) -> None:
    """Add rows with the columns of `FAILURE_COLUMNS` to a store, batch by batch, and count them in `report`."""
    for batch in _batches(rows):
        report.failures += store.add_failures(batch)


def _sound(source: Store, query: str) -> Iterator[Any]:
    for row in source.select(query):
        if row_digest(row[:-1]) != row[-1]:
            raise source.damaged(f"the row of request {row[0]} is not what was stored")
        yield row


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch
