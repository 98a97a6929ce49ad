"""What a build would ask and cost, told before anybody is asked.

Rounds are drawn as far as the store has their answers, so a request is guessed at only where its prompt depends on an
answer that is not there yet. A range goes from the build whose answers are all as asked at the first try, and empty, to
the one that needs every try, with completions as long as allowed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from dataset_builders.collecting import settled_standings
from dataset_builders.parts import NoAnswers, Part, parts_of
from toolkit.prices import Price, price_of
from toolkit.spending import Ledger, dollars, token_cost
from toolkit.store import Standing, Store

if TYPE_CHECKING:
    from dataset_builders.asking import Ask, Asker
    from dataset_builders.published import CotsBuilder
    from toolkit.problem import Problem
    from toolkit.teachers.protocol import Request

BYTES_PER_TOKEN = 4  # of English prose; other scripts, digits and code have fewer
_SHOWN_PROMPTS = 2
_READABLE = 1500  # characters of a prompt
_MEASURED_PROBLEMS = 200


@dataclass(frozen=True)
class Round:
    """Requests whose prompts are known.

    Attributes:
        kinds: Requests by the kind of their prompt.
        to_ask: Those that the store has no answer for.
        prompt_bytes: UTF-8 bytes of the prompts of these.
    """

    kinds: Counter[str]
    to_ask: int
    prompt_bytes: int


@dataclass(frozen=True)
class Later:
    """What can be told of requests whose prompts depend on answers that are not there yet.

    Attributes:
        requests: Fewest and most of them.
        prompt_bytes: Least and most UTF-8 bytes of a prompt without the completions that it shows, on average.
        shown: Most completions that a prompt shows.
    """

    requests: tuple[int, int] = (0, 0)
    prompt_bytes: tuple[float, float] = (0.0, 0.0)
    shown: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a build would ask, and what that would cost.

    Attributes:
        teacher: Who is asked.
        prompts: The first requests without an answer.
        rounds: Those drawn; only the last one has something to ask.
        later: The rounds after them.
        max_tokens: Most tokens of one completion.
        mean_tokens: Tokens of a completion in the store on average; 0 where it has none, or counted none.
        price: What tokens cost; None where it is not known.
        batched: Whether they go through a batch API.
        max_cost_usd: The cap; None for no cap.
    """

    teacher: str
    prompts: Sequence[Request]
    rounds: Sequence[Round]
    later: Later
    max_tokens: int
    mean_tokens: float
    price: Price | None
    batched: bool
    max_cost_usd: float | None

    @property
    def requests(self) -> tuple[int, int]:
        """Fewest and most requests that have to be sent."""
        known = sum(drawn.to_ask for drawn in self.rounds)
        return known + self.later.requests[0], known + self.later.requests[1]

    def prompt_tokens(self, longest: float) -> tuple[int, int]:
        """Return the fewest and the most prompt tokens, given the mean tokens of the longest completions shown."""
        known = sum(drawn.prompt_bytes for drawn in self.rounds)
        fewest, most = self.later.requests
        low, high = self.later.prompt_bytes
        shown = most * self.later.shown * longest
        return round((known + fewest * low) / BYTES_PER_TOKEN), round((known + most * high) / BYTES_PER_TOKEN + shown)

    def cost(self, shortest: float, longest: float) -> tuple[float, float]:
        """Return the lowest and the highest cost in USD, given mean tokens of a completion; NaN without a price."""
        if self.price is None:
            return float("nan"), float("nan")
        low, high = (
            token_cost(self.price, prompt, 0, round(requests * tokens), self.batched)
            for prompt, requests, tokens in zip(
                self.prompt_tokens(longest), self.requests, (shortest, longest), strict=True
            )
        )
        return low, high

    def text(self, whole: bool) -> str:
        """Return prompts, counts and cost; a long prompt is shortened, and says so, unless it is wanted `whole`."""
        return "\n".join([*self._prompts(whole), *self._counts(), *self._costs()])

    def _prompts(self, whole: bool) -> Iterator[str]:
        for number, request in enumerate(self.prompts, 1):
            yield f"--- prompt {number} of {self.requests[0]:,} or more ({request.template}) ---"
            text = "\n\n".join(content for _, content in request.messages)
            if not whole and len(text) > _READABLE:
                head, tail = text[: _READABLE // 2], text[-_READABLE // 2 :]
                left_out = (
                    f"[{len(text) - len(head) - len(tail):,} characters are left out on a terminal, not in a file]"
                )
                text = f"{head}\n{left_out}\n{tail}"
            yield f"{text}\n---\n"

    def _counts(self) -> Iterator[str]:
        for number, drawn in enumerate(self.rounds, 1):
            asked = " and ".join(f"{count:,} {kind}" for kind, count in drawn.kinds.items())
            known = drawn.kinds.total() - drawn.to_ask
            yield _row(f"round {number}", f"{asked} requests, {known:,} of them answered in the store")
        if self.later.requests[1]:
            yield _row("later rounds", f"{_range(*self.later.requests)} requests; their prompts depend on the answers")
        if self.requests[1]:
            batches = ", in batches" if self.batched else ""
            longest = self.requests[1] * self.max_tokens
            yield _row("to ask", f"{self.teacher}: {_range(*self.requests)} requests{batches}")
            low, high = map(_rounded, self.prompt_tokens(self.max_tokens))
            yield _row("prompts", f"about {_range(low, high)} tokens, by bytes / {BYTES_PER_TOKEN}")
            yield _row("completions", f"0 to {longest:,} tokens, max_tokens being {self.max_tokens:,}")
        else:
            yield _row("to ask", "nothing")

    def _costs(self) -> Iterator[str]:
        if not self.requests[1]:
            return
        if self.price is None:
            yield _row("cost", f"unknown: no price known for {self.teacher}; set dataset.config.teacher.price")
            return
        if self.price.is_free:
            yield _row("cost", "nothing")
            return
        yield _row("cost", f"{_dollars(*self.cost(0, self.max_tokens))}")
        if self.mean_tokens:
            likely = _dollars(*self.cost(self.mean_tokens, self.mean_tokens))
            yield _row("", f"{likely} with {self.mean_tokens:,.0f} tokens a completion, the mean in the store")
        else:
            yield _row(
                "", "a build on a few questions narrows that: the mean length of their answers is used here then"
            )
        yield _row("price", str(self.price))
        if self.max_cost_usd is not None:
            yield _cap(self.max_cost_usd)


def estimate(builder_name: str, settings: Any, store_path: str | Path) -> list[Estimate]:
    """Return what a build would ask of each teacher, nothing where it asks nobody. Sends nothing.

    Args:
        builder_name: One of `dataset_builders.BUILDERS`.
        settings: An instance of the builder's `SETTINGS`.
        store_path: Where completions are kept; it need not exist.

    Raises:
        UserError: Bad input, two teachers that are one, or a cap on the cost without a known price.
    """
    from dataset_builders import load_builder
    from dataset_builders.published import problems_to_ask

    if not settings.teachers:
        return []
    builder = load_builder(builder_name)
    problems, _ = problems_to_ask(settings)
    with ExitStack() as opened:
        if not Path(store_path).exists():
            parts = [Part(settings.alone(config), price=price_of(config)) for config in settings.teachers]
            return [_estimate(builder, problems, part, None) for part in parts]
        store = opened.enter_context(Store(store_path, read_only=True))
        return [_estimate(builder, problems, part, store) for part in parts_of(settings)]


def _estimate(builder: type[CotsBuilder], problems: Sequence[Problem], part: Part, store: Store | None) -> Estimate:
    settings = part.settings
    config, collect = settings.teacher, settings.collect
    Ledger(part.price, collect.max_cost_usd)  # refuses a cap without a price
    asker = part.asker(store or NoAnswers())
    rounds: list[Round] = []
    prompts: list[Request] = []
    for requests in builder.rounds(problems, asker, settings):
        rounds.append(_drawn(requests, store, settled_standings(collect), prompts))
        if rounds[-1].to_ask:
            later = _later(builder.asks(settings), rounds, asker, problems)
            break
    else:
        later = Later()
    answered = store.stats().models.get(part.model, 0) if store else 0
    billed = sum(each.completion_tokens for each in store.billed(part.model)) if store else 0
    return Estimate(
        teacher=config.model if config.kind == "openai" else f"the {config.kind} teacher",
        prompts=prompts,
        rounds=rounds,
        later=later,
        max_tokens=settings.sampling.max_tokens,
        mean_tokens=billed / answered if answered else 0.0,
        price=part.price,
        batched=collect.mode == "batch",
        max_cost_usd=collect.max_cost_usd,
    )


def told(estimates: Sequence[Estimate], whole: bool) -> str:
    """Return what all estimates say, and their sum where there are several.

    Args:
        estimates: From `estimate`.
        whole: As of `Estimate.text`.
    """
    if not estimates:
        return "nobody is asked: the chains are there already"
    if len(estimates) == 1:
        return estimates[0].text(whole)
    lines = []
    for number, each in enumerate(estimates, 1):
        lines += [f"teacher {number} of {len(estimates)}", replace(each, max_cost_usd=None).text(whole), ""]
    low, high = (sum(numbers) for numbers in zip(*(each.requests for each in estimates), strict=True))
    lines += ["all teachers", _row("to ask", f"{_range(low, high)} requests" if high else "nothing")]
    costs = [each.cost(0, each.max_tokens) for each in estimates if each.requests[1]]
    if costs:
        lowest, highest = (sum(amounts) for amounts in zip(*costs, strict=True))
        unknown = "unknown, as the price of one teacher is"
        lines.append(_row("cost", unknown if math.isnan(highest) else _dollars(lowest, highest)))
    if costs and (cap := estimates[0].max_cost_usd) is not None:
        lines.append(_cap(cap))
    return "\n".join(lines)


def _drawn(
    requests: Iterable[Request], store: Store | None, settled: Container[Standing | None], prompts: list[Request]
) -> Round:
    """Count a round, and add its first requests that are not settled to `prompts`."""
    kinds: Counter[str] = Counter()
    to_ask = prompt_bytes = 0
    for request in requests:
        kinds[request.template.partition("@")[0]] += 1
        if store is not None and store.standing(request) in settled:
            continue
        to_ask += 1
        prompt_bytes += sum(_bytes(content) for _, content in request.messages)
        if len(prompts) < _SHOWN_PROMPTS:
            prompts.append(request)
    return Round(kinds, to_ask, prompt_bytes)


def _later(asks: Sequence[Ask], rounds: Sequence[Round], asker: Asker, problems: Sequence[Problem]) -> Later:
    """Return what follows the rounds drawn, by what a builder says that it asks for each record of the first one."""
    records, drawn = rounds[0].kinds.total(), sum(each.kinds.total() for each in rounds)
    fewest = max(0, records * len(asks) - drawn)
    most = max(0, records * sum(ask.tries for ask in asks) - drawn)
    if not most:
        return Later()
    again = [ask for index, ask in enumerate(asks) if index or ask.tries > 1]
    sizes = [
        mean(_bytes(asker.book.render(kind, problem)[0]) for problem in problems[:_MEASURED_PROBLEMS])
        for ask in again
        for kind in ask.kinds
    ]
    return Later((fewest, most), (min(sizes), max(sizes)), max(ask.shown for ask in again))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _cap(amount: float) -> str:
    return _row("cap", f"{dollars(amount)}, with what the answers in the store have cost")


def _row(name: str, told: str) -> str:
    return f"{name:<13} {told}"


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _rounded(number: int) -> int:
    """Round to two digits: no more are known."""
    return int(float(f"{number:.1e}"))


def _dollars(low: float, high: float) -> str:
    return dollars(low) if low == high else f"{dollars(low)} to {dollars(high)}"
