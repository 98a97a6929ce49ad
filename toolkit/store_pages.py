"""Rows read out of a store's pages without SQLite: what a file that it refuses still holds.

SQLite finds a row by way of pages that lead to it, and gives up where one of them is gone. Here every page is looked
at by itself, in the file and in its write-ahead log. What comes out may be broken or outdated: a row's own digest says
whether it is whole. The format is that of sqlite.org/fileformat2.html, with the page size that stores are made with.

Opening a file that SQLite has open in the same process would lose its locks: close every `Store` of the file first.
(The log has no such locks.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from toolkit.store import PAGE_BYTES

Value = str | int | None

_TABLE_LEAF = 13
_LOG_HEADER, _FRAME_HEADER = 32, 24
_LARGEST_LOCAL = PAGE_BYTES - 35
_SMALLEST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_CONSTANTS: dict[int, Value] = {0: None, 8: 0, 9: 1}
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def log_of(store: Path) -> Path:
    """Return the file of a store's write-ahead log; there is one only while the store is open, or after a crash."""
    return store.with_name(store.name + "-wal")


def rows_of_log(store: Path, columns: int) -> Iterator[tuple[Value, ...]]:
    """Yield the rows with so many columns that a store's log holds for sure.

    The last transaction is left out: a process that is killed, or a power cut, may leave one that never counted.
    """
    with ExitStack() as opened:
        log = _opened(log_of(store), opened)
        transactions = list(_transactions(log))
        settled = [pages for (salt, pages), (later, _) in pairwise(transactions) if salt == later]
        yield from _Pages(None, log, settled).rows(columns)


def rows_of_file(store: Path, columns: int) -> Iterator[tuple[Value, ...]]:
    """Yield the rows with so many columns of a store's file and of its log; a row may come more than once."""
    with ExitStack() as opened:
        log = _opened(log_of(store), opened)
        pages = _Pages(_opened(store, opened), log, (pages for _, pages in _transactions(log)))
        yield from pages.rows(columns)


class _Pages:
    """Pages by their number, the newest of each: in the log, where a transaction there has one."""

    def __init__(self, file: BinaryIO | None, log: BinaryIO | None, transactions: Iterable[dict[int, int]]) -> None:
        self._file, self._log = file, log
        self._newer: dict[int, int] = {}
        for pages in transactions:
            self._newer |= pages

    def rows(self, columns: int) -> Iterator[tuple[Value, ...]]:
        start = PAGE_BYTES  # the first page holds the schema
        while page := _read(self._file, start):
            yield from self._rows(page, columns)
            start += PAGE_BYTES
        for start in sorted(self._newer.values()):
            yield from self._rows(_read(self._log, start), columns)

    def _rows(self, page: bytes, columns: int) -> Iterator[tuple[Value, ...]]:
        if len(page) < PAGE_BYTES or page[0] != _TABLE_LEAF:
            return
        for number in range(min(int.from_bytes(page[3:5]), PAGE_BYTES // 2 - 8)):
            pointer = 8 + 2 * number
            try:
                row = self._row(page, int.from_bytes(page[pointer : pointer + 2]), columns)
            except (IndexError, KeyError, UnicodeDecodeError):
                continue  # no row, or a broken one
            if row is not None:
                yield row

    def _row(self, page: bytes, place: int, columns: int) -> tuple[Value, ...] | None:
        size, place = _number(page, place)
        _, place = _number(page, place)
        local = size
        if size > _LARGEST_LOCAL:
            local = _SMALLEST_LOCAL + (size - _SMALLEST_LOCAL) % (PAGE_BYTES - 4)
            local = local if local <= _LARGEST_LOCAL else _SMALLEST_LOCAL
        payload = page[place : place + local]
        end, place_of_kind = _number(payload, 0)
        kinds = []
        while place_of_kind < end:
            kind, place_of_kind = _number(payload, place_of_kind)
            kinds.append(kind)
        if len(kinds) != columns:
            return None
        if size > local:
            payload += self._overflow(int.from_bytes(page[place + local : place + local + 4]), size - local)
        values = []
        for kind in kinds:
            value, end = _value(payload, end, kind)
            values.append(value)
        return tuple(values)

    def _overflow(self, number: int, size: int) -> bytes:
        parts: dict[int, bytes] = {}
        while size > 0:
            if number in parts:
                raise IndexError(f"page {number} leads back to itself")
            page = self._page(number)
            parts[number] = page[4 : 4 + size]
            number, size = int.from_bytes(page[:4]), size - (PAGE_BYTES - 4)
        return b"".join(parts.values())

    def _page(self, number: int) -> bytes:
        page = b""
        if number in self._newer:
            page = _read(self._log, self._newer[number])
        elif number > 1:
            page = _read(self._file, (number - 1) * PAGE_BYTES)
        if len(page) < PAGE_BYTES:
            raise IndexError(f"no page {number}")
        return page


def _transactions(log: BinaryIO | None) -> Iterator[tuple[bytes, dict[int, int]]]:
    """Yield the transactions of a log: its salt, and where each page that was written begins.

    A transaction ends with a frame that says so. The log starts over, with another salt, now and then; what stands
    behind the last commit of a salt was never committed. Checksums are not looked at: rows have their own.
    """
    pages: dict[int, int] = {}
    salt = b""
    start = _LOG_HEADER
    while len(header := _read(log, start, _FRAME_HEADER)) == _FRAME_HEADER:
        if header[8:16] != salt:
            salt, pages = header[8:16], {}
        pages[int.from_bytes(header[:4])] = start + _FRAME_HEADER
        if any(header[4:8]):
            yield salt, pages
            pages = {}
        start += _FRAME_HEADER + PAGE_BYTES


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return the integer of variable length at a place, and where it ends."""
    value = 0
    for index in range(place, place + 8):
        value = value << 7 | data[index] & 0x7F
        if data[index] < 0x80:
            return value, index + 1
    return value << 8 | data[place + 8], place + 9


def _value(payload: bytes, place: int, kind: int) -> tuple[Value, int]:
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], place
    size = (kind - 13) // 2 if kind >= 13 and kind % 2 else _INTEGER_BYTES[kind]
    data = payload[place : place + size]
    if len(data) < size:
        raise IndexError("the row ends early")
    return (data.decode() if kind >= 13 else int.from_bytes(data, signed=True)), place + size


def _opened(path: Path, opened: ExitStack) -> BinaryIO | None:
    return opened.enter_context(path.open("rb")) if path.is_file() else None


def _read(file: BinaryIO | None, start: int, size: int = PAGE_BYTES) -> bytes:
    if file is None:
        return b""
    file.seek(start)
    return file.read(size)
