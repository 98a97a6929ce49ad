"""The live line: rates, money and time left, by hand on a clock that only the test moves."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from toolkit.plain_lines import Pace
from toolkit.prices import FREE, Price
from toolkit.progress import Meter, live_line, together
from toolkit.spending import Ledger
from toolkit.tally import Tally
from toolkit.teachers.protocol import Completion, Request, Sampling

DOLLAR = Price(input=0, output=1e6)  # a dollar per token of a completion


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tally(**changes: Any) -> Tally:
    return replace(Tally(total=100, window=8), **changes)


def paid(ledger: Ledger, completions: int, tokens: int) -> None:
    request = Request("m", (("user", "?"),), Sampling(max_tokens=tokens))
    for _ in range(completions):
        assert ledger.reserve(request)
        ledger.settle(request, Completion("", prompt_tokens=1, completion_tokens=tokens))


def test_rates_and_time_left_are_those_of_the_window() -> None:
    clock = Clock()
    meter = Meter("asking m", Ledger(FREE, None), clock)
    clock.now += 10
    line = meter.line(tally(done=20, answered=20, completion_tokens=1000, in_flight=8))
    assert line == "asking m  20/100  0:40 left  0 failed  2.0 rows/s  100 tokens/s  8/8 in flight"
    clock.now += 30  # the first ten seconds are out of the window
    line = meter.line(tally(done=50, answered=50, completion_tokens=4000, in_flight=4))
    assert line == "asking m  50/100  0:50 left  0 failed  1.0 rows/s  100 tokens/s  4/8 in flight"


def test_a_standstill_shows() -> None:
    clock = Clock()
    meter = Meter("x", Ledger(FREE, None), clock)
    clock.now += 10
    meter.line(tally(done=20, answered=20))
    clock.now += 10
    assert " 1.0 rows/s" in meter.line(tally(done=20, answered=20))
    clock.now += 30
    stuck = meter.line(tally(done=20, answered=20))
    assert " 0.0 rows/s" in stuck
    assert "left" not in stuck


def test_answers_of_the_store_are_no_rate() -> None:
    clock = Clock()
    meter = Meter("x", Ledger(FREE, None), clock)
    clock.now += 5
    line = meter.line(tally(done=60, cached=50, answered=10))
    assert "60/100  0:20 left" in line
    assert " 2.0 rows/s" in line


def test_the_next_round_makes_the_total_grow_and_nothing_start_over() -> None:
    clock = Clock()
    meter = Meter("x", Ledger(FREE, None), clock)
    clock.now += 10
    assert "left" not in meter.line(tally(done=100, answered=100))
    clock.now += 5
    line = meter.line(tally(total=160, done=120, answered=120))
    assert "120/160  0:05 left" in line
    assert " 8.0 rows/s" in line


def test_spent_and_projected() -> None:
    ledger = Ledger(DOLLAR, None)
    ledger.remember(Completion("", prompt_tokens=1, completion_tokens=7))
    paid(ledger, 10, 3)
    line = Meter("x", ledger, Clock()).line(tally(done=20, cached=10, answered=10))
    assert "37.00 USD spent  277.00 USD projected" in line  # 7 before, 3 for each of 10, and of the 80 to come


def test_nothing_is_projected_without_a_total_or_an_answer() -> None:
    ledger = Ledger(DOLLAR, None)
    assert "projected" not in Meter("x", ledger, Clock()).line(tally(total=None, done=3, answered=3))
    line = Meter("x", ledger, Clock()).line(tally(done=3, cached=3))
    assert "0.00 USD spent" in line
    assert "projected" not in line


def test_collections_side_by_side_are_told_as_one() -> None:
    told: list[Tally] = []
    first, second = together(told.append, 2)
    first(Tally(total=10, done=3, answered=2, failed=1, in_flight=4, window=8, completion_tokens=50))
    second(Tally(total=None, done=1, cached=1, window=8))
    second(Tally(total=5, done=2, cached=1, answered=1, window=2, prompt_tokens=7))
    assert told[1].total is None
    whole = Tally(15, 5, 1, 0, 3, 1, 4, 10, 7, 50)
    assert told[2] == whole
    first(replace(whole, total=None))
    assert told[3] == replace(whole, total=None, done=7, cached=2, answered=4, window=12, prompt_tokens=14)


def test_an_unknown_price_is_no_cost_of_nothing() -> None:
    line = Meter("x", Ledger(None, None), Clock()).line(tally(done=3, answered=3))
    assert "cost unknown" in line
    assert "USD" not in line


def test_failures_and_long_waits() -> None:
    clock = Clock()
    meter = Meter("x", Ledger(FREE, None), clock)
    clock.now += 10
    line = meter.line(tally(total=100_000, done=10, answered=8, failed=2))
    assert "27:46:30 left  2 failed" in line


def test_a_plain_line_is_due_after_ten_seconds_or_a_tenth_but_not_at_once() -> None:
    clock = Clock()
    pace = Pace(clock)

    def due(seconds: float, done: int, total: int | None = 100) -> bool:
        clock.now += seconds
        return pace.is_due(done, total)

    assert not due(0.5, 50)
    assert due(0.5, 50)
    assert not due(5, 59)
    assert due(0, 60)
    assert not due(9, 61)
    assert due(1, 61)
    assert due(1, 61, total=200)  # the next round


def test_without_a_total_plain_lines_come_by_the_clock() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += 9
    assert not pace.is_due(500, None)
    clock.now += 1
    assert pace.is_due(500, None)


def shown(is_terminal: bool, during: Callable[[Any], None]) -> str:
    text = io.StringIO()
    with live_line("asking m", Ledger(FREE, None), Console(file=text, force_terminal=is_terminal, width=120)) as show:
        during(show)
    return text.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_last_state_is_what_stays(is_terminal: bool) -> None:
    text = shown(is_terminal, lambda show: show(tally(asked=100, done=100, answered=97, failed=3)))
    assert "asking m  100/100" in text
    assert "3 failed" in text


def test_no_control_characters_where_there_is_no_terminal() -> None:
    text = shown(False, lambda show: show(tally(asked=1, done=1)))
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_no_plain_line_where_nobody_was_asked() -> None:
    assert shown(False, lambda show: show(tally(done=100, cached=100))) == ""


def test_what_was_reached_is_said_when_the_run_breaks() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=False, width=120)

    def broken() -> None:
        with live_line("asking m", Ledger(FREE, None), console) as show:
            show(tally(asked=5, done=4))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert "4/100" in text.getvalue()
