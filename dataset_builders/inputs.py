"""What a build reads beside its settings and a teacher's answers: files that the settings name, and our own prompts.

A build that is found again has to notice that one of them is another file now. Everything on the Hub is left to its
revision, and a teacher's answers to the requests that they answer.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROMPTS = Path(__file__).parent / "prompts"
_LONGEST = 1000  # characters of a path; what is longer, or of several lines, is prose
_SLOT = re.compile(r"\{\w+\}")


def inputs_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of every file that settings name, and of the default prompts.

    Any text counts that names a file, a pattern of files (`{split}` and `{task}` stand for any text) or a folder, so
    that no builder can forget one: a title that happens to name a file makes a build be looked at again, and no more.
    Of folders, mostly those of models, names, sizes and times count.

    Args:
        settings: A builder's settings as plain data; its teacher is passed over.
    """
    digest = hashlib.sha256()
    texts = [text for key, value in sorted(settings.items()) if key != "teacher" for text in _texts(value)]
    for text in dict.fromkeys([*texts, f"{PROMPTS}/*"]):
        for path in sorted(map(Path, _named(text))):
            for file, what in _content(path):
                digest.update(f"{file} {what}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if 0 < len(value) <= _LONGEST and value.isprintable():
            yield value
    elif isinstance(value, Mapping):
        for _, inner in sorted(value.items()):
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _named(text: str) -> list[str]:
    """Return the files and folders that a text names; a slot alone, such as `{stem}`, names none, and is no pattern."""
    if not _SLOT.sub("", text).strip("*?./"):
        return []
    # What is no pattern may have brackets in its name, or in that of its folder.
    patterns = (_SLOT.sub("*", text), _SLOT.sub("*", glob.escape(text)))
    return next((found for pattern in patterns if (found := glob.glob(pattern, recursive=True))), [])


def _content(path: Path) -> Iterator[tuple[str, str]]:
    """Yield a file's name and digest; of a folder the name of every file in it, with its size and time."""
    if path.is_file():
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()
    elif path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.is_file() and not any(part.startswith((".", "__")) for part in inner.relative_to(path).parts):
                stat = inner.stat()
                yield inner.relative_to(path).as_posix(), f"{stat.st_size} {stat.st_mtime_ns}"
