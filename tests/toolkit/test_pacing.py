from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.pacing import Bucket, Pace, Window
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError

BUSY = TeacherError("retry", "HTTP 429", overloaded=True)
BROKEN = TeacherError("retry", "HTTP 500")
LOST = TeacherError("retry", "connection lost", billed=True)


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# The window


def test_a_window_is_as_large_as_allowed_until_somebody_complains() -> None:
    window = Window(3)
    entered = [window.enter() for _ in range(3)]
    assert (window.size, window.has_room) == (3, False)
    for number in entered:
        window.leave(number, answered=True, overloaded=False)
    assert (window.size, window.in_flight) == (3, 0)


def test_a_window_full_of_complaints_halves_once() -> None:
    window = Window(128)
    for number in [window.enter() for _ in range(128)]:
        window.leave(number, answered=False, overloaded=True)
    assert window.size == 64


def test_a_window_halves_once_per_round_trip_down_to_one() -> None:
    window = Window(20)
    sizes = []
    for _ in range(6):
        for number in [window.enter() for _ in range(window.size)]:
            window.leave(number, answered=False, overloaded=True)
        sizes.append(window.size)
    assert sizes == [10, 5, 2, 1, 1, 1]  # 20, 10, 5, 2.5, 1.25, 1


def test_a_window_of_answers_makes_it_one_larger() -> None:
    window = Window(4)
    window.leave(window.enter(), answered=False, overloaded=True)
    sizes = []
    for _ in range(7):
        window.leave(window.enter(), answered=True, overloaded=False)
        sizes.append(window.size)
    # From 2: +1/2, +1/2.5, +1/2.9 (3.24), +1/3.24 (3.55), +1/3.55 (3.83), +1/3.83 (4, never more)
    assert sizes == [2, 2, 3, 3, 3, 4, 4]


def test_a_failure_of_another_kind_moves_no_window() -> None:
    window = Window(8)
    window.leave(window.enter(), answered=False, overloaded=True)
    window.leave(window.enter(), answered=False, overloaded=False)
    assert window.size == 4


@given(st.integers(1, 50), st.lists(st.sampled_from(["enter", "answered", "overloaded", "failed"]), max_size=300))
def test_a_window_stays_between_one_and_its_most_and_recovers(most: int, moves: list[str]) -> None:
    window = Window(most)
    flying: list[int] = []
    for move in moves:
        if move == "enter" and window.has_room:
            flying.append(window.enter())
        elif move != "enter" and flying:
            window.leave(flying.pop(0), answered=move == "answered", overloaded=move == "overloaded")
        assert 1 <= window.size <= most
        assert window.in_flight == len(flying)
    for _ in range(most * most):
        window.leave(window.enter(), answered=True, overloaded=False)
    assert window.size == most


# The buckets


def test_a_bucket_lets_a_second_s_worth_through_at_once_and_then_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(610, clock)  # ten a second
    for _ in range(10):
        assert bucket.wait(1) == 0
        bucket.draw(1)
    assert bucket.wait(1) == pytest.approx(0.1)
    clock.now += 0.05
    assert bucket.wait(1) == pytest.approx(0.05)
    clock.now += 100
    assert bucket.wait(10) == 0
    assert bucket.wait(10_000) == 0, "larger than the bucket, and it is full"


def test_a_draw_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_for_later() -> None:
    clock = Clock()
    bucket = Bucket(610, clock)
    bucket.draw(4)
    assert bucket.wait(50) == pytest.approx(0.4)
    clock.now += 0.4
    bucket.draw(50)
    assert bucket.wait(1) == pytest.approx(4.1)


def test_what_was_reserved_and_not_used_is_given_back_but_never_more_than_full() -> None:
    clock = Clock()
    bucket = Bucket(610, clock)
    bucket.draw(8)
    bucket.draw(-5)
    assert bucket.wait(7) == 0
    bucket.draw(-1000)
    bucket.draw(10)
    assert bucket.wait(1) == pytest.approx(0.1)


Draws = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), min_size=1, max_size=60)


@given(st.floats(1, 2000), Draws)
def test_no_stretch_of_time_sees_more_than_rate_and_burst(per_minute: float, draws: list[tuple[float, float]]) -> None:
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    drawn: list[tuple[float, float]] = []
    for pause, amount in draws:
        clock.now += pause
        clock.now += bucket.wait(amount)
        assert bucket.wait(amount) == 0, "it waits once, however large the draw: nothing starves"
        bucket.draw(amount)
        drawn.append((clock.now, amount))
    assert len(drawn) == len(draws)
    for first, (begin, _) in enumerate(drawn):
        total = 0.0
        for end, amount in drawn[first:]:
            total += amount
            # The last draw may be larger than the bucket; all before it have been paid for.
            allowed = bucket.rate * (end - begin) + max(bucket.burst, amount)
            assert total <= allowed * (1 + 1e-6) + 1e-3


