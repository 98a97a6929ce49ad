"""The ledger: exact sums, and a cap that holds for any order of what happens."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UserError
from toolkit.prices import FREE, Price
from toolkit.spending import TEMPLATE_TOKENS, Ledger, bound, cost, dollars, token_cost
from toolkit.teachers.protocol import Completion, Request, Sampling, TeacherError

PRICE = Price(input=0.4, cached_input=0.1, output=1.6, batch=0.5)


def ask(content: str = "How many?", max_tokens: int = 10) -> Request:
    return Request("m", (("user", content),), Sampling(max_tokens=max_tokens))


def answer(prompt: int, completion: int, cached: int = 0, batched: bool = False) -> Completion:
    return Completion(
        "", prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, batched=batched, model="m"
    )


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (answer(1_000_000, 0), 0.4),
        (answer(0, 1_000_000), 1.6),
        (answer(1_000_000, 0, cached=1_000_000), 0.1),
        (answer(1_000_000, 1_000_000, cached=500_000), 0.2 + 0.05 + 1.6),
        (answer(1_000_000, 1_000_000, batched=True), 0.2 + 0.8),
        (answer(1_000_000, 0, cached=1_000_000, batched=True), 0.1),  # the greater discount, not both
        (answer(10, 0, cached=20), 1e-6),  # never more from the cache than there was
    ],
)
def test_the_cost_of_a_completion(completion: Completion, expected: float) -> None:
    assert cost(completion, PRICE) == pytest.approx(expected, rel=1e-12)


def test_a_cached_token_has_the_price_of_any_other_where_none_is_stated() -> None:
    assert cost(answer(1_000_000, 0, cached=400_000), Price(input=3, output=1)) == 3.0


def test_a_bound_counts_bytes_and_an_allowance_per_message() -> None:
    request = Request("m", (("system", "é" * 10), ("user", "x" * 5)), Sampling(max_tokens=7))
    assert bound(request, Price(input=1e6, output=0)) == 20 + 5 + 2 * TEMPLATE_TOKENS
    assert bound(request, Price(input=0, output=1e6)) == 7
    assert bound(request, Price(input=0, output=1e6, batch=0.5), batched=True) == 3.5


def test_a_bound_takes_the_higher_of_a_prompts_prices() -> None:
    assert bound(ask(""), Price(input=1, cached_input=2, output=0)) == 2e-6 * TEMPLATE_TOKENS


def test_a_bound_of_text_that_is_no_unicode() -> None:
    assert bound(ask("\ud800"), Price(input=1e6, output=0)) == 3 + TEMPLATE_TOKENS


def test_the_costs_of_many_rows_add_up_without_drift() -> None:
    ledger = Ledger(PRICE, None)
    completion = answer(137, 41, cached=11)
    for _ in range(100_000):
        ledger.remember(completion)
    exact = Fraction(126) * 400_000 + Fraction(11) * 100_000 + Fraction(41) * 1_600_000
    assert ledger.spent == float(100_000 * exact / 10**12)


def test_a_try_that_may_have_been_billed_costs_its_bound() -> None:
    ledger = Ledger(PRICE, None)
    for error in (TeacherError("retry", "timeout", billed=True), TeacherError("retry", "HTTP 500")):
        assert ledger.reserve(ask())
        ledger.settle(ask(), error)
    assert ledger.lost == ledger.spent == bound(ask(), PRICE)
    assert ledger.reserved == 0


def test_an_answer_without_token_counts_costs_its_bound() -> None:
    ledger = Ledger(PRICE, None)
    ledger.reserve(ask())
    ledger.settle(ask(), answer(0, 0))
    assert ledger.spent == bound(ask(), PRICE)


def test_what_was_paid_before_counts_towards_the_cap() -> None:
    most = bound(ask(), PRICE)
    ledger = Ledger(PRICE, 2 * most)
    ledger.remember(answer(1_000_000, 0))
    assert not ledger.reserve(ask())
    assert (ledger.remembered, ledger.reserved) == (0.4, 0)


def test_an_earlier_answer_without_token_counts_costs_the_bound_of_its_request() -> None:
    ledger = Ledger(PRICE, None)
    ledger.remember(answer(0, 0), ask())
    ledger.remember(answer(0, 0, batched=True), ask())
    ledger.remember(answer(10, 5), ask())  # counted
    ledger.remember(answer(0, 0))  # nothing is known of it
    costs = bound(ask(), PRICE), bound(ask(), PRICE, batched=True), cost(answer(10, 5), PRICE)
    assert ledger.remembered == pytest.approx(sum(costs))


def test_ledgers_of_the_same_money_tell_each_other_of_releases_and_keep_their_losses_apart() -> None:
    most = bound(ask(), PRICE)
    first = Ledger(PRICE, 1.5 * most)
    second = first.beside(PRICE)
    told: list[float] = []
    second.watch(lambda: told.append(second.reserved))
    assert first.reserve(ask())
    assert not second.reserve(ask())
    first.settle(ask(), TeacherError("retry", "connection lost", billed=True))
    assert told == [0]
    assert (first.own_lost, second.own_lost) == (most, 0)
    assert first.lost == second.lost == first.spent == most


def test_tokens_that_are_not_of_one_completion_cost_what_they_cost() -> None:
    """A million dollars for a million tokens of a prompt, of cached ones a tenth, of completions four."""
    price = Price(input=1e6, cached_input=1e5, output=4e6, batch=0.5)
    assert token_cost(price, 10, 4, 3) == 6 + 0.4 + 12
    assert token_cost(price, 10, 40, 0) == 1  # never more from the cache than there was
    assert token_cost(price, 10, 4, 3, batched=True) == 3 + 0.4 + 6


def test_a_bound_in_dollars_by_hand() -> None:
    # 9 bytes and 64 tokens around them at 0.4, 10 tokens of completion at 1.6 for a million each.
    assert bound(ask(), PRICE) == pytest.approx((73 * 0.4 + 10 * 1.6) / 1e6, rel=1e-12)
    assert bound(ask(), PRICE, batched=True) == pytest.approx((73 * 0.2 + 10 * 0.8) / 1e6, rel=1e-12)


def test_a_ledger_of_batches_sets_aside_what_batches_cost() -> None:
    ledger = Ledger(PRICE, None, batched=True)
    half = (73 * 0.2 + 10 * 0.8) / 1e6
    assert ledger.reserve(ask())
    assert ledger.reserved == pytest.approx(half, rel=1e-12)
    assert ledger.beside(PRICE).reserve(ask())
    assert ledger.reserved == pytest.approx(2 * half, rel=1e-12)
    ledger.settle(ask(), answer(0, 0))
    ledger.lose(ask())
    assert (ledger.spent, ledger.own_lost) == (pytest.approx(2 * half, rel=1e-12), pytest.approx(half, rel=1e-12))


def test_what_is_released_may_be_set_aside_again_and_watchers_hear_of_it() -> None:
    most = bound(ask(), PRICE)
    ledger = Ledger(PRICE, most)
    beside = ledger.beside(PRICE)
    told: list[float] = []
    ledger.watch(lambda: told.append(ledger.reserved))
    assert beside.reserve(ask())
    ledger.release()  # nothing of its own
    assert not ledger.reserve(ask())
    beside.release()
    assert ledger.reserve(ask())
    assert told == [most, 0]


def test_losses_of_earlier_runs_count_towards_the_cap_and_are_no_loss_of_this_one() -> None:
    ledger = Ledger(PRICE, 1.0)
    ledger.remember_loss(0.25)
    ledger.remember(answer(1_000_000, 0))
    assert (ledger.remembered, ledger.spent, ledger.lost) == (0.65, 0.65, 0)
    ledger.remember_loss(0.35)
    assert not ledger.reserve(ask())


def test_a_request_that_nothing_was_set_aside_for_is_lost_at_its_bound() -> None:
    ledger = Ledger(PRICE, None)
    ledger.lose(ask())
    most = bound(ask(), PRICE)
    assert (ledger.lost, ledger.own_lost, ledger.spent, ledger.reserved) == (most, most, most, 0)


def test_what_a_worker_has_spent_is_added_and_its_losses_with_it() -> None:
    ledger = Ledger(PRICE, 1.0)
    ledger.add(spent=0.75, lost=0.25)
    assert (ledger.spent, ledger.lost, ledger.own_lost, ledger.remembered) == (0.75, 0.25, 0.25, 0)
    ledger.add(spent=0.25, lost=0.0)
    assert not ledger.reserve(ask())


def test_without_a_price_nothing_of_all_this_is_counted() -> None:
    ledger = Ledger(None, None)
    ledger.remember_loss(0.5)
    ledger.lose(ask())
    ledger.add(1.0, 0.5)
    ledger.abandon(goes_on=False)
    ledger.release()
    assert math.isnan(ledger.own_lost)
    with pytest.raises(UserError, match=r"found 5, but no price is known by which to keep it"):
        Ledger(PRICE, 5.0).beside(None)


def test_an_answer_releases_what_was_set_aside_for_it_alone() -> None:
    ledger = Ledger(PRICE, None)
    told: list[float] = []
    ledger.watch(lambda: told.append(ledger.reserved))
    assert ledger.reserve(ask())
    assert ledger.reserve(ask("another one", 99))
    ledger.settle(ask(), answer(10, 5))
    assert told == [ledger.reserved] == [bound(ask("another one", 99), PRICE)]
    assert ledger.spent == pytest.approx((10 * 0.4 + 5 * 1.6) / 1e6, rel=1e-12)


def test_a_cap_is_rounded_down_and_a_price_to_the_nearest_picodollar() -> None:
    ledger = Ledger(Price(input=0, output=1e-6), 3.7e-12)  # a picodollar for each token
    assert ledger.reserve(ask(max_tokens=3))
    assert not ledger.reserve(ask(max_tokens=1))
    assert bound(ask(max_tokens=4), Price(input=0, output=1.6e-6)) == 8e-12


def test_the_cap_itself_may_be_spent() -> None:
    ledger = Ledger(Price(input=0, output=1e6), 20.0)
    assert ledger.reserve(ask())
    assert ledger.reserve(ask())
    assert not ledger.reserve(ask(max_tokens=1))


def test_without_a_price_nothing_is_known_and_nothing_refused() -> None:
    ledger = Ledger(None, None)
    assert ledger.reserve(ask())
    ledger.settle(ask(), answer(10, 10))
    ledger.remember(answer(10, 10))
    assert all(map(math.isnan, (ledger.spent, ledger.reserved, ledger.lost, ledger.remembered)))


def test_a_cap_without_a_price_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_cost_usd.*teacher\.price"):
        Ledger(None, 5.0)


def test_free_teachers_cost_nothing_under_any_cap() -> None:
    ledger = Ledger(FREE, 0.01)
    assert ledger.reserve(ask())
    ledger.settle(ask(), answer(0, 0))
    assert ledger.spent == 0.0


def test_a_free_teacher_is_asked_though_a_paid_one_has_spent_more_than_the_cap() -> None:
    paid = Ledger(PRICE, bound(ask(), PRICE))
    paid.remember(answer(1_000_000, 0))
    assert not paid.reserve(ask())
    assert paid.beside(FREE).reserve(ask())


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_was_set_aside_for_requests_that_nobody_waits_for_is_spent(goes_on: bool) -> None:
    most = bound(ask(), PRICE)
    ledger = Ledger(PRICE, None)
    beside = ledger.beside(PRICE)
    told: list[float] = []
    beside.watch(lambda: told.append(beside.reserved))
    assert all(each.reserve(ask()) for each in (ledger, ledger, beside))
    ledger.abandon(goes_on)
    assert told == [pytest.approx(most)]  # that of the other one
    assert ledger.spent == pytest.approx(2 * most)
    assert (ledger.own_lost, beside.own_lost) == (0 if goes_on else pytest.approx(2 * most), 0)
    ledger.abandon(goes_on)
    assert ledger.spent == pytest.approx(2 * most)


REQUESTS = st.builds(ask, st.text("aé€", max_size=50), st.integers(1, 200))
PRICES = st.builds(
    Price,
    input=st.floats(0, 100),
    cached_input=st.none() | st.floats(0, 100),
    output=st.floats(0, 600),
    batch=st.sampled_from([0.5, 1.0, 0.3]),
)


@settings(deadline=None)  # a busy machine is no fault
@given(PRICES, st.floats(1e-6, 0.5), st.booleans(), st.data())
def test_spent_and_reserved_never_exceed_the_cap_and_add_up(
    price: Price, cap: float, batched: bool, data: st.DataObject
) -> None:
    ledger = Ledger(price, cap, batched)
    in_flight: list[Request] = []
    spent: list[float] = []
    lost: list[float] = []
    for _ in range(data.draw(st.integers(0, 40))):
        if in_flight and data.draw(st.booleans()):
            request = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            outcome = data.draw(outcomes(request, batched))
            ledger.settle(request, outcome)
            if isinstance(outcome, Completion):
                spent.append(cost(outcome, price) if outcome.prompt_tokens else bound(request, price, batched))
            elif outcome.billed:
                lost.append(bound(request, price, batched))
        else:
            request = data.draw(REQUESTS)
            if ledger.reserve(request):
                in_flight.append(request)
        assert ledger.spent + ledger.reserved <= cap * (1 + 1e-15)
        assert ledger.spent <= cap
    assert ledger.spent == pytest.approx(math.fsum(spent + lost), abs=1e-12)
    assert ledger.lost == pytest.approx(math.fsum(lost), abs=1e-12)
    assert ledger.reserved == pytest.approx(math.fsum(bound(r, price, batched) for r in in_flight), abs=1e-12)


def outcomes(request: Request, batched: bool) -> st.SearchStrategy[Any]:
    """Answers within the bound, and failures."""
    content = len(request.messages[0][1].encode())
    answers = st.builds(
        answer,
        st.integers(0, content + TEMPLATE_TOKENS),
        st.integers(0, request.sampling.max_tokens),
        st.integers(0, 100),
        st.just(batched),
    )
    return answers | st.builds(TeacherError, st.just("retry"), st.just("x"), billed=st.booleans())


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (0.0, "0.00 USD"),
        (0.1, "0.10 USD"),
        (1234.567, "1,234.57 USD"),
        (0.0999, "0.1 USD"),
        (0.00042, "0.00042 USD"),
        (3e-7, "3e-07 USD"),
        (math.nan, "unknown"),
    ],
)
def test_dollars_as_people_read_them(amount: float, told: str) -> None:
    assert dollars(amount) == told
