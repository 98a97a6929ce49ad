"""How fast an endpoint may be asked: a window that gives way to an overloaded server, and buckets for rate limits.

It waits for nothing itself: it says how long to wait, by a clock that is handed to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.teachers.protocol import Completion, Request, TeacherError

Clock = Callable[[], float]

_BYTES_PER_TOKEN = 4  # of English text, until the first answers tell
_MOMENT_S = 1e-6  # shorter waits are rounding errors
_MINUTE_S = 61.0  # with a bucket of one second more, no minute sees more than the limit


class Window:
    """How many requests may be in flight: all that are allowed, until the endpoint says that it is overloaded.

    A complaint halves it, and a whole window of answers makes it one larger. A complaint about a request that was sent
    before the last halving is old news: a window full of complaints halves once.

    Args:
        most: Size at the start and never exceeded, >= 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._halvings = 0
        self.in_flight = 0

    @property
    def size(self) -> int:
        """How many requests may be in flight now."""
        return int(self._size)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return self.in_flight < self.size

    def enter(self) -> int:
        """Count a request that is sent; returns what `leave` wants to know of it."""
        self.in_flight += 1
        return self._halvings

    def leave(self, entered: int, *, answered: bool, overloaded: bool) -> None:
        """Count a request that came back: answered, with a complaint about the load, or failed for another reason."""
        self.in_flight -= 1
        if answered:
            self._size = min(self._most, self._size + 1 / self._size)
        elif overloaded and entered == self._halvings:
            self._halvings += 1
            self._size = max(1.0, self._size / 2)


class Bucket:
    """A rate limit: fills evenly, holds a second's worth, and is drawn from.

    What is drawn in t seconds is at most `rate * t + burst`, so never more than `per_minute` in any minute. A draw
    that is larger than the bucket waits until it is full and leaves it in debt, so that it is late, but never starves.

    Args:
        per_minute: Units a minute, > 0.
        clock: Tells the time in seconds.
    """

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self.rate = self.burst = per_minute / _MINUTE_S
        self._level = self.burst
        self._clock = clock
        self._filled_at = clock()

    def wait(self, amount: float) -> float:
        """Return the seconds until so much may be drawn, 0 for now."""
        self._fill()
        seconds = (min(amount, self.burst) - self._level) / self.rate
        return seconds if seconds > _MOMENT_S else 0.0

    def draw(self, amount: float) -> None:
        """Take out what is sent; a negative amount gives back what was reserved and not used."""
        self._fill()
        self._level = min(self.burst, self._level - amount)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.burst, self._level + (now - self._filled_at) * self.rate)
        self._filled_at = now


@dataclass(frozen=True)
class Sent:
    """A request on its way: what was set aside for it.

    Attributes:
        entered: What the window wants back.
        size: Bytes of its prompt; 0 where tokens are not limited.
        input_tokens: Tokens drawn for its prompt.
        output_tokens: Tokens drawn for its completion.
    """

    entered: int
    size: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


class Pace:
    """Window and rate limits of one endpoint.

    Tokens are known only afterwards. Until then those of a prompt are estimated by its bytes, at the ratio of the
    answers so far, and those of a completion by the mean so far, at first by what it may have at most.

    Args:
        concurrency: Most requests in flight.
        requests: Most requests a minute; unlimited where None, as are the others.
        input_tokens: Most prompt tokens a minute.
        output_tokens: Most completion tokens a minute.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        concurrency: int,
        requests: float | None,
        input_tokens: float | None,
        output_tokens: float | None,
        clock: Clock,
    ) -> None:
        self.window = Window(concurrency)
        self._requests, self._input, self._output = (
            None if limit is None else Bucket(limit, clock) for limit in (requests, input_tokens, output_tokens)
        )
        self._bytes, self._prompt_tokens = _BYTES_PER_TOKEN, 1
        self._answers, self._completion_tokens = 0, 0

    def wait(self, request: Request) -> float:
        """Return the seconds until the rate limits allow this request, 0 for now."""
        _, input_tokens, output_tokens = self._estimate(request)
        return max(
            0.0 if self._requests is None else self._requests.wait(1),
            0.0 if self._input is None else self._input.wait(input_tokens),
            0.0 if self._output is None else self._output.wait(output_tokens),
        )

    def send(self, request: Request) -> Sent:
        """Set aside what this request is expected to need."""
        sent = Sent(self.window.enter(), *self._estimate(request))
        self._draw(1, sent.input_tokens, sent.output_tokens)
        return sent

    def settle(self, sent: Sent, outcome: Completion | TeacherError) -> None:
        """Correct what was set aside by what it was. A try that failed counts as a request, and if billed as it was."""
        if isinstance(outcome, TeacherError):
            self.window.leave(sent.entered, answered=False, overloaded=outcome.overloaded)
            if not outcome.billed:
                self._draw(0, -sent.input_tokens, -sent.output_tokens)
            return
        self.window.leave(sent.entered, answered=True, overloaded=False)
        if outcome.prompt_tokens or outcome.completion_tokens:  # else the server does not count
            self._draw(0, outcome.prompt_tokens - sent.input_tokens, outcome.completion_tokens - sent.output_tokens)
            self._bytes += sent.size
            self._prompt_tokens += outcome.prompt_tokens
            self._answers += 1
            self._completion_tokens += outcome.completion_tokens

    def _estimate(self, request: Request) -> tuple[int, float, float]:
        """Return bytes, prompt tokens and completion tokens; zeros where they are not limited."""
        size, input_tokens, output_tokens = 0, 0.0, 0.0
        if self._input is not None:
            size = sum(len(content.encode("utf-8", "replace")) for _, content in request.messages)
            input_tokens = size * self._prompt_tokens / self._bytes
        if self._output is not None:
            output_tokens = float(request.sampling.max_tokens)
            if self._answers:
                output_tokens = min(output_tokens, self._completion_tokens / self._answers)
        return size, input_tokens, output_tokens

    def _draw(self, requests: float, input_tokens: float, output_tokens: float) -> None:
        drawn = (self._requests, requests), (self._input, input_tokens), (self._output, output_tokens)
        for bucket, amount in drawn:
            if bucket is not None:
                bucket.draw(amount)
