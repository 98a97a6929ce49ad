"""How a chain of steps is written down, once right and once with a single labelled mistake.

A family's solver is written only once, for the right chain. Wherever a step can go wrong it asks the `Pen` to
choose between the right value and wrong ones; a pen told to slip at one of these places hands out the wrong one
and the solver carries on from there. So a right and a wrong chain differ in the mistake and its consequences only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Mistake = Literal["calculation", "knowledge", "logical"]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)
LARGEST = 99

T = TypeVar("T")
Solver = Callable[["Pen"], str]


class OffScale(Exception):
    """A mistake led somewhere the chain cannot go on from: below 0, above `LARGEST`, past the last clue."""


@dataclass(frozen=True)
class Slip:
    """Where a pen goes wrong: the `alternative`-th wrong value at the `place`-th choice of the solver."""

    place: int
    alternative: int


@dataclass(frozen=True)
class Chain:
    """A written chain.

    Attributes:
        rationale: The steps as one line of sentences, without an answer clause.
        answer: Answer the steps lead to.
        mistake: Kind of the one mistake in it, None for a right chain.
    """

    rationale: str
    answer: str
    mistake: Mistake | None = None


class Pen:
    """Writes the sentences of one chain and goes wrong where its slip says.

    Attributes:
        wording: Which of the family's wordings the solver is to use.
        places: For each choice the solver made, its kind of mistake and the number of wrong values there.
        sentences: What was written so far.
    """

    def __init__(self, wording: int, slip: Slip | None = None) -> None:
        self.wording = wording
        self.places: list[tuple[Mistake, int]] = []
        self.sentences: list[str] = []
        self._slip = slip

    def write(self, sentence: str, **values: object) -> None:
        """Append a sentence, a format string over `values`."""
        self.sentences.append(sentence.format(**values))

    def choose(self, mistake: Mistake, right: T, wrong: Sequence[T]) -> T:
        """Return `right`, or one of `wrong` where this pen slips."""
        place = len(self.places)
        self.places.append((mistake, len(wrong)))
        slips = self._slip is not None and self._slip.place == place
        return wrong[self._slip.alternative] if self._slip is not None and slips else right

    def number(self, right: int) -> int:
        """Return the result of a calculation, or a near miss.

        Raises:
            OffScale: The right result of a chain that already went wrong is not in 0..`LARGEST`.
        """
        if not 0 <= right <= LARGEST:
            raise OffScale(right)
        near = [right + miss for miss in (-1, 1, -2, 2, -10, 10)]
        return self.choose("calculation", right, [value for value in near if 0 <= value <= LARGEST])


def write_chain(solve: Solver, wording: int) -> Chain:
    """Write the right chain."""
    pen = Pen(wording)
    answer = solve(pen)
    return Chain(" ".join(pen.sentences), answer)


def write_wrong_chain(solve: Solver, wording: int, rng: random.Random) -> Chain | None:
    """Write a chain with one mistake that makes the answer wrong, or None where no single mistake does.

    The kind of mistake is drawn first, evenly over the kinds this problem has room for, then the place.
    """
    pen = Pen(wording)
    right = solve(pen)
    kinds = sorted({mistake for mistake, count in pen.places if count})
    rng.shuffle(kinds)
    for kind in kinds:
        slips = [Slip(i, k) for i, (mistake, count) in enumerate(pen.places) if mistake == kind for k in range(count)]
        rng.shuffle(slips)
        for slip in slips:
            wrong_pen = Pen(wording, slip)
            try:
                answer = solve(wrong_pen)
            except OffScale:
                continue
            if answer != right:
                return Chain(" ".join(wrong_pen.sentences), answer, kind)
    return None