@given(st.integers(1, 600), st.lists(st.floats(0, 3), min_size=5, max_size=200))
def test_no_minute_sees_more_requests_than_the_limit(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    times = []
    for pause in pauses:
        clock.now += pause
        clock.now += bucket.wait(1)
        bucket.draw(1)
        times.append(clock.now)
    of_a_minute = [sum(begin <= time < begin + 60 - 1e-3 for time in times) for begin in times]
    assert max(of_a_minute) <= per_minute


# The pace


def ask(prompt: str, max_tokens: int = 100) -> Request:
    return Request("m", (("user", prompt),), Sampling(max_tokens=max_tokens))


def answer(prompt_tokens: int, completion_tokens: int) -> Completion:
    return Completion("", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def test_a_pace_without_limits_never_waits() -> None:
    pace = Pace(2, None, None, None, Clock())
    assert pace.wait(ask("x" * 10_000)) == 0
    sent = pace.send(ask("x"))
    pace.settle(sent, answer(5, 5))
    assert pace.wait(ask("x")) == 0


@pytest.mark.parametrize(
    "outcome", [answer(5, 5), answer(0, 0), BUSY, BROKEN, LOST], ids=["told", "bare", "busy", "500", "lost"]
)
def test_whatever_came_back_makes_room_for_another(outcome: Completion | TeacherError) -> None:
    pace = Pace(2, None, None, None, Clock())
    first, _ = pace.send(ask("a")), pace.send(ask("b"))
    assert not pace.window.has_room
    pace.settle(first, outcome)
    assert (pace.window.in_flight, pace.window.has_room) == (1, outcome is not BUSY)


def test_answers_widen_the_window_again_and_failures_of_another_kind_do_not() -> None:
    pace = Pace(4, None, None, None, Clock())
    pace.settle(pace.send(ask("a")), BUSY)
    for outcome in (BROKEN, BROKEN, BROKEN, answer(5, 5), answer(5, 5)):
        pace.settle(pace.send(ask("a")), outcome)
        assert pace.window.size == 2  # in the end 2 + 1/2 + 1/2.5 = 2.9
    pace.settle(pace.send(ask("a")), answer(5, 5))
    assert pace.window.size == 3


def test_complaints_about_requests_from_before_the_last_halving_are_old_news() -> None:
    pace = Pace(8, None, None, None, Clock())
    for sent in [pace.send(ask("a")) for _ in range(3)]:
        pace.settle(sent, BUSY)
    assert pace.window.size == 4
    pace.settle(pace.send(ask("a")), BUSY)
    assert pace.window.size == 2


def test_an_answer_that_was_billed_for_its_prompt_alone_is_counted() -> None:
    pace = Pace(9, None, 6100, 6100, Clock())
    pace.settle(pace.send(ask("x" * 396, max_tokens=50)), answer(198, 0))
    sent = pace.send(ask("x" * 200, max_tokens=50))
    assert (sent.input_tokens, sent.output_tokens) == (pytest.approx(99.5), 0)  # (1 + 198) / (4 + 396) tokens a byte


def test_a_try_that_failed_counts_as_a_request() -> None:
    pace = Pace(9, 61, None, None, Clock())  # one a second
    pace.settle(pace.send(ask("a")), BROKEN)
    assert pace.wait(ask("a")) == pytest.approx(1)


def test_what_is_not_limited_is_not_estimated() -> None:
    sent = Pace(9, 61, None, None, Clock()).send(ask("x" * 40))
    assert (sent.size, sent.input_tokens, sent.output_tokens) == (0, 0, 0)


def test_a_prompt_is_as_long_as_all_of_its_messages() -> None:
    pace = Pace(9, None, 6100, None, Clock())
    both = Request("m", (("system", "x" * 40), ("user", "y" * 20 + "\ud800")), Sampling(max_tokens=9))
    assert pace.send(both).size == 61  # a lone surrogate, which no encoding has, is one question mark


def test_the_strictest_limit_decides() -> None:
    pace = Pace(9, requests=61, input_tokens=6100, output_tokens=610, clock=Clock())  # 1, 100 and 10 a second
    pace.send(ask("x" * 40, max_tokens=30))  # 1 request, 10 tokens in, 30 out
    assert pace.wait(ask("x" * 40, max_tokens=5)) == pytest.approx(2.5), "output: 20 in debt, and 5 more"


def test_prompt_tokens_are_estimated_by_bytes_at_the_ratio_that_was_billed() -> None:
    pace = Pace(9, None, 6100, None, Clock())  # 100 a second, at first one token per 4 bytes
    sent = pace.send(ask("x" * 396))
    assert sent.input_tokens == 99
    pace.settle(sent, answer(198, 7))  # (1 + 198) / (4 + 396) tokens a byte
    assert pace.wait(ask("x" * 200)) == pytest.approx((99.5 - (100 - 198)) / 100)
    assert pace.send(ask("\u00e9" * 100)).input_tokens == pytest.approx(99.5), "bytes, not characters"


def test_completion_tokens_are_reserved_at_their_limit_and_then_at_their_mean() -> None:
    pace = Pace(9, None, None, 6100, Clock())
    first = pace.send(ask("", max_tokens=90))
    assert first.output_tokens == 90
    pace.settle(first, answer(5, 20))
    second = pace.send(ask("", max_tokens=90))
    pace.settle(second, answer(5, 40))
    assert (second.output_tokens, pace.send(ask("", max_tokens=90)).output_tokens) == (20, 30)
    assert pace.send(ask("", max_tokens=8)).output_tokens == 8
    assert pace.wait(ask("", max_tokens=2)) == 0, "100 - 20 - 40 - 30 - 8 = 2"
    assert pace.wait(ask("", max_tokens=3)) == pytest.approx(0.01)


@pytest.mark.parametrize(("failure", "seconds"), [(BUSY, 0.0), (BROKEN, 0.0), (LOST, 1.0)])
def test_a_failed_try_gives_its_tokens_back_unless_it_may_have_been_billed(
    failure: TeacherError, seconds: float
) -> None:
    pace = Pace(9, None, 6100, 6100, Clock())
    pace.settle(pace.send(ask("x" * 400)), failure)
    assert pace.wait(ask("x" * 400)) == pytest.approx(seconds)


def test_a_server_that_counts_no_tokens_teaches_nothing() -> None:
    pace = Pace(9, None, 6100, 6100, Clock())
    pace.settle(pace.send(ask("x" * 200, max_tokens=50)), answer(0, 0))
    sent = pace.send(ask("x" * 200, max_tokens=50))
    assert (sent.input_tokens, sent.output_tokens) == (50, 50)
