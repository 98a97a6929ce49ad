"""The durable store of completions: one SQLite file that outlives every run and every dataset built from it.

It keeps what was asked, what was answered and what failed. It asks nobody anything; `collect` does that.
SQLite's write-ahead log needs a local disk: keep a store off network file systems.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from toolkit.errors import UserError
from toolkit.teachers.protocol import Completion, Request

Standing = Literal["answered", "failed", "refused"]

_APPLICATION_ID = 0x436F5444  # "CoTD" in the file's header tells a store from any other SQLite database
_SCHEMA_VERSION = 1
_BUSY_S = 60.0

# Text a teacher wrote may hold NUL bytes and lone surrogates, which SQLite's TEXT cuts or refuses. Such columns hold
# ASCII JSON instead: exact, and still readable in any SQLite shell through json_extract(text, '$').
_SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (
    digest TEXT PRIMARY KEY, prompt_digest TEXT NOT NULL, model TEXT NOT NULL, request TEXT NOT NULL,
    text TEXT NOT NULL, reasoning TEXT NOT NULL, finish_reason TEXT NOT NULL, answered_by TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, raw TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE INDEX IF NOT EXISTS completions_by_prompt ON completions (prompt_digest);
CREATE TABLE IF NOT EXISTS failures (
    digest TEXT PRIMARY KEY, request TEXT NOT NULL, reason TEXT NOT NULL, permanent INTEGER NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
"""
_ANSWER = "text, reasoning, finish_reason, answered_by, prompt_tokens, completion_tokens, raw"


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

    Several processes may read a store while one writes. A `Store` itself is for one thread at a time, and is not
    carried into a forked process: open it anew there.

    Args:
        path: The file; made, with its folders, where it is missing.
        read_only: Open an existing store and never change it.

    Raises:
        UserError: The file is not a store, is of a newer version, or cannot be opened.
    """

    def __init__(self, path: str | Path, read_only: bool = False) -> None:
        self.path = Path(path)
        with self._faults_named():
            self._connection = self._connect(read_only)
            try:
                self._open(read_only)
            except BaseException:
                self._connection.close()
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
            condition, values = condition + " AND model = ?", [*values, _pack(model)]
        return self._answer(condition + " ORDER BY digest != ?, digest LIMIT 1", (*values, request.digest))

    def put(self, request: Request, completion: Completion) -> None:
        """Store one completion; it is on disk when this returns."""
        self.put_many([(request, completion)])

    def put_many(self, answers: Iterable[tuple[Request, Completion]]) -> None:
        """Store completions in one transaction; all of them are on disk when this returns.

        A request that is already answered keeps its first completion, because a dataset may have been built from
        it. A failure recorded for an answered request is forgotten.
        """
        rows = [_values(request, completion) for request, completion in answers]
        with self._transaction():
            self._connection.executemany(
                f"INSERT INTO completions (digest, prompt_digest, model, request, {_ANSWER}) "
                f"VALUES ({', '.join('?' * 11)}) ON CONFLICT DO NOTHING",
                rows,
            )
            self._connection.executemany("DELETE FROM failures WHERE digest = ?", [row[:1] for row in rows])

    def put_failure(self, request: Request, reason: str, permanent: bool = False) -> None:
        """Record that a request got no completion; `permanent` says that asking again is not expected to help."""
        values = (request.digest, _pack(asdict(request)), _pack(reason), permanent)
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO failures (digest, request, reason, permanent) VALUES (?, ?, ?, ?)", values
            )

    def failure(self, request: Request) -> str | None:
        """Return why this request has no completion, where it was asked and failed."""
        row = self._row("SELECT reason FROM failures WHERE digest = ?", (request.digest,))
        return json.loads(row[0]) if row else None

    def standing(self, request: Request) -> Standing | None:
        """Return `answered`, `failed` (out of tries), `refused` (failed for good), or None where it was never asked."""
        row = self._row(
            "SELECT 'answered' FROM completions WHERE digest = ?1 UNION ALL "
            "SELECT iif(permanent, 'refused', 'failed') FROM failures WHERE digest = ?1 LIMIT 1",
            (request.digest,),
        )
        return row[0] if row else None

    def digest_of(self, requests: Iterable[Request]) -> str:
        """Return a SHA-256 (hex) over what the store holds for these requests: a builder's cache key.

        It depends on the completions (or the failures' reasons), not on the order of the requests, on how often
        one is named, or on when anything was stored.
        """
        records = set()
        for request in requests:
            row = self._row(f"SELECT {_ANSWER} FROM completions WHERE digest = ?", (request.digest,))
            content = [request.digest, *(row or ["no completion", self.failure(request)])]
            records.add(hashlib.sha256(_pack(content).encode()).digest())
        return hashlib.sha256(b"".join(sorted(records))).hexdigest()

    def stats(self) -> StoreStats:
        """Count what the store holds."""
        count, prompt, completion = self._row(
            "SELECT count(*), ifnull(sum(prompt_tokens), 0), ifnull(sum(completion_tokens), 0) FROM completions"
        )
        (failures,) = self._row("SELECT count(*) FROM failures")
        with self._faults_named():
            models = self._connection.execute("SELECT model, count(*) FROM completions GROUP BY model ORDER BY model")
            per_model = {json.loads(model): n for model, n in models}
        return StoreStats(count, failures, prompt, completion, per_model)

    def close(self) -> None:
        """Close the file. Everything that was put is already on disk."""
        self._connection.close()

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
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)

    def _open(self, read_only: bool) -> None:
        self._connection.execute("BEGIN")  # all three as of one moment: another process may just be making the file
        (identity,) = self._row("PRAGMA application_id")
        (version,) = self._row("PRAGMA user_version")
        (tables,) = self._row("SELECT count(*) FROM sqlite_master")
        self._connection.execute("COMMIT")
        is_new = identity == 0 and tables == 0
        if identity != _APPLICATION_ID and not (is_new and not read_only):
            raise UserError(f"{self.path}: not a store of completions, but another kind of SQLite database")
        if not is_new and version != _SCHEMA_VERSION:
            raise UserError(f"{self.path}: a store of version {version}; this release reads version {_SCHEMA_VERSION}")
        # Completions cost money, so a commit waits for the disk (FULL) and survives a power cut; NORMAL would only
        # survive a killed process. `collect` commits many answers at once, which makes the wait cheap.
        self._connection.execute("PRAGMA synchronous = FULL")
        if is_new:
            self._connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")

    def _answer(self, condition: str, values: tuple[str, ...]) -> Completion | None:
        row = self._row(f"SELECT {_ANSWER} FROM completions WHERE {condition}", values)
        if row is None:
            return None
        text, reasoning, finish_reason, model, prompt_tokens, completion_tokens, raw = row
        with self._faults_named():
            return Completion(
                text=json.loads(text),
                reasoning=json.loads(reasoning),
                finish_reason=json.loads(finish_reason),
                model=json.loads(model),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                raw=json.loads(raw),
            )

    def _row(self, query: str, values: tuple[str, ...] = ()) -> Any:
        with self._faults_named():
            return self._connection.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._faults_named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        """Turn what is wrong with the file (not SQLite, corrupt, edited, locked, full disk) into an error naming it."""
        try:
            yield
        except (sqlite3.DatabaseError, json.JSONDecodeError, OSError) as error:
            if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
                raise
            raise UserError(f"{self.path}: cannot be used as a store of completions: {error}") from None


def _pack(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


def _values(request: Request, completion: Completion) -> tuple[str | int, ...]:
    return (
        request.digest,
        request.prompt_digest,
        _pack(request.model),
        _pack(asdict(request)),
        _pack(completion.text),
        _pack(completion.reasoning),
        _pack(completion.finish_reason),
        _pack(completion.model),
        completion.prompt_tokens,
        completion.completion_tokens,
        _pack(completion.raw),
    )
