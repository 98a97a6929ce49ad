"""The durable store of completions: one SQLite file that outlives every run and every dataset built from it.

It keeps what was asked, what was answered and what failed. It asks nobody anything; `collect` does that.
SQLite's write-ahead log needs a local disk: keep a store off network file systems.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from toolkit.errors import UserError
from toolkit.store_rows import (
    COMPLETION_COLUMNS,
    FAILURE_COLUMNS,
    Row,
    completion_of,
    completion_row,
    failure_row,
    is_sound,
    packed,
    request_of,
    unpacked,
)
from toolkit.teachers.protocol import Completion, Request

if TYPE_CHECKING:
    from filelock import BaseFileLock

Standing = Literal["answered", "failed", "refused"]

_APPLICATION_ID = 0x436F5444  # "CoTD" in the file's header tells a store from any other SQLite database
_SCHEMA_VERSION = 2
_BUSY_S = 60.0
PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (
    digest TEXT PRIMARY KEY, prompt_digest TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL,
    finish_reason TEXT NOT NULL, answered_by TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, batched INTEGER NOT NULL, text TEXT NOT NULL,
    reasoning TEXT NOT NULL, raw TEXT NOT NULL, request TEXT NOT NULL, row_digest TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS completions_by_prompt ON completions (prompt_digest, model);
CREATE TABLE IF NOT EXISTS failures (
    digest TEXT PRIMARY KEY, created_at TEXT NOT NULL, permanent INTEGER NOT NULL, reason TEXT NOT NULL,
    request TEXT NOT NULL, row_digest TEXT NOT NULL);
"""
_COMPLETION = f"SELECT {', '.join(COMPLETION_COLUMNS)} FROM completions WHERE "
_FAILURE = f"SELECT {', '.join(FAILURE_COLUMNS)} FROM failures WHERE digest = ?"
_ADD = f"INSERT INTO completions VALUES ({', '.join('?' * len(COMPLETION_COLUMNS))}) ON CONFLICT DO NOTHING"
_STANDING = (
    "SELECT 'answered' FROM completions WHERE digest = ?1 UNION ALL "
    "SELECT iif(permanent, 'refused', 'failed') FROM failures WHERE digest = ?1 LIMIT 1"
)


