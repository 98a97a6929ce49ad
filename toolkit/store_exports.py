"""Stores exported to Parquet or JSON Lines and imported again, without losing a character.

Rows come in the order of their digests. Columns are those of the store; a failure has a reason where a completion has
a text. In JSON Lines they are JSON values. In Parquet those that hold what somebody wrote are JSON texts, as in the
store, because Parquet has no lone surrogates.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import UserError
from toolkit.store import Store, StoreDamaged
from toolkit.store_files import BATCH, MergeReport, add_completions, add_failures, batches
from toolkit.store_rows import COMPLETION_COLUMNS, FAILURE_COLUMNS, PACKED_COLUMNS, is_sound, request_of

SUFFIXES = (".parquet", ".jsonl")
_MOST_NAMED = 20
_COLUMNS = (*COMPLETION_COLUMNS[:-1], "permanent", "reason", COMPLETION_COLUMNS[-1])
_NUMBERS = {"prompt_tokens", "completion_tokens", "cached_tokens", "batched", "permanent"}


@dataclass
class ExportReport:
    """What an export wrote.

    Attributes:
        completions: Completions.
        failures: Failures.
        size: Bytes of the file.
    """

    completions: int = 0
    failures: int = 0
    size: int = 0


def export(path: str | Path, file: str | Path) -> ExportReport:
    """Write everything a store holds to a `.parquet` or `.jsonl` file, which appears when it is complete.

    Raises:
        UserError: There is no such store, or the file's name ends otherwise.
        StoreDamaged: A row is damaged.
    """
    file = Path(file)
    write = _write_parquet if _suffix(file) == ".parquet" else _write_lines
    report = ExportReport()
    with Store(path, read_only=True) as store, _complete(file) as part:
        write(_exported(store, report), part)
    report.size = file.stat().st_size
    return report


@dataclass
class ImportReport(MergeReport):
    """What an import brought in, and what it refused.

    Attributes:
        refused: Rows that are not what was exported.
        faults: What is wrong with the first twenty of them, by number.
    """

    refused: int = 0
    faults: list[str] = field(default_factory=list)


def import_rows(path: str | Path, file: str | Path) -> ImportReport:
    """Bring the rows of an exported file into a store, by the rules of `store_files.merge`.

    A row whose digest or key is not that of its content is refused; the others come in.

    Args:
        path: The store; made where it is missing.
        file: What `export` wrote.

    Raises:
        UserError: There is no such file, or it is no export.
    """
    file = Path(file)
    read = _read_parquet if _suffix(file) == ".parquet" else _read_lines
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    report = ImportReport()
    with Store(path) as store:
        for batch in batches(_accepted(read(file), report)):
            add_completions(store, (row for row in batch if len(row) == len(COMPLETION_COLUMNS)), report)
            add_failures(store, (row for row in batch if len(row) == len(FAILURE_COLUMNS)), report)
    return report


def _exported(store: Store, report: ExportReport) -> Iterator[dict[str, Any]]:
    """Yield the rows in the order of their digests, each with the columns that it has."""
    tables = [
        f"SELECT {', '.join(name if name in columns else f'NULL AS {name}' for name in _COLUMNS)} FROM {table}"
        for table, columns in (("completions", COMPLETION_COLUMNS), ("failures", FAILURE_COLUMNS))
    ]
    for values in store.select(f"{' UNION ALL '.join(tables)} ORDER BY digest"):
        row = {name: value for name, value in zip(_COLUMNS, values, strict=True) if value is not None}
        columns = FAILURE_COLUMNS if "reason" in row else COMPLETION_COLUMNS
        if not is_sound([row[name] for name in columns]):
            raise StoreDamaged(store.path, f"the row of request {row['digest']} is not what was stored")
        if "reason" in row:
            report.failures += 1
        else:
            report.completions += 1
        yield row


def _write_lines(rows: Iterable[dict[str, Any]], file: Path) -> None:
    with file.open("w", encoding="ascii") as lines:
        for row in rows:
            values = (
                f'"{name}": {value if name in PACKED_COLUMNS else json.dumps(value)}' for name, value in row.items()
            )
            lines.write(f"{{{', '.join(values)}}}\n")


def _write_parquet(rows: Iterable[dict[str, Any]], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.int64() if name in _NUMBERS else pa.string()) for name in _COLUMNS])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


class _Read(NamedTuple):
    """A row of a file: where it stands, its columns as the store has them, and why it has none."""

    place: str
    columns: dict[str, Any]
    fault: str = ""


def _read_lines(file: Path) -> Iterator[_Read]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{file}:{number}"
            try:
                row = json.loads(line)
                columns = {name: json.dumps(value) if name in PACKED_COLUMNS else value for name, value in row.items()}
            except (ValueError, AttributeError, RecursionError):
                yield _Read(place, {}, "no JSON object")
            else:
                yield _Read(place, columns)


def _read_parquet(file: Path) -> Iterator[_Read]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            if missing := set(_COLUMNS) - set(table.schema_arrow.names):
                raise UserError(f"{file}: not an export of a store: it has no column {sorted(missing)[0]!r}")
            read = (batch.to_pylist() for batch in table.iter_batches(BATCH, columns=list(_COLUMNS)))
            for number, row in enumerate(itertools.chain.from_iterable(read), 1):
                yield _Read(f"{file} row {number}", {name: value for name, value in row.items() if value is not None})
    except pa.ArrowException as error:
        raise UserError(f"{file}: cannot be read as Parquet: {error}") from None


def _accepted(rows: Iterable[_Read], report: ImportReport) -> Iterator[tuple[Any, ...]]:
    for place, columns, known_fault in rows:
        names = FAILURE_COLUMNS if "reason" in columns else COMPLETION_COLUMNS
        row = tuple(columns.get(name) for name in names)
        fault = known_fault or _fault(columns, row, names)
        if not fault:
            yield row
            continue
        report.refused += 1
        if len(report.faults) < _MOST_NAMED:
            report.faults.append(f"{place}: {fault}")


def _fault(columns: dict[str, Any], row: tuple[Any, ...], names: tuple[str, ...]) -> str:
    """Return why a row is not what was exported, nothing where it is."""
    if missing := [name for name in names if columns.get(name) is None]:
        return f"no {missing[0]!r}"
    if not is_sound(row):
        return "its row_digest is not that of its content"
    try:
        request = request_of(columns["request"])
    except ValueError as error:
        return str(error)
    keys = {"digest": request.digest, "prompt_digest": request.prompt_digest, "model": json.dumps(request.model)}
    wrong = [name for name, key in keys.items() if name in names and columns[name] != key]
    return f"its {wrong[0]!r} is not that of its request" if wrong else ""


@contextmanager
def _complete(file: Path) -> Iterator[Path]:
    """Yield a name to write to, which becomes `file` at the end; nothing stays where something fails."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _suffix(file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file}: found a name that ends in {file.suffix!r}, allowed {' or '.join(SUFFIXES)}")
    return file.suffix
