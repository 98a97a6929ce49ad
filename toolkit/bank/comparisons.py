"""Two numbers are changed, then compared: the bank's yes-or-no family, out of domain."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolkit.bank.arithmetic import SIGNS, TOP, Move, apply, code_moves, draw_moves, misread, story
from toolkit.bank.chain import Pen
from toolkit.bank.family import COUNTS, NAMES, Family, Template, whole

# Each side of a question is a story of its own, so that moves are told and heard as in `arithmetic`.
SIDE = story(
    "{name} picks {start} apples and will {moves}", " and ", "then find {n}", "then eat {n}", "then pick as many again"
)
PHRASINGS = (
    Template("{left}. {right}. Are there more apples with {a} than with {b}?"),
    Template("{left}. {right}. Is the basket of {a} fuller than the basket of {b}?"),
)


@dataclass(frozen=True)
class Side:
    """One person's number and what happens to it."""

    name: str
    start: int
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Baskets:
    """The two sides that are compared: does the first end up with more?"""

    left: Side
    right: Side
    phrasing: int


@dataclass(frozen=True)
class Wording:
    """How a chain states one person's start, a step, and the comparison, and how it asks for each of the three."""

    first: str
    step: str
    more: str
    less: str
    ask_first: str
    ask_step: str
    ask_more: str


VARIABLES = (("a", "b"), ("left", "right"))  # what the wordings of a program call the two numbers
TEXTS = (
    Wording(
        *("{name} has {a}.", "{a} {sign} {n} = {b}.", "{a} is more than {b}.", "{a} is not more than {b}."),
        ask_first="How many does {name} have at first?",
        ask_step="How many does {name} have after change {i}?",
        ask_more="Does {left} have more than {right}?",
    ),
    Wording(
        *("First {a} for {name}.", "Then {a} {sign} {n} is {b}.", "And {a} beats {b}.", "And {a} does not beat {b}."),
        ask_first="With how many does {name} start?",
        ask_step="What does change {i} make of that for {name}?",
        ask_more="Is {left} ahead of {right} in the end?",
    ),
)


class Comparisons(Family[Baskets]):
    """Does one person end up with more than the other? Never a tie."""

    name = "comparisons"
    domain = "out"
    kind = "boolean"
    description = "Say whether one person ends up with more apples than the other, yes or no."
    steps = (2, 2)
    limits = (1, 3)
    wordings = len(TEXTS)

    def draw(self, rng: random.Random, steps: int) -> Baskets:
        """Draw two sides with `steps` moves each."""
        while True:
            names = rng.sample(NAMES, 2)
            starts = rng.randint(8, 20), rng.randint(8, 20)
            left, right = (
                Side(name, start, draw_moves(rng, start, steps)) for name, start in zip(names, starts, strict=True)
            )
            if final(left) != final(right):
                return Baskets(left, right, rng.randrange(len(PHRASINGS)))

    def ask(self, facts: Baskets) -> str:
        """Tell both sides and ask about the first."""
        left, right = tell(facts.left), tell(facts.right)
        return PHRASINGS[facts.phrasing].fill(left=left, right=right, a=facts.left.name, b=facts.right.name)

    def read(self, question: str) -> Baskets | None:
        """Read both sides back."""
        for phrasing, template in enumerate(PHRASINGS):
            slots = template.read(question)
            left, right = (hear(slots["left"]), hear(slots["right"])) if slots else (None, None)
            if slots and left and right and (slots["a"], slots["b"]) == (left.name, right.name):
                return Baskets(left, right, phrasing)
        return None

    def edits(self, facts: Baskets) -> Iterator[Baskets]:
        """Give the question with another number at the start of either side."""
        changed = (replace(facts, left=left) for left in restarted(facts.left))
        for edited in (*changed, *(replace(facts, right=right) for right in restarted(facts.right))):
            if final(edited.left) != final(edited.right):
                yield edited

    def solve(self, facts: Baskets, pen: Pen) -> str:
        """Work out both numbers, then compare them."""
        words = TEXTS[pen.wording]
        left, right = write_side(facts.left, words, pen), write_side(facts.right, words, pen)
        more = pen.choose("logical", left > right, [left <= right])
        names = {"left": facts.left.name, "right": facts.right.name}
        pen.write(words.ask_more, words.more if more else words.less, a=left, b=right, **names)
        return "yes" if more else "no"

    def program(self, facts: Baskets, pen: Pen) -> str:
        """Change both numbers, then compare them."""
        names = VARIABLES[pen.wording]
        left = code_moves(facts.left.start, facts.left.moves, names[0], pen)
        right = code_moves(facts.right.start, facts.right.moves, names[1], pen)
        sign = pen.choose("logical", ">", ["<"])
        pen.code(f"ans = {names[0]} {sign} {names[1]}")
        return "yes" if (left > right if sign == ">" else left < right) else "no"


def write_side(side: Side, words: Wording, pen: Pen) -> int:
    """Write the steps of one side and return its last number."""
    value = side.start
    pen.write(words.ask_first, words.first, name=side.name, a=value)
    for i, move in enumerate(side.moves):
        taken = pen.choose("logical", move, [misread(move)])
        result = pen.number(apply(taken, value))
        values = {"a": value, "sign": SIGNS[taken[0]], "n": taken[1], "b": result}
        pen.write(words.ask_step, words.step, name=side.name, i=COUNTS[i], **values)
        value = result
    return value


def final(side: Side) -> int:
    """Return the number a side ends with."""
    value = side.start
    for move in side.moves:
        value = apply(move, value)
    return value


def restarted(side: Side) -> Iterator[Side]:
    """Give a side with every other number at its start that keeps all its numbers in 1..`TOP`."""
    for start in range(1, TOP + 1):
        values = [start]
        for move in side.moves:
            values.append(apply(move, values[-1]))
        if start != side.start and min(values) >= 1 and max(values) <= TOP:
            yield replace(side, start=start)


def tell(side: Side) -> str:
    """Return the sentence about one side."""
    return SIDE.question.fill(name=side.name, start=side.start, moves=SIDE.tell(side.moves, side.name))


def hear(text: str) -> Side | None:
    """Read the sentence about one side back."""
    slots = SIDE.question.read(text)
    if slots is None:
        return None
    start = whole(slots["start"])
    moves = SIDE.hear(slots["moves"], slots["name"])
    return Side(slots["name"], start, moves) if start is not None and moves else None


COMPARISONS = Comparisons()