class StoreDamaged(UserError):
    """A store whose file is not what was written: pages or rows that the disk, or somebody, has changed.

    Attributes:
        what: What is damaged; the message also says what to do.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: damaged: {what}. `distill store recover {path} NEW` copies every healthy row into a new store; "
            "put that one in its place, and the next build asks only for what was lost"
        )
        self.what = what


@dataclass(frozen=True)
class StoreStats:
    """What a store holds.

    Attributes:
        completions: Answered requests.
        failures: Requests whose last outcome was a failure.
        prompt_tokens: Tokens of all prompts as billed.
        completion_tokens: Tokens of all completions as billed.
        models: Completions per requested model.
    """

    completions: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    models: dict[str, int]


class Store:
    """Completions and failures under the digest of their request, in one file.

    Several processes may read a store while one writes. Within a process threads may write, each in its turn, while
    one reads: writing and reading have a connection each, so that a read neither waits for a commit nor sees half of
    one. A `Store` is not carried into a forked process: open it anew there.

    Args:
        path: The file; made, with its folders, where it is missing.
        read_only: Open an existing store and never change it.

    Raises:
        UserError: The file is not a store, is of another version, or cannot be opened.
        StoreDamaged: The file is damaged; as every other method says it.
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path = Path(path)
        self._writing = threading.Lock()
        self._lock: BaseFileLock | None = None
        with self._faults_named():
            self._writer = self._reader = self._connect(read_only)
            try:
                self._open(read_only)
                if not read_only:
                    self._reader = self._connect(read_only=True)
            except BaseException:
                self._writer.close()
                raise

    def get(self, request: Request) -> Completion | None:
        """Return the completion of exactly this request (model, messages, sampling, sample index), if there is one."""
        return self._answer("digest = ?", (request.digest,))

    def get_recorded(self, request: Request, model: str | None = None) -> Completion | None:
        """Return a completion of the same messages and sample index, whatever model or sampling it was asked with.

        The exact request comes first; of several others the one with the lowest digest, so that a rebuild
        reads the same. `model` narrows the choice to completions that were asked of that model.
        """
        condition, values = "prompt_digest = ?", [request.prompt_digest]
        if model is not None:
            condition, values = condition + " AND model = ?", [*values, packed(model)]
        return self._answer(condition + " ORDER BY digest != ?, digest LIMIT 1", (*values, request.digest))

    def put(self, request: Request, completion: Completion) -> None:
        """Store one completion; it is on disk when this returns."""
        self.put_many([(request, completion)])

    def put_many(self, answers: Iterable[tuple[Request, Completion]]) -> None:
        """Store completions in one transaction; all of them are on disk when this returns.

        A request that is already answered keeps its first completion, because a dataset may have been built from
        it. A failure recorded for an answered request is forgotten.
        """
        now = _now()
        self.add_completions([completion_row(request, completion, now) for request, completion in answers])

    def put_failure(self, request: Request, reason: str, permanent: bool = False) -> None:
        """Record that a request got no completion; `permanent` says that asking again is not expected to help.

        An answered request stays answered.
        """
        values = failure_row(request, reason, permanent, _now())
        with self._transaction():
            self._writer.execute(
                "INSERT OR REPLACE INTO failures SELECT ?1, ?2, ?3, ?4, ?5, ?6 "
                "WHERE NOT EXISTS (SELECT 1 FROM completions WHERE digest = ?1)",
                values,
            )

    def failure(self, request: Request) -> str | None:
        """Return why this request has no completion, where it was asked and failed."""
        row = self._sound_row(_FAILURE, (request.digest,))
        return json.loads(row[3]) if row else None

    def standing(self, request: Request) -> Standing | None:
        """Return `answered`, `failed` (out of tries), `refused` (failed for good), or None where it was never asked."""
        row = self._row(_STANDING, (request.digest,))
        return row[0] if row else None

    def billed(self, model: str) -> Iterator[Completion]:
        """Yield the tokens of all completions of a model that told them, as one completion; those of batches apart."""
        query = (
            "SELECT sum(prompt_tokens), sum(completion_tokens), sum(min(cached_tokens, prompt_tokens)), batched "
            "FROM completions WHERE model = ? AND prompt_tokens > 0 GROUP BY batched"
        )
        for prompt, completion, cached, batched in self.select(query, (packed(model),)):
            tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
            yield Completion("", batched=bool(batched), **tokens)

    def uncounted(self, model: str) -> Iterator[tuple[Request, Completion]]:
        """Yield what was asked of a model and answered without a word on tokens, with no more of the answer."""
        query = "SELECT request, batched FROM completions WHERE model = ? AND prompt_tokens = 0"
        for request, batched in self.select(query, (packed(model),)):
            try:
                yield request_of(request), Completion("", batched=bool(batched))
            except ValueError as error:
                raise StoreDamaged(self.path, f"a row holds what is {error}") from None

    def has_uncut(self, model: str, max_tokens: int) -> bool:
        """Whether a completion of this model with so many `max_tokens` came to its end, by length that is."""
        query = (
            "SELECT 1 FROM completions WHERE model = ? AND finish_reason != ? AND "
            "CASE WHEN json_valid(request) THEN json_extract(request, '$.sampling.max_tokens') END = ? LIMIT 1"
        )
        return next(self.select(query, (packed(model), packed("length"), max_tokens)), None) is not None

    def add_loss(self, model: str, usd: float) -> None:
        """Note what a run has lost on tries of a model without an answer; exports and merges leave it out."""
        with self._transaction():
            self._writer.execute("CREATE TABLE IF NOT EXISTS losses (created_at TEXT, model TEXT, usd REAL)")
            self._writer.execute("INSERT INTO losses VALUES (?, ?, ?)", (_now(), packed(model), usd))

    def lost(self, model: str) -> float:
        """Return the USD that all runs have lost on tries of a model without an answer, as far as they noted it."""
        if self._row("SELECT 1 FROM sqlite_master WHERE name = 'losses'") is None:
            return 0.0
        (usd,) = self._row("SELECT total(usd) FROM losses WHERE model = ?", (packed(model),))
        return float(usd)

    def models(self) -> list[str]:
        """Return the models that completions were asked of, sorted; reads an index, and no damaged name."""
        read = (unpacked(model) for (model,) in self.select("SELECT DISTINCT model FROM completions"))
        return sorted(model for model in read if model is not None)

    def stats(self) -> StoreStats:
        """Count what the store holds."""
        count, prompt, completion = self._row(
            "SELECT count(*), ifnull(sum(prompt_tokens), 0), ifnull(sum(completion_tokens), 0) FROM completions"
        )
        (failures,) = self._row("SELECT count(*) FROM failures")
        models = self.select("SELECT model, count(*) FROM completions GROUP BY model ORDER BY model")
        named = {name: n for model, n in models if (name := unpacked(model)) is not None}
        return StoreStats(count, failures, prompt, completion, named)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold the exclusive right to collect into this store; the same `Store` may enter it again.

        The right is a lock on a file beside the store, which the operating system takes back from a process that
        ends, however it ends. Reading, `put_many` and merging need no such right: two writers are safe, two
        collectors would ask twice.

        Raises:
            UserError: Somebody else is collecting into it.
            StoreDamaged: The write-ahead log holds answers that are out of reach, and would be asked for again.
        """
        from filelock import FileLock, Timeout  # takes longer to import than all else here

        sidecar = collector_file(self.path)
        self._lock = self._lock or FileLock(f"{self.path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"{self.path}: {holder(self.path) or 'another process'} is collecting into it. Wait for it, or end it: "
                "what it has answered is kept, and the same command goes on from there"
            ) from None
        try:
            if self._lock.lock_counter == 1:
                sidecar.write_text(json.dumps({"pid": os.getpid(), "since": _now()}))
                self._refuse_lost_log()
            yield
        finally:
            if self._lock.lock_counter == 1:  # the last one to go
                sidecar.unlink(missing_ok=True)
            self._lock.release()

    def _refuse_lost_log(self) -> None:
        from toolkit.store_pages import rows_of_log

        with self._transaction():  # so that nobody is in the middle of a commit
            logged = [str(row[0]) for row in rows_of_log(self.path, len(COMPLETION_COLUMNS)) if is_sound(row)]
            if lost := self.unreached(logged):
                raise StoreDamaged(self.path, f"{lost} completions in its write-ahead log are out of reach")

    # What follows is for `store_files`, which moves whole rows.

    def select(self, query: str, values: tuple[str | int, ...] = ()) -> Iterator[Any]:
        """Yield the rows of a query one by one."""
        with self._faults_named():
            yield from self._reader.execute(query, values)

    def unreached(self, digests: Iterable[str]) -> int:
        """Count the requests, by digest, that have no completion."""
        there = "SELECT 1 FROM completions WHERE digest = ?"
        return sum(self._row(there, (digest,)) is None for digest in digests)

    def add_completions(self, rows: Sequence[Row]) -> int:
        """Add completions as `completion_row` makes them, in one transaction; return how many were new."""
        with self._transaction():
            added = self._writer.executemany(_ADD, rows).rowcount
            self._writer.executemany("DELETE FROM failures WHERE digest = ?", [row[:1] for row in rows])
        return added

    def add_failures(self, rows: Sequence[Row]) -> int:
        """Add failures as `failure_row` makes them; return how many were new.

        An answer stays, and of two failures of a request the later one.
        """
        with self._transaction():
            return self._writer.executemany(
                "INSERT INTO failures SELECT ?1, ?2, ?3, ?4, ?5, ?6 "
                "WHERE NOT EXISTS (SELECT 1 FROM completions WHERE digest = ?1) ON CONFLICT DO UPDATE SET "
                "request = excluded.request, reason = excluded.reason, permanent = excluded.permanent, "
                "created_at = excluded.created_at, row_digest = excluded.row_digest "
                "WHERE (excluded.created_at, excluded.row_digest) > (created_at, row_digest)",
                rows,
            ).rowcount

    def change(self, statement: str, values: tuple[str | int, ...] = ()) -> None:
        """Run a statement that drops or moves rows."""
        with self._writing, self._faults_named():
            self._writer.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file. Everything that was put is already on disk."""
        self._reader.close()  # before the writer, which as the last one folds the log into the file
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        mode = "rwc"
        if read_only:
            if not self.path.is_file():
                raise UserError(f"{self.path}: no such store of completions")
            # A reader of a write-ahead log makes a lock file beside it, unless told that nobody writes. Nobody does in
            # a folder we cannot write to either, where no log is open.
            log = self.path.with_name(self.path.name + "-wal")
            is_still = not os.access(self.path.absolute().parent, os.W_OK) and not log.exists()
            mode = "ro&immutable=1" if is_still else "ro"
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.text_factory = _decoded
        return connection

    def _open(self, read_only: bool) -> None:
        self._writer.execute("BEGIN")  # all three as of one moment: another process may just be making the file
        (identity,) = self._row("PRAGMA application_id")
        (version,) = self._row("PRAGMA user_version")
        (tables,) = self._row("SELECT count(*) FROM sqlite_master")
        self._writer.execute("COMMIT")
        is_new = identity == 0 and tables == 0
        if identity != _APPLICATION_ID and not (is_new and not read_only):
            raise UserError(f"{self.path}: not a store of completions, but another kind of SQLite database")
        if not is_new and version != _SCHEMA_VERSION:
            raise UserError(
                f"{self.path}: a store of version {version}; this release reads version {_SCHEMA_VERSION}. "
                "Name another file, or move this one away, and build anew"
            )
        # Completions cost money, so a commit waits for the disk (FULL) and survives a power cut; NORMAL would only
        # survive a killed process. `collect` commits many answers at once, which makes the wait cheap.
        self._writer.execute("PRAGMA synchronous = FULL")
        if is_new:
            self._writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._keep_a_log()
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._writer.execute(statement)
                self._writer.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                self._writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            # Into the file itself: a store whose log is lost must not look like one that is yet to be made.
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _keep_a_log(self) -> None:
        """Switch to a write-ahead log: the one statement that fails at once where others wait for their turn."""
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                self._writer.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _answer(self, condition: str, values: tuple[str, ...]) -> Completion | None:
        row = self._sound_row(_COMPLETION + condition, values)
        return None if row is None else completion_of(row)

    def _sound_row(self, query: str, values: tuple[str, ...]) -> Any:
        row = self._row(query, values)
        if row is not None and not is_sound(row):
            raise StoreDamaged(self.path, f"the row of request {row[0]} is not what was stored")
        return row

    def _row(self, query: str, values: tuple[str, ...] = ()) -> Any:
        try:
            return self._reader.execute(query, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._named(error) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._writing, self._faults_named():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        """Turn what is wrong with the file (not SQLite, corrupt, edited, locked, full disk) into an error naming it."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._named(error) from None

    def _named(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
            return error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            never = ", or it never was a store" if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB else ""  # type: ignore[attr-defined]
            return StoreDamaged(self.path, f"{error}{never}")
        return UserError(f"{self.path}: cannot be used as a store of completions: {error}")


def collector_file(store: Path) -> Path:
    """Return the file in which whoever collects into a store leaves its name."""
    return store.with_name(store.name + ".collector")


def holder(store: Path) -> str | None:
    """Return who is collecting into a store, e.g. `process 123 (since 2026-01-31T12:00:00.000Z)`; None where nobody is.

    A killed collector leaves its name behind, and its number may belong to another process by now: so that one has to
    be older than what it is said to have begun.
    """
    import psutil

    with suppress(OSError, ValueError, KeyError, psutil.NoSuchProcess):
        found = json.loads(collector_file(store).read_text())
        if psutil.Process(found["pid"]).create_time() < datetime.fromisoformat(found["since"]).timestamp() + 1:
            return f"process {found['pid']} (since {found['since']})"
    return None


def _decoded(text: bytes) -> str:
    return text.decode("ascii", "replace")  # what is not ASCII is damaged, and its row's digest will say so


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
