"""Text of any source on a user's terminal: what would steer the terminal, or hide text on it, is shown as an escape.

Completions, questions, file names and the words of servers may hold such characters, and everything that is printed
goes through here: `plain_streams` stands between `print` and the terminal for as long as a command runs.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Control characters but tab and line feed, those of ISO 8859 (0x9b begins a sequence by itself), marks that turn the
# direction of writing, that take no room, or that end a line where nobody sees it, and tags.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# What a progress bar of a library writes: a line from its beginning, or steps between the lines of several.
_STEPS = re.compile(r"(?:\n|\x1b\[A)+")
_BAR = re.compile(r"\r([^\r]*)(\r?)")


def visible(text: str) -> str:
    """Return text in which each character that steers a terminal is written as an escape: `\\x1b`, `\\u202e`.

    Tabs and line feeds stay: text may be a block of lines.
    """
    return _STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def escaped(text: str) -> str:
    """Return visible text as it is written into a page of HTML."""
    return html.escape(visible(text))


class PlainStream:
    """Stands before a stream and makes what is written to it visible; anything else is the stream's own business."""

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        """Write text; of a bar its carriage returns stay, and steps between lines that come alone."""
        if bar := _BAR.fullmatch(text):
            self.raw.write(f"\r{visible(bar[1])}{bar[2]}")
        else:
            self.raw.write(text if _STEPS.fullmatch(text) else visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)


def raw_stream(stream: Any) -> TextIO:
    """Return what stands behind a stream, for whoever draws on it and makes all texts visible itself."""
    found: TextIO = stream.raw if isinstance(stream, PlainStream) else stream
    return found


@contextmanager
def plain_streams() -> Iterator[None]:
    """Have everything that is printed made visible, the traceback of a crash included."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (PlainStream(raw_stream(stream)) for stream in before)  # type: ignore[assignment]
    try:
        yield
    except Exception:
        raise  # Python prints it to `sys.stderr` as it is then
    except BaseException:
        sys.stdout, sys.stderr = before
        raise
    else:
        sys.stdout, sys.stderr = before
