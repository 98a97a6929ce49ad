"""Stores as files: merged, checked, salvaged, pruned, and exported for others to read.

Everything streams: no function holds more than a batch of rows, however many a store has.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from toolkit.errors import UserError, nearest
from toolkit.store import Store, StoreDamaged, holder
from toolkit.store_pages import log_of, rows_of_file, rows_of_log
from toolkit.store_rows import ANSWER, COMPLETION_COLUMNS, FAILURE_COLUMNS, is_sound, unpacked

BATCH = 500
_MOST_DAMAGE = 20
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
    for batch in batches(rows):
        digests = [row[0] for row in batch]
        there = f"{_COMPLETIONS} WHERE digest IN ({', '.join('?' * len(digests))})"
        kept = {row[0]: row[ANSWER] for row in store.select(there, tuple(digests))}
        added = store.add_completions(batch)
        report.added += added
        report.known += len(batch) - added
        report.conflicts += sum(kept.setdefault(row[0], row[ANSWER]) != row[ANSWER] for row in batch)


def add_failures(store: Store, rows: Iterable[Any], report: MergeReport) -> None:
    """Add rows with the columns of `FAILURE_COLUMNS` to a store, batch by batch, and count them in `report`."""
    for batch in batches(rows):
        report.failures += store.add_failures(batch)


@dataclass(frozen=True)
class VerifyReport:
    """What a check of a whole store found.

    Attributes:
        completions: Healthy completions.
        failures: Healthy failures.
        damage: What is damaged, one line each; the check stops after the first twenty.
    """

    completions: int
    failures: int
    damage: tuple[str, ...]


def verify(path: str | Path) -> VerifyReport:
    """Check a store: SQLite's own check of pages and indexes, the digest of every row, and the write-ahead log.

    It changes nothing, and may be done while others read and write.

    Raises:
        UserError: There is no such store, or it is another kind of file.
    """
    counts: dict[str, int] = {"completions": 0, "failures": 0}
    damage = tuple(itertools.islice(_damage(Path(path), counts), _MOST_DAMAGE))
    return VerifyReport(**counts, damage=damage)


def _damage(path: Path, counts: dict[str, int]) -> Iterator[str]:
    # Where a page of the log is damaged SQLite takes the log to end there, and says nothing: so it is read first, and
    # what it holds has to be in the store.
    logged = [str(row[0]) for row in rows_of_log(path, len(COMPLETION_COLUMNS)) if is_sound(row)]
    try:
        store = Store(path, read_only=True)
    except StoreDamaged as error:
        yield error.what
        return
    with store:
        try:
            yield from _damaged_pages(store)
        except StoreDamaged as error:
            yield f"pages: {error.what}"
        try:
            yield from _damaged_rows(store, counts)
        except StoreDamaged as error:
            yield f"rows: {error.what}, after {counts['completions']} completions and {counts['failures']} failures"
        try:
            if lost := store.unreached(logged):
                yield f"log: {lost} completions in {log_of(path)} are out of reach"
        except StoreDamaged as error:
            yield f"log: {error.what}"


def _damaged_pages(store: Store) -> Iterator[str]:
    for (said,) in store.select(f"PRAGMA integrity_check({_MOST_DAMAGE})"):
        if said != "ok":
            yield f"pages: {said}"


def _damaged_rows(store: Store, counts: dict[str, int]) -> Iterator[str]:
    for table, query in (("completions", _COMPLETIONS), ("failures", _FAILURES)):
        for row in store.select(query):
            if is_sound(row):
                counts[table] += 1
            else:
                yield f"rows: that of request {row[0]} in {table} is not what was stored"


@dataclass
class RecoverReport(MergeReport):
    """What was saved, as in a merge, and what was not.

    Attributes:
        lost: Completions that the damaged store still counts, but that are not whole; None where it cannot count.
    """

    lost: int | None = None


def recover(path: str | Path, into: str | Path) -> RecoverReport:
    """Copy every healthy row of a damaged store into a new one; the damaged one stays as it is.

    Every page is looked at by itself, so what is lost is what stood on damaged pages. Nobody may be collecting.

    Args:
        path: The damaged store, with its log (`-wal`) beside it if there is one.
        into: The new store.

    Raises:
        UserError: There is no such file, `into` exists, or the file holds not one healthy row.
    """
    path, into = Path(path), Path(into)
    if not path.is_file():
        raise UserError(f"{path}: no such store of completions")
    if into.exists():
        raise UserError(f"{into}: exists already; name a new file, and merge it afterwards if you want both")
    counted = None
    with suppress(UserError), Store(path, read_only=True) as damaged:
        counted = next(damaged.select("SELECT count(*) FROM completions"))[0]  # by an index, not by the rows
    report = RecoverReport()
    with Store(into) as store:
        add_completions(store, filter(is_sound, rows_of_file(path, len(COMPLETION_COLUMNS))), report)
        add_failures(store, filter(is_sound, rows_of_file(path, len(FAILURE_COLUMNS))), report)
    if not report.added + report.failures:
        into.unlink()
        raise UserError(f"{path}: holds no healthy row of a store")
    report.lost = None if counted is None else max(0, counted - report.added)
    return report


@dataclass(frozen=True)
class PruneReport:
    """What was dropped, or would be.

    Attributes:
        dropped: Rows.
        bytes_before: Size of the file.
        bytes_after: Size of it afterwards; as before where nothing was dropped.
        damage: Rows that cannot say whether they are meant, one line each, at most twenty; they stay.
    """

    dropped: int
    bytes_before: int
    bytes_after: int
    damage: tuple[str, ...] = ()


def prune(
    path: str | Path, *, failures: bool = False, model: str | None = None, before: date | None = None, dry: bool = False
) -> PruneReport:
    """Drop completions, or failures, and give the space back; the next build asks for what it misses.

    Args:
        path: The store.
        failures: Drop failures instead of completions.
        model: Only what was asked of this model.
        before: Only what was stored before this day (UTC).
        dry: Count, and drop nothing.

    Raises:
        UserError: Nothing says what to drop, the model is not in the store, or somebody is collecting into it.
    """
    if not failures and model is None and before is None:
        raise UserError("found nothing that says what to drop; name --failures, --model or --before")
    table = "failures" if failures else "completions"
    conditions, values = ["true"], []
    if model is not None:
        named = (
            "CASE WHEN json_valid(request) THEN json_extract(request, '$.model') END"  # else damaged JSON is an error
        )
        conditions.append(f"{named} = ?" if failures else "model = ?")
        values.append(model if failures else json.dumps(model))
    if before is not None:
        conditions.append("created_at < ?")
        values.append(before.isoformat())
    which = f"FROM {table} WHERE {' AND '.join(conditions)}"
    path = Path(path)
    with Store(path, read_only=True) as store:
        known = store.models()
        if model is not None and not failures and model not in known:
            raise UserError(f"{path}: no completion of model {model!r}, only of {known}{nearest(model, known)}")
        (count,) = next(store.select(f"SELECT count(*) {which}", tuple(values)))
        damage = tuple(_unreadable(store, {table: "request" if failures else "model"})) if model is not None else ()
    size = path.stat().st_size
    if count and not dry:
        with Store(path) as store, store.collecting():
            store.change("PRAGMA secure_delete = ON")  # or `recover` might bring back what was only unlinked
            store.change(f"DELETE {which}", tuple(values))
            store.change("VACUUM")
            store.change("PRAGMA wal_checkpoint(TRUNCATE)")
    return PruneReport(count, size, path.stat().st_size, damage)


def _unreadable(store: Store, columns: dict[str, str]) -> Iterator[str]:
    """Yield rows of which a column, named for each table, holds no JSON: the first twenty."""
    found = (
        f"row {digest} of {table}: its {column} is damaged"
        for table, column in columns.items()
        for digest, value in store.select(f"SELECT digest, {column} FROM {table} ORDER BY digest")
        if not _holds_json(value, column)
    )
    yield from itertools.islice(found, _MOST_DAMAGE)


def _holds_json(value: object, column: str) -> bool:
    if column != "request":
        return unpacked(value) is not None
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class Contents:
    """What a store holds.

    Attributes:
        models: Per requested model: completions, tokens of prompts, those of them from a cache, tokens of completions,
            completions that came in a batch.
        failures: Failures by reason and whether they are for good, the most frequent first.
        first: When the first completion was stored (UTC, ISO 8601), empty where there is none.
        last: When the last one was.
        size: Bytes of the file and its log.
        holder: Who is collecting into it.
        damage: Rows that cannot be told among these, one line each, at most twenty.
    """

    models: dict[str, tuple[int, int, int, int, int]]
    failures: list[tuple[str, bool, int]]
    first: str
    last: str
    size: int
    holder: str | None
    damage: tuple[str, ...] = ()


def contents(path: str | Path) -> Contents:
    """Count what a store holds; others may be writing. A damaged row is named and counted in nothing else.

    Raises:
        UserError: There is no such store.
    """
    path = Path(path)
    with Store(path, read_only=True) as store:
        models = store.select(
            "SELECT model, count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(batched) "
            "FROM completions GROUP BY model ORDER BY model"
        )
        failures = store.select(
            "SELECT reason, permanent, count(*) FROM failures GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2"
        )
        named = [(unpacked(model), tuple(sums)) for model, *sums in models]
        reasons = [(unpacked(reason), bool(permanent), count) for reason, permanent, count in failures]
        is_whole = all(name is not None for name, *_ in [*named, *reasons])
        first, last = next(
            store.select(
                "SELECT ifnull(min(created_at), ''), ifnull(max(created_at), '') FROM completions "
                "WHERE created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*Z'"
            )
        )
        return Contents(
            {name: sums for name, sums in named if name is not None},
            [(reason, permanent, count) for reason, permanent, count in reasons if reason is not None],
            first,
            last,
            sum(file.stat().st_size for file in (path, log_of(path)) if file.exists()),
            holder(path),
            () if is_whole else tuple(_unreadable(store, {"completions": "model", "failures": "reason"})),
        )


def _sound(source: Store, query: str) -> Iterator[Any]:
    for row in source.select(query):
        if not is_sound(row):
            raise StoreDamaged(source.path, f"the row of request {row[0]} is not what was stored")
        yield row


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield rows in lists of `BATCH`, the last one shorter."""
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch
