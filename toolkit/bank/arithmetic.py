"""A number raised, lowered and doubled in a row: `chained_arithmetic` in domain, `shopping` out of domain."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import Pen
from toolkit.bank.family import NAMES, Family, Template, whole

Operation = Literal["up", "down", "double"]
Move = tuple[Operation, int]

# Small values keep every step learnable from a few thousand chains: about 700 different sums, each seen often.
TOP = 40


@dataclass(frozen=True)
class Moves:
    """A start value and what happens to it; `name` is who it happens to, where the phrasing says so."""

    start: int
    moves: tuple[Move, ...]
    name: str
    phrasing: int


@dataclass(frozen=True)
class Story:
    """One phrasing: the question around its `moves`, the text between two of them, and how each kind reads."""

    question: Template
    between: str
    up: Template
    down: Template
    double: Template

    def tell(self, move: Move, name: str) -> str:
        """Return the words for one move."""
        template: Template = getattr(self, move[0])
        return template.fill(n=move[1], name=name)

    def hear(self, text: str, name: str) -> Move | None:
        """Return the move that `text` tells, or None."""
        for operation in ("up", "down", "double"):
            slots = getattr(self, operation).read(text)
            if slots is None or slots.get("name", name) != name:
                continue
            n = 2 if operation == "double" else whole(slots["n"])
            return None if n is None else (operation, n)
        return None


@dataclass(frozen=True)
class Wording:
    """How a chain states the first number and each step: `n` operand, `a` before, `b` after, `i` step number."""

    first: str
    up: str
    down: str
    double: str


def story(question: str, between: str, up: str, down: str, double: str) -> Story:
    """Build a phrasing from plain text."""
    return Story(Template(question), between, Template(up), Template(down), Template(double))


def apply(move: Move, value: int) -> int:
    """Return the value after a move."""
    operation, n = move
    return value + n if operation == "up" else value - n if operation == "down" else value * n


def misread(move: Move) -> Move:
    """Return the move a careless reader takes for this one: the opposite, or adding two for doubling."""
    operation, n = move
    return ("down" if operation == "up" else "up", n)


def draw_moves(rng: random.Random, start: int, steps: int) -> tuple[Move, ...]:
    """Draw moves that keep the value in 1..`TOP`; operands differ, so that a chain can tell where it is."""
    moves: list[Move] = []
    value = start
    operands = rng.sample(range(1, 10), 9)
    doubled = False
    for _ in range(steps):
        n = operands.pop()
        fitting: list[Move] = [move for move in (("up", n), ("down", n)) if 1 <= apply(move, value) <= TOP]  # type: ignore[misc]
        if not doubled and 3 <= value <= TOP // 2 and rng.random() < 0.35:
            fitting, doubled = [("double", 2)], True
        moves.append(rng.choice(fitting))
        value = apply(moves[-1], value)
    return tuple(moves)


class Arithmetic(Family[Moves]):
    """A family of chained arithmetic, told by its stories."""

    kind = "number"
    limits = (2, 8)

    def __init__(
        self,
        name: str,
        domain: Literal["in", "out"],
        description: str,
        steps: tuple[int, int],
        stories: tuple[Story, ...],
        texts: tuple[Wording, ...],
    ) -> None:
        self.name = name
        self.domain = domain
        self.description = description
        self.steps = steps
        self.wordings = len(texts)
        self._stories = stories
        self._texts = texts

    def draw(self, rng: random.Random, steps: int) -> Moves:
        """Draw a start in 10..30 and `steps` moves."""
        phrasing = rng.randrange(len(self._stories))
        named = "{name}" in self._stories[phrasing].question.text
        start = rng.randint(10, 30)
        return Moves(start, draw_moves(rng, start, steps), rng.choice(NAMES) if named else "", phrasing)

    def ask(self, facts: Moves) -> str:
        """Tell the story."""
        story = self._stories[facts.phrasing]
        moves = story.between.join(story.tell(move, facts.name) for move in facts.moves)
        return story.question.fill(start=facts.start, moves=moves, name=facts.name)

    def read(self, question: str) -> Moves | None:
        """Read the story back."""
        for phrasing, story in enumerate(self._stories):
            slots = story.question.read(question)
            if slots is None:
                continue
            name = slots.get("name", "")
            start = whole(slots["start"])
            moves = [story.hear(text, name) for text in slots["moves"].split(story.between)]
            heard = tuple(move for move in moves if move is not None)
            if start is not None and len(heard) == len(moves):
                return Moves(start, heard, name, phrasing)
        return None

    def solve(self, facts: Moves, pen: Pen) -> str:
        """One sentence per move, each with its operands beside its result."""
        words = self._texts[pen.wording]
        value = facts.start
        pen.write(words.first, a=value)
        for i, move in enumerate(facts.moves, 1):
            taken = pen.choose("logical", move, [misread(move)])
            result = pen.number(apply(taken, value))
            pen.write(getattr(words, taken[0]), i=i, n=taken[1], a=value, b=result)
            value = result
        return str(value)


CHAINED_ARITHMETIC = Arithmetic(
    name="chained_arithmetic",
    domain="in",
    description="Work out a number that is changed several times in a row.",
    steps=(4, 6),
    stories=(
        story(
            *("Start with {start}. Then {moves}. What is the result?", ", "),
            *("add {n}", "subtract {n}", "double it"),
        ),
        story(
            *("A counter shows {start}. It goes {moves}. What does it show at the end?", ", "),
            *("up {n}", "down {n}", "double"),
        ),
        story(
            *("{name} has {start} points. The cards say {moves}. How many points does {name} have now?", ", "),
            *("gain {n}", "lose {n}", "double them"),
        ),
    ),
    texts=(
        Wording(
            first="Start at {a}.",
            up="Add {n}: {a} + {n} = {b}.",
            down="Subtract {n}: {a} - {n} = {b}.",
            double="Double: {a} * {n} = {b}.",
        ),
        Wording(
            first="The first number is {a}.",
            up="We add {n} to {a} and get {b}.",
            down="We subtract {n} from {a} and get {b}.",
            double="We double {a} and get {b}.",
        ),
        Wording(
            first="We have {a}.",
            up="Step {i}: add {n}, so {a} + {n} = {b}.",
            down="Step {i}: subtract {n}, so {a} - {n} = {b}.",
            double="Step {i}: double, so {a} * {n} = {b}.",
        ),
    ),
)

SHOPPING = Arithmetic(
    name="shopping",
    domain="out",
    description="Work out how many coins a person has after a day at the market.",
    steps=(3, 4),
    stories=(
        story(
            *("{name} came to the market and had {start} coins. {moves}. How many coins did {name} take home?", ". "),
            *("A song made {name} gain {n} coins", "A cake made {name} lose {n} coins", "A game let {name} double all"),
        ),
        story(
            *("There were {start} coins in the purse of {name} at first. {moves}. How many were in it at last?", ". "),
            *("Selling a hat made it gain {n}", "Buying a pen made it lose {n}", "A prize made it double"),
        ),
    ),
    texts=(
        Wording(
            first="At first there are {a} coins.",
            up="Now {n} coins come in: {a} + {n} = {b}.",
            down="Now {n} coins go out: {a} - {n} = {b}.",
            double="Now the coins double: {a} * {n} = {b}.",
        ),
        Wording(
            first="{a} coins to begin with.",
            up="{a} coins and {n} more make {b} coins.",
            down="{a} coins without {n} leave {b} coins.",
            double="Twice {a} coins make {b} coins.",
        ),
    ),
)
