"""What a disk refuses, said in one line: full, over quota, read-only, or a file that may not be so large.

Python's own writers raise `OSError` with a number. Others put the number, or its meaning, into the text of an error of
their own: safetensors and tokenizers name it; PyTorch says that its writer failed, and SQLite that the disk is full.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import UserError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# Libraries that check or write by themselves and keep no number: `datasets`, PyTorch's archives, SQLite.
_SAID = {
    "Not enough disk space": errno.ENOSPC,
    "PytorchStreamWriter failed": errno.ENOSPC,
    "inline_container": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
}


def disk_fault(error: BaseException) -> str | None:
    """Return what a disk has refused, with the file where it is known; None for any other error.

    What led to an error counts too: a library may raise its own while it cleans up behind the disk's.
    """
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        if (number := _number_of(error)) is not None:
            file = getattr(error, "filename", None)
            return f"{file}: {os.strerror(number)}" if file else os.strerror(number)
        following = error.__cause__ or error.__context__
        if following is None:
            break
        error = following
    return None


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return error.errno
    if isinstance(error, UserError):
        return None
    said = str(error)
    for number in _REFUSALS:
        # "File too large" alone may be said of much else.
        if f"os error {number})" in said or (number != errno.EFBIG and os.strerror(number) in said):
            return number
    return next((number for words, number in _SAID.items() if words in said), None)


@contextmanager
def writing(where: Path, what: str) -> Iterator[None]:
    """Turn what a disk refuses into a message that says what was being written and where.

    Args:
        where: Folder or file.
        what: E.g. `stage imitate`.

    Raises:
        UserError: The disk is full, or refuses otherwise.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        raise UserError(f"{where}: {what} could not be written: {fault}. {REMEDY}") from error


REMEDY = "Free some space, or point output_dir and hub_dir elsewhere; the same command goes on from what is whole"
