"""Lists and tallies that grow with the rows of a dataset, kept on disk: memory stays what a few rows take.

Both live in temporary files without a name, which go with the object or with the process.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar, overload

Item = TypeVar("Item")

_READ_AT_ONCE = 64  # items


class DiskList(Sequence[Item]):
    """A list that is only ever appended to. It takes eight bytes of memory for each item.

    Every look at an item is a new copy of it, so changing one changes nothing here.

    Args:
        items: What it holds at first; anything that can be pickled.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._file = tempfile.TemporaryFile(dir=_folder())  # noqa: SIM115, it lives as long as the list
        self._ends = array("Q", [0])
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        """Put an item behind the others."""
        content = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        self._file.flush()
        content = os.pread(self._file.fileno(), self._ends[place + 1] - self._ends[place], self._ends[place])
        item: Item = pickle.loads(content)
        return item

    def __iter__(self) -> Iterator[Item]:
        for first in range(0, len(self), _READ_AT_ONCE):
            self._file.flush()
            ends = self._ends[first : first + _READ_AT_ONCE + 1]
            content = memoryview(os.pread(self._file.fileno(), ends[-1] - ends[0], ends[0]))
            for start, end in pairwise(ends):
                yield pickle.loads(content[start - ends[0] : end - ends[0]])


class DiskCounter:
    """Counts how often it was told of something, which it knows by 64 bits of a digest.

    Among a million things two share them at odds of 1 to 37 million.
    The few megabytes of SQLite's page cache are all that it takes of memory.
    """

    def __init__(self) -> None:
        # An empty name is a database in a temporary file, written to only when the cache is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY, times INTEGER, note TEXT)")
        self._database.execute("BEGIN")  # never committed: nobody else reads it

    def count(self, *what: object) -> int:
        """Count one more of this, and return how many there are now. Values are told apart by their `repr`."""
        return self.note("", *what)[0]

    def note(self, note: str, *what: object) -> tuple[int, str]:
        """As `count`, and return also the note that came with the first of them."""
        key = int.from_bytes(
            hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True
        )
        found: tuple[int, str] = self._database.execute(
            "INSERT INTO seen VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times, note",
            (key, note),
        ).fetchone()
        return found


def _folder() -> str | None:
    """Return where temporary files go: `/tmp` lies in memory on many systems, so SQLite too prefers `/var/tmp`."""
    if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK):
        return None
    return "/var/tmp"
