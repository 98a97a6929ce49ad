"""What a build would ask and cost, told before anybody is asked.

Rounds are drawn as far as the store has their answers, so a request is guessed at only where its prompt depends on an
answer that is not there yet. A range goes from the build whose answers are all as asked at the first try, and empty, to
the one that needs every try, with completions as long as allowed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from dataset_builders.building import NoAnswers, model_asked
from toolkit.prices import Price, price_of
from toolkit.spending import Ledger, dollars, token_cost
from toolkit.store import Store
from toolkit.teachers.kinds import make_teacher

if TYPE_CHECKING:
    from dataset_builders.asking import Ask, Asker
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
            yield _row("cap", f"{dollars(self.max_cost_usd)}, with what the answers in the store have cost")


def estimate(builder_name: str, settings: Any, store_path: str | Path) -> Estimate | None:
    """Return what a build would ask, None where it asks nobody. Sends nothing.

    Args:
        builder_name: One of `dataset_builders.BUILDERS`.
        settings: An instance of the builder's `SETTINGS`.
        store_path: Where completions are kept; it need not exist.

    Raises:
        UserError: Bad input, or a cap on the cost without a known price.
    """
    from dataset_builders import load_builder
    from dataset_builders.asking import Asker
    from dataset_builders.published import problems_to_ask

    config = settings.teacher
    if config is None:
        return None
    builder = load_builder(builder_name)
    price = price_of(config)
    Ledger(price, settings.collect.max_cost_usd)  # refuses a cap without a price
    problems, _ = problems_to_ask(settings)
    with ExitStack() as opened:
        store, asker = None, Asker(settings, NoAnswers(), "", "")
        if Path(store_path).exists():
            store = opened.enter_context(Store(store_path, read_only=True))
            teacher = make_teacher(config)
            asker = Asker(settings, store, teacher.kind, model_asked(config, teacher))
        rounds: list[Round] = []
        prompts: list[Request] = []
        for requests in builder.rounds(problems, asker, settings):
            rounds.append(_drawn(requests, store, settings.collect.retry_failed, prompts))
            if rounds[-1].to_ask:
                later = _later(builder.asks(settings), rounds, asker, problems)
                break
        else:
            later = Later()
        known = store.stats() if store else None
    return Estimate(
        teacher=config.model if config.kind == "openai" else f"the {config.kind} teacher",
        prompts=prompts,
        rounds=rounds,
        later=later,
        max_tokens=settings.sampling.max_tokens,
        mean_tokens=known.completion_tokens / known.completions if known and known.completions else 0.0,
        price=price,
        batched=settings.collect.mode == "batch",
        max_cost_usd=settings.collect.max_cost_usd,
    )


def _drawn(requests: Sequence[Request], store: Store | None, retry_failed: bool, prompts: list[Request]) -> Round:
    """Count a round, and add its first requests without an answer to `prompts`."""
    settled = {"answered"} if retry_failed else {"answered", "refused"}
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


def _row(name: str, told: str) -> str:
    return f"{name:<13} {told}"


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _rounded(number: int) -> int:
    """Round to two digits: no more are known."""
    return int(float(f"{number:.1e}"))


def _dollars(low: float, high: float) -> str:
    return dollars(low) if low == high else f"{dollars(low)} to {dollars(high)}"
