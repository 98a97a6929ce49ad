"""The one live line of a collection: how far it is, how fast, what it costs, and when it will be done."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from toolkit.plain_lines import Pace
from toolkit.spending import Ledger, dollars
from toolkit.tally import Progress, Tally
from toolkit.terminal_text import raw_stream, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WINDOW_S = 30.0  # over which rates are taken
_LIVE_PER_S = 4


class Meter:
    """Says where a collection stands, as one line; a function of the tallies it was shown and when.

    Args:
        description: What the line begins with.
        ledger: Knows what is spent.
        clock: Tells the seconds.
    """

    def __init__(self, description: str, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._description = description
        self._ledger = ledger
        self._clock = clock
        self._seen = deque([(clock(), 0, 0)])  # when, requests that were asked and are done, completion tokens

    def line(self, tally: Tally) -> str:
        """Return the line for this moment.

        Rates are those of the last `WINDOW_S` seconds. What is left is taken to be asked, at that rate and at the mean
        cost of this run so far; later rounds enter as they begin.
        """
        rows, tokens = self._rates(tally)
        left = None if tally.total is None else tally.total - tally.done
        parts = [  # what matters most comes first: a narrow terminal cuts the rest
            f"{tally.done:,}" if tally.total is None else f"{tally.done:,}/{tally.total:,}",
            *([f"{_duration(left / rows)} left"] if left and rows else []),
            *self._money(tally, left),
            f"{tally.failed:,} failed",
            f"{rows:,.1f} rows/s",
            f"{tokens:,.0f} tokens/s",
            f"{tally.in_flight}/{tally.window} in flight",
        ]
        return visible(f"{self._description}  " + "  ".join(parts))

    def _rates(self, tally: Tally) -> tuple[float, float]:
        """Return requests and completion tokens per second; those that the store answered took no time and are none."""
        now, settled = self._clock(), tally.done - tally.cached
        self._seen.append((now, settled, tally.completion_tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        then, settled_then, tokens_then = self._seen[0]
        if now <= then:
            return 0.0, 0.0
        return (settled - settled_then) / (now - then), (tally.completion_tokens - tokens_then) / (now - then)

    def _money(self, tally: Tally, left: int | None) -> list[str]:
        ledger = self._ledger
        if ledger.price is None:
            return ["cost unknown"]
        if ledger.price.is_free:
            return []
        spent = f"{dollars(ledger.spent)} spent"
        if left and tally.answered:
            each = (ledger.spent - ledger.remembered) / tally.answered
            return [spent, f"{dollars(ledger.spent + left * each)} projected"]
        return [spent]


@contextmanager
def live_line(description: str, ledger: Ledger, console: Console | None = None) -> Iterator[Progress]:
    """Show a line that is written anew four times a second, or plain lines where there is no terminal.

    A plain line comes every ten seconds or with every tenth that is done, and one at the end; none comes where nobody
    had to be asked.

    Args:
        description: What the line begins with.
        ledger: Knows what is spent.
        console: Where it is shown; standard error where None.
    """
    from rich.console import Console

    console = console or Console(file=raw_stream(sys.stderr))
    meter = Meter(description, ledger)
    with (_live if console.is_terminal else _plain)(meter, console) as progress:
        yield progress


def together(progress: Progress, number: int) -> list[Progress]:
    """Return what so many collections that run side by side tell; `progress` is told the sum of their tallies."""
    if number == 1:
        return [progress]
    tallies = [Tally() for _ in range(number)]

    def told(index: int, tally: Tally) -> None:
        tallies[index] = tally
        columns = zip(*(vars(each).values() for each in tallies), strict=True)
        progress(Tally(*(None if None in column else sum(column) for column in columns)))  # type: ignore[arg-type]

    return [partial(told, index) for index in range(number)]


@contextmanager
def _live(meter: Meter, console: Console) -> Iterator[Progress]:
    from rich.live import Live
    from rich.text import Text

    latest: list[Tally] = []  # written by the collection, read by the thread that draws: the collection is not slowed

    def draw() -> Text:
        return Text(meter.line(latest[0]) if latest else "", no_wrap=True, overflow="ellipsis")

    def show(tally: Tally) -> None:
        latest[:] = [tally]

    with Live(get_renderable=draw, console=console, refresh_per_second=_LIVE_PER_S):
        yield show


@contextmanager
def _plain(meter: Meter, console: Console) -> Iterator[Progress]:
    latest: list[Tally] = []
    pace = Pace()

    def say(tally: Tally) -> None:
        console.out(meter.line(tally), highlight=False)

    def show(tally: Tally) -> None:
        latest[:] = [tally]
        if pace.is_due(tally.done, tally.total):
            say(tally)

    try:
        yield show
    finally:
        if latest and latest[0].asked:
            say(latest[0])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
