"""How a chain of steps is written down, once right and once with a single labelled mistake.

A family's solver is written only once, for the right chain. Wherever a step can go wrong it asks the `Pen` to
choose between the right value and wrong ones; a pen told to slip at one of these places hands out the wrong one
and the solver carries on from there. So a right and a wrong chain differ in the mistake and its consequences only.
Every step is written together with the sub-question it answers; a chain as one text leaves the questions out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Mistake = Literal["calculation", "knowledge", "logical"]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)
# What becomes of a program that fails or leaves no answer.
Failure = Literal["runtime", "no_value"]
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
        mistake: Kind of the one mistake in it, of the last where there are two; None for a right chain. That of a
            program may be a failure.
        steps: (sub-question, sentence that answers it) for every sentence of the rationale.
    """

    rationale: str
    answer: str
    mistake: Mistake | Failure | None = None
    steps: tuple[tuple[str, str], ...] = ()


class Pen:
    """Writes the sentences of one chain and goes wrong where its slips say.

    Attributes:
        wording: Which of the family's wordings the solver is to use.
        places: For each choice the solver made, its kind of mistake and the number of wrong values there.
        sentences: What was written so far.
        questions: The sub-question that each sentence answers.
    """

    def __init__(self, wording: int, *slips: Slip) -> None:
        self.wording = wording
        self.places: list[tuple[Mistake, int]] = []
        self.sentences: list[str] = []
        self.questions: list[str] = []
        self._slips = {slip.place: slip.alternative for slip in slips}

    def write(self, question: str, sentence: str, **values: object) -> None:
        """Append a step: a sub-question and the sentence that answers it, format strings over `values`."""
        self.questions.append(question.format(**values))
        self.sentences.append(sentence.format(**values))

    def code(self, line: str) -> None:
        """Append a line of a program."""
        self.write("", "{line}", line=line)

    def choose(self, mistake: Mistake, right: T, wrong: Sequence[T]) -> T:
        """Return `right`, or one of `wrong` where this pen slips."""
        place = len(self.places)
        self.places.append((mistake, len(wrong)))
        return wrong[self._slips[place]] if place in self._slips else right

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
    return _chain(pen, solve(pen))


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
                return _chain(wrong_pen, answer, kind)
    return None


def write_chain_to(target: str, solve: Solver, wording: int) -> Chain | None:
    """Write a wrong chain whose steps lead to exactly this answer, or None where no two mistakes lead there.

    It goes wrong as late as it can: the last place from which one mistake reaches the answer, else the last two.
    """
    pen = Pen(wording)
    solve(pen)
    late_first = [
        (place, Slip(place, k)) for place in reversed(range(len(pen.places))) for k in range(pen.places[place][1])
    ]
    reached = [_slipped(solve, wording, slip) for _, slip in late_first]
    for (place, _), found in zip(late_first, reached, strict=True):
        if found is not None and found[1] == target:
            return _chain(*found, found[0].places[place][0])
    for (place, slip), first in zip(late_first, reached, strict=True):
        # What can be chosen later depends on the first mistake, so the places are those of the pen that made it.
        for second in reversed(range(place + 1, len(first[0].places) if first else 0)):
            for k in range(first[0].places[second][1] if first else 0):
                found = _slipped(solve, wording, slip, Slip(second, k))
                if found is not None and found[1] == target:
                    return _chain(*found, found[0].places[second][0])
    return None


def _slipped(solve: Solver, wording: int, *slips: Slip) -> tuple[Pen, str] | None:
    """Return the pen that slipped there and its answer, or None where that led off the scale."""
    pen = Pen(wording, *slips)
    try:
        return pen, solve(pen)
    except OffScale:
        return None


def _chain(pen: Pen, answer: str, mistake: Mistake | None = None) -> Chain:
    steps = tuple(zip(pen.questions, pen.sentences, strict=True))
    return Chain(" ".join(pen.sentences), answer, mistake, steps)
