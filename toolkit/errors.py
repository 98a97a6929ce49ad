"""The one exception that stands for a user's mistake; entry points print it without a traceback and exit with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a recipe, a file or a command line.

    The message says where (file, line, key), what was found, what is allowed and, where one is near, the
    spelling that was probably meant.
    """


def nearest(found: str, allowed: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the allowed word closest to `found`, or nothing."""
    close = difflib.get_close_matches(found, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
