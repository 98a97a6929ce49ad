"""What a run spends, kept below a cap by setting money aside before it is asked for.

A request is sent only if all that it can cost still fits below the cap beside what is spent and what is set aside for
the requests in flight. So the cap holds whatever is in flight, as long as `bound` is one. It is, because a token is at
least one byte of text and a completion has at most `max_tokens`. It is none where a server bills what nobody sent or
asked for: a system prompt of its own longer than the allowance per message, or thinking that it does not count into
`max_tokens`. Then one answer costs more than was set aside, is counted in full, and the next ones wait for it.

Money is added up in whole picodollars (10^-12 USD), so that a million rows give the sum of a million costs exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from toolkit.errors import UserError
from toolkit.prices import Price
from toolkit.teachers.protocol import Completion, Request, TeacherError

# A chat template puts a dozen tokens around a message, and some put a line of their own before the first one.
TEMPLATE_TOKENS = 64
_PICODOLLARS = 10**12  # of a dollar; a price of p USD per million tokens is p * 10**6 of them per token


def cost(completion: Completion, price: Price) -> float:
    """Return what a completion cost in USD, by the tokens that were billed; 0 where the endpoint told none."""
    return _cost(completion, price) / _PICODOLLARS


def bound(request: Request, price: Price, batched: bool = False) -> float:
    """Return the most that a request can cost in USD; the module says why it is the most."""
    return _bound(request, price, batched) / _PICODOLLARS


def token_cost(price: Price, prompt: int, cached: int, completion: int, batched: bool = False) -> float:
    """Return what tokens cost in USD; those of the prompt that were `cached` are among `prompt`."""
    return _tokens(price, prompt, cached, completion, batched) / _PICODOLLARS


@dataclass
class _Sums:
    """Picodollars for answers remembered and new, lost on failed tries, and set aside; who is told of a release."""

    answered: int = 0
    lost: int = 0
    remembered: int = 0
    reserved: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)


class Ledger:
    """The money of one run: spent, set aside, and what is left below the cap.

    Args:
        price: What tokens cost; None where it is not known.
        max_cost_usd: What the data may cost, its answers from earlier runs included; None for no cap. Those count as
            they are remembered.
        batched: Whether requests go through a batch API, at its prices.

    Raises:
        UserError: A cap without a price, which nothing could keep.
    """

    def __init__(self, price: Price | None, max_cost_usd: float | None, batched: bool = False) -> None:
        if price is None and max_cost_usd is not None:
            raise UserError(
                f"dataset.config.collect.max_cost_usd: found {max_cost_usd:g}, but no price is known by which to keep "
                "it; set dataset.config.teacher.price: {input: ..., output: ...} in USD per million tokens"
            )
        self.price = price
        self.max_cost_usd = max_cost_usd
        self._batched = batched
        self._cap = None if max_cost_usd is None else math.floor(Fraction(max_cost_usd) * _PICODOLLARS)
        self._sums = _Sums()
        self._own_lost = self._own_reserved = 0

    def beside(self, price: Price | None) -> Ledger:
        """Return a ledger of the same money under the same cap, for another teacher's requests at its price.

        Raises:
            UserError: A cap without a price.
        """
        other = Ledger(price, self.max_cost_usd, self._batched)
        other._sums = self._sums
        return other

    @property
    def spent(self) -> float:
        """USD for answers remembered and new, and lost on failed tries; NaN where no price is known."""
        return self._usd(self._spent)

    @property
    def reserved(self) -> float:
        """USD set aside for requests in flight; NaN where no price is known."""
        return self._usd(self._sums.reserved)

    @property
    def lost(self) -> float:
        """USD that failed tries may have cost, each at its bound; NaN where no price is known."""
        return self._usd(self._sums.lost)

    @property
    def own_lost(self) -> float:
        """USD of `lost` for requests of this ledger, without those of the ones beside it."""
        return self._usd(self._own_lost)

    @property
    def remembered(self) -> float:
        """USD that earlier runs have spent; NaN where no price is known."""
        return self._usd(self._sums.remembered)

    def remember(self, completion: Completion, request: Request | None = None) -> None:
        """Count what an earlier run paid for; the cap is what the data may cost, not one run.

        Where its tokens were not counted, it is what its request can cost at most, as in the run that asked; nothing
        where the request is not given.
        """
        if self.price is None:
            return
        if request is not None and not is_counted(completion):
            self._sums.remembered += _bound(request, self.price, completion.batched)
        else:
            self._sums.remembered += _cost(completion, self.price)

    def remember_loss(self, usd: float) -> None:
        """Count what earlier runs have lost on tries without an answer, in USD."""
        if self.price is not None:
            self._sums.remembered += round(usd * _PICODOLLARS)

    def reserve(self, request: Request) -> bool:
        """Set aside the most that a request can cost; False, and nothing set aside, if the cap would not hold it."""
        if self.price is None:
            return True
        most = _bound(request, self.price, self._batched)
        if self._cap is not None and most and self._spent + self._sums.reserved + most > self._cap:
            return False
        self._reserve(most)
        return True

    def settle(self, request: Request, outcome: Completion | TeacherError) -> None:
        """Count what a try has cost and release what was set aside for it.

        A failed try that may have been billed, and an answer whose tokens were not counted, cost what was set aside.
        """
        if self.price is None:
            return
        most = _bound(request, self.price, self._batched)
        self._reserve(-most)
        if isinstance(outcome, TeacherError):
            self._lose(most if outcome.billed else 0)
        else:
            self._sums.answered += _cost(outcome, self.price) if is_counted(outcome) else most
        self._tell()

    def release(self) -> None:
        """Have back all that is set aside; nothing was asked of it."""
        self._reserve(-self._own_reserved)
        self._tell()

    def lose(self, request: Request) -> None:
        """Count a try that may have been billed, of a request for which nothing was set aside, at its bound."""
        if self.price is not None:
            self._lose(_bound(request, self.price, self._batched))

    def abandon(self, goes_on: bool) -> None:
        """Count what is set aside as spent, since nobody waits for its requests any more and they may be billed.

        Args:
            goes_on: Whether they are in batches, whose answers a later run takes and counts; else they are lost.
        """
        rest = self._own_reserved
        self._reserve(-rest)
        if goes_on:
            self._sums.answered += rest
        else:
            self._lose(rest)
        self._tell()

    def watch(self, told: Callable[[], None]) -> None:
        """Have somebody told whenever money that was set aside is released, by whichever ledger of this money."""
        self._sums.watchers.append(told)

    def add(self, spent: float, lost: float) -> None:
        """Count what a worker with a ledger of its own has spent, in USD, of that what was lost on failed tries."""
        if self.price is not None:
            self._sums.answered += round((spent - lost) * _PICODOLLARS)
            self._lose(round(lost * _PICODOLLARS))

    def _reserve(self, amount: int) -> None:
        self._sums.reserved += amount
        self._own_reserved += amount

    def _tell(self) -> None:
        for told in self._sums.watchers:
            told()

    def _lose(self, amount: int) -> None:
        self._sums.lost += amount
        self._own_lost += amount

    @property
    def _spent(self) -> int:
        return self._sums.answered + self._sums.lost + self._sums.remembered

    def _usd(self, amount: int) -> float:
        return math.nan if self.price is None else amount / _PICODOLLARS


def is_counted(completion: Completion) -> bool:
    """Whether an endpoint told how many tokens it billed: no prompt has none."""
    return completion.prompt_tokens > 0


def _cost(completion: Completion, price: Price) -> int:
    tokens = completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens
    return _tokens(price, *tokens, completion.batched)


def _bound(request: Request, price: Price, batched: bool) -> int:
    prompt = sum(len(content.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS for _, content in request.messages)
    # Of two prices of a prompt the higher one; mostly that of tokens which are not cached.
    cached = prompt if price.cached_input is not None and price.cached_input > price.input else 0
    return _tokens(price, prompt, cached, request.sampling.max_tokens, batched)


def _tokens(price: Price, prompt: int, cached: int, completion: int, batched: bool) -> int:
    factor = price.batch if batched else 1.0
    fresh = price.input * factor
    # Providers differ in whether a batch's discount comes on top of the cache's: the greater one is counted, not both.
    reread = fresh if price.cached_input is None else min(price.cached_input, fresh) if batched else price.cached_input
    cached = min(cached, prompt)
    return (
        (prompt - cached) * _per_token(fresh)
        + cached * _per_token(reread)
        + completion * _per_token(price.output * factor)
    )


def _per_token(usd_per_million: float) -> int:
    return round(usd_per_million * 10**6)


def dollars(amount: float) -> str:
    """Return an amount as people read it: in cents, or to two digits where it is less than ten of them."""
    if math.isnan(amount):
        return "unknown"
    return f"{amount:,.2f} USD" if amount == 0 or amount >= 0.1 else f"{amount:.2g} USD"
