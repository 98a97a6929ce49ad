"""Prompts and completions that somebody else recorded, put into a store for a `recorded` teacher to answer from."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataset_builders.settings import Recording
from toolkit.errors import UserError, nearest
from toolkit.problem_files import Row, read_rows
from toolkit.store import Store
from toolkit.teachers.finish_reasons import STOP, understood
from toolkit.teachers.messages import UnknownContent, read_message
from toolkit.teachers.protocol import Completion, Request

_BATCH = 500


def import_recordings(recordings: Sequence[Recording], store_path: Path) -> int:
    """Read recorded files into a store; what is in it already stays as it is.

    A completion is kept under the exact text of its prompt, as one user message. A prompt that occurs several times
    gives its later completions the sample indices 1, 2, ... Thinking is kept apart from the answer, as of any teacher,
    and the completion as it was recorded is kept beside the two.

    Args:
        recordings: The files.
        store_path: The store's file; made where it is missing.

    Returns:
        How many completions the files hold.

    Raises:
        UserError: A missing file, a row without prompt or completion, or a completion of a form that is not known.
    """
    # Twice: nothing of files that hold a fault comes in, and no more than a batch of them is in memory.
    number = sum(1 for recording in recordings for _ in _answers(recording))
    with Store(store_path) as store:
        answers = (answer for recording in recordings for answer in _answers(recording))
        while batch := list(itertools.islice(answers, _BATCH)):
            store.put_many(batch)
    return number


def _answers(recording: Recording) -> Iterator[tuple[Request, Completion]]:
    seen: Counter[str] = Counter()
    for row in read_rows(recording.path, recording.records):
        prompt = _field(row, recording.prompt)
        if not isinstance(prompt, str):
            raise UserError(f"{row.place}: {recording.prompt!r} is of type {type(prompt).__name__}; allowed: text")
        written = _field(row, recording.completion)
        try:
            text, reasoning = read_message({"content": written})
        except UnknownContent as error:
            raise UserError(f"{row.place}: {recording.completion!r}: {error}") from None
        request = Request(recording.model, (("user", prompt),), sample_index=seen[prompt])
        seen[prompt] += 1
        # How it was sampled is not known: `imported` keeps our own defaults out of the provenance.
        raw = {"imported": row.stem} | ({"completion": written} if written != text else {})
        yield request, Completion(text, reasoning, _finish_reason(row), recording.model, raw=raw)


def _finish_reason(row: Row) -> str:
    """Return why a completion ended; `stop` where the file does not say of any. What is no answer is rejected later."""
    if "finish_reason" not in row.data:
        return STOP
    reason = row.data["finish_reason"]
    return understood(reason) or (reason if isinstance(reason, str) and reason else "unknown")


def _field(row: Row, name: str) -> str | list[Any]:
    if row.fault:
        raise UserError(f"{row.place}: {row.fault}")
    value = row.data.get(name)
    if not isinstance(value, str | list):
        known = list(row.data)
        raise UserError(f"{row.place}: no text {name!r} among {known}{nearest(name, known)}")
    return value
