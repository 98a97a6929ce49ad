"""When a plain line of progress is due, where there is no terminal to draw a bar on."""

from __future__ import annotations

import time
from collections.abc import Callable

_PLAIN_S = 10.0  # between two plain lines, unless another tenth is done
_LEAST_S = 1.0


class Pace:
    """Says when another plain line is due.

    Args:
        clock: Tells the seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._tenth = 0

    def is_due(self, done: int, total: int | None) -> bool:
        """Whether ten seconds have passed, or one and another tenth is done; if so, the line counts as said."""
        now = self._clock()
        tenth = 10 * done // total if total else 0
        waited = now - self._last
        if waited < _LEAST_S or (waited < _PLAIN_S and tenth == self._tenth):
            return False
        self._last, self._tenth = now, tenth
        return True
