"""Rows of JSON files, JSON Lines and tables, plain or gzipped, each with the place it came from for error messages."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError, nearest
from toolkit.problem_values import unique_keys

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "`|`"}

LONGEST_LINE = 64 * 10**6
"""Bytes of a row in a file that is read line by line."""
_LARGEST_DOCUMENT = 2**30  # bytes, unpacked


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        place: Where it stands: `file:line`, `file: examples[3]`, `dataset[split] row 3`.
        stem: Name of the file without folder and suffixes, or the name of the data set.
        data: Its columns; empty where `fault` says why there are none.
        fault: What is wrong with the row as such, empty where nothing is.
    """

    place: str
    stem: str
    data: dict[str, Any]
    fault: str = ""


def read_rows(pattern: str, records: str | None = None) -> Iterator[Row]:
    """Yield the rows of every file that matches a glob pattern, in the order of the file names.

    A name that ends in `.jsonl` is read line by line, one in `.tsv` or `.csv` as a table whose first line names the
    columns, `.gz` behind it or not; any other file as one JSON document (a list of rows, or an object whose key
    `records` holds that list), or line by line where it holds several documents.

    Raises:
        UserError: No such file, an unreadable one, or a document without a list of rows. A single bad line is no
            error here but a row with a fault, so that a caller can report several at once.
    """
    for path in _matching(pattern):
        name = path.name.removesuffix(".gz")
        stem = name.rsplit(".", 1)[0]
        if name.endswith((".tsv", ".csv")):
            yield from _table(path, stem, "\t" if name.endswith(".tsv") else ",")
            continue
        document = None if name.endswith(".jsonl") else _document(path)
        if document is None:
            yield from (_parse_line(f"{path}:{number}", stem, line) for number, line in _lines(path))
            continue
        for index, data in enumerate(_listed(path, document, records)):
            place = f"{path}: {records or ''}[{index}]"
            yield Row(place, stem, data) if isinstance(data, dict) else _no_object(place, stem, data)


def _matching(pattern: str) -> list[Path]:
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if found:
        return found
    missing = Path(pattern)
    while not missing.parent.is_dir():
        missing = missing.parent
    names = sorted(entry.name for entry in missing.parent.iterdir())
    near = nearest(missing.name, names)
    raise UserError(f"no file matches {pattern!r}: {str(missing.parent)!r} holds no {missing.name!r}{near}")


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            if (mark := file.peek(2)[:2]) in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(
                    f"{path}: is UTF-16 (it begins with {mark.hex(' ')}), allowed is UTF-8; save it as that"
                )
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, each with its number from 1; a file of any size is read in small pieces."""
    empty = True
    with _opened(path) as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:  # kilobytes of gzip can hold gigabytes of it
                raise UserError(f"{path}:{number}: is longer than {LONGEST_LINE / 10**6:g} MB, which no row is")
            if not line:
                break
            if line.strip():
                empty = False
                yield number, line.removesuffix(b"\n")
    if empty:
        raise UserError(f"{path}: the file is empty")


def _table(path: Path, stem: str, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a table, in whose cells a delimiter or a line break stands between quotation marks.

    A row's place is the line that it begins on.
    """
    with _opened(path) as file:
        rows = csv.reader(_text_lines(path, file), delimiter=delimiter, strict=True)
        header: list[str] = []
        first = 1
        try:
            for cells in rows:
                place, first = f"{path}:{first}", rows.line_num + 1
                if not any(cell.strip() for cell in cells) and len(cells) < 2:
                    continue  # a blank line
                if not header:
                    header = _checked_header(place, cells, delimiter)
                elif len(cells) == len(header):
                    yield Row(place, stem, dict(zip(header, cells, strict=True)))
                else:
                    yield Row(place, stem, {}, f"has {len(cells)} cells, and the table {len(header)} columns")
        except csv.Error as error:
            raise UserError(f"{path}:{first}: is no table: {error}") from None
        if not header:
            raise UserError(f"{path}: the file is empty")


def _text_lines(path: Path, file: io.BufferedReader | gzip.GzipFile) -> Iterator[str]:
    """Yield the lines of a table as text, without the mark that some programs put before the first."""
    for number, line in enumerate(file, 1):
        if b"\0" in line:
            raise UserError(f"{path}:{number}: holds a NUL byte")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: is not UTF-8: {error.reason} at byte {error.start}") from None


def _checked_header(place: str, names: list[str], delimiter: str) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        UserError: One is there twice, or another delimiter parts them.
    """
    for other, said in _DELIMITERS.items():
        if len(names) == 1 and other != delimiter and other in names[0]:
            allowed = f"commas in `.csv` and tabs in `.tsv`; found {names[0][:60]!r}"
            raise UserError(f"{place}: the columns are separated by {said}, allowed are {allowed}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{place}: two columns have the name {name!r}; a row would lose one of them")
    return names


def _parse_line(place: str, stem: str, line: bytes) -> Row:
    if b"\0" in line:
        return Row(place, stem, {}, "holds a NUL byte")
    try:
        data = json.loads(line, object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        return Row(place, stem, {}, f"is not UTF-8: {error.reason} at byte {error.start}")
    except (ValueError, RecursionError) as error:  # ValueError also of a number with thousands of digits
        return Row(place, stem, {}, f"is not JSON: {error}")
    return Row(place, stem, data) if isinstance(data, dict) else _no_object(place, stem, data)


def _no_object(place: str, stem: str, data: object) -> Row:
    return Row(place, stem, {}, f"is a JSON {type(data).__name__}, not an object")


def _document(path: Path) -> Any | None:
    """Parse one JSON document; None where another follows it: a `.json` file in JSON Lines, as many on the Hub are."""
    with _opened(path) as file:
        content = file.read(_LARGEST_DOCUMENT + 1)
    if len(content) > _LARGEST_DOCUMENT:
        raise UserError(f"{path}: is larger than {_LARGEST_DOCUMENT / 2**30:g} GB; make a file of JSON Lines of it")
    if not content.strip():
        raise UserError(f"{path}: the file is empty")
    try:
        return json.loads(content, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise UserError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {error}") from None


def _listed(path: Path, document: Any, records: str | None) -> list[Any]:
    if isinstance(document, dict):
        if records is None:
            raise UserError(
                f"{path}: holds an object; set `records` to the key of its list of rows, one of {list(document)}"
            )
        if records not in document:
            raise UserError(f"{path}: has no key {records!r}, only {list(document)}{nearest(records, document)}")
        document = document[records]
    if not isinstance(document, list):
        raise UserError(f"{path}: expected a list of rows, found a JSON {type(document).__name__}")
    return document
