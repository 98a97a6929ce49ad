"""One process, or one group of processes, in a folder at a time; the second one gets an error that names the first.

The lock is the operating system's: it ends with the process that holds it, however that ends. What lies in the file
only names the holder.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from toolkit.errors import UserError

# A process that was killed may need a moment to be gone while the same command is started again.
PATIENCE = 10.0

Value = TypeVar("Value")


def agreed(value: Value) -> Value:
    """Return the first process's value on every process: what lies on a disk may change between two looks."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]  # type: ignore[no-any-return]


@contextmanager
def owned(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, which need not exist yet, for all processes of a run together.

    Args:
        folder: What is held; the lock lies beside it.
        doing: What is done there, e.g. `is trained`; stands in the message to whoever comes second.

    Raises:
        UserError: Another run holds it.
    """
    from accelerate import PartialState
    from filelock import FileLock, Timeout  # takes longer to import than all else here

    file = folder.with_name(f".{folder.name}.lock")
    lock, refused = FileLock(file), ""
    if PartialState().is_main_process:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.1)
            file.write_text(_owner(), encoding="utf-8")
        except Timeout:
            refused = (
                f"{folder}: {doing} by {_read(file)} already, and two runs in one folder would spoil it. Wait for that "
                "one to end, or end it; the same command then goes on from there"
            )
    try:
        if refused := agreed(refused):
            raise UserError(refused)
        yield
    finally:
        if lock.is_locked:
            file.write_text("", encoding="utf-8")
            lock.release()


def _owner() -> str:
    since = datetime.fromtimestamp(time.time()).astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
