"""A number raised, lowered and doubled in a row: `chained_arithmetic` in domain, `shopping` out of domain."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import Pen
from toolkit.bank.family import COUNTS, NAMES, Family, Template, whole

Operation = Literal["up", "down", "double"]
Move = tuple[Operation, int]

# Small values keep every step learnable from a few thousand chains: about 270 different sums, each seen often.
TOP = 20


@dataclass(frozen=True)
class Moves:
    """A start value and what happens to it; `name` is who it happens to, where the phrasing says so."""

    start: int
    moves: tuple[Move, ...]
    name: str
    phrasing: int


@dataclass(frozen=True)
class Story:
    """One phrasing: the question around its `moves`, the text between two of them, and how the i-th move reads."""

    question: Template
    between: str
    up: Template
    down: Template
    double: Template

    def tell(self, moves: tuple[Move, ...], name: str) -> str:
        """Return the words for all moves."""
        told = [getattr(self, move[0]).fill(i=COUNTS[i], n=move[1], name=name) for i, move in enumerate(moves)]
        return self.between.join(told)

    def hear(self, text: str, name: str) -> tuple[Move, ...] | None:
        """Return the moves that `text` tells, or None."""
        moves = [move for sentence in text.split(self.between) for move in self._read(sentence)]
        return tuple(moves) if len(moves) <= len(COUNTS) and self.tell(tuple(moves), name) == text else None

    def _read(self, sentence: str) -> list[Move]:
        operations: tuple[Operation, ...] = ("up", "down", "double")
        read = [(operation, getattr(self, operation).read(sentence)) for operation in operations]
        numbers = [(operation, whole(slots.get("n", "2"))) for operation, slots in read if slots is not None]
        return [(operation, n) for operation, n in numbers if n is not None][:1]


@dataclass(frozen=True)
class Wording:
    """How a chain states the first number and each step: number `i`, operand `n`, `a` before and `b` after it.

    The sub-questions ask for the first number, for the one after step `i`, and for the last one.
    """

    first: str
    up: str
    down: str
    double: str
    ask_first: str
    ask: str
    ask_last: str


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
        """Draw a start in 5..15 and `steps` moves."""
        phrasing = rng.randrange(len(self._stories))
        named = "{name}" in self._stories[phrasing].question.text
        start = rng.randint(5, 15)
        return Moves(start, draw_moves(rng, start, steps), rng.choice(NAMES) if named else "", phrasing)

    def ask(self, facts: Moves) -> str:
        """Tell the story."""
        story = self._stories[facts.phrasing]
        return story.question.fill(start=facts.start, moves=story.tell(facts.moves, facts.name), name=facts.name)

    def read(self, question: str) -> Moves | None:
        """Read the story back."""
        for phrasing, story in enumerate(self._stories):
            slots = story.question.read(question)
            if slots is None:
                continue
            name = slots.get("name", "")
            start = whole(slots["start"])
            moves = story.hear(slots["moves"], name)
            if start is not None and moves:
                return Moves(start, moves, name, phrasing)
        return None

    def solve(self, facts: Moves, pen: Pen) -> str:
        """One sentence per move, each with its operands beside its result."""
        words = self._texts[pen.wording]
        value = facts.start
        pen.write(words.ask_first, words.first, a=value)
        for i, move in enumerate(facts.moves):
            taken = pen.choose("logical", move, [misread(move)])
            result = pen.number(apply(taken, value))
            ask = words.ask_last if i + 1 == len(facts.moves) else words.ask
            pen.write(ask, getattr(words, taken[0]), i=COUNTS[i], n=taken[1], a=value, b=result)
            value = result
        return str(value)


CHAINED_ARITHMETIC = Arithmetic(
    name="chained_arithmetic",
    domain="in",
    description="Work out a number that is changed several times in a row.",
    steps=(4, 5),
    stories=(
        story(
            *("Start with {start}. {moves}. What is the result?", ". "),
            *("Step {i}: add {n}", "Step {i}: subtract {n}", "Step {i}: double it"),
        ),
        story(
            *("A counter shows {start}. {moves}. What does it show at the end?", ". "),
            *("Key {i}: up {n}", "Key {i}: down {n}", "Key {i}: double"),
        ),
        story(
            *("{name} has {start} points. {moves}. How many points does {name} have now?", ". "),
            *("Card {i}: gain {n}", "Card {i}: lose {n}", "Card {i}: double them"),
        ),
    ),
    texts=(
        Wording(
            first="Start at {a}.",
            up="Step {i}: add {n}, so {a} + {n} = {b}.",
            down="Step {i}: subtract {n}, so {a} - {n} = {b}.",
            double="Step {i}: double, so {a} * {n} = {b}.",
            ask_first="Where do we start?",
            ask="What do we have after step {i}?",
            ask_last="What is the result of the last step, step {i}?",
        ),
        Wording(
            first="The first number is {a}.",
            up="Number {i}: we add {n} to {a} and get {b}.",
            down="Number {i}: we subtract {n} from {a} and get {b}.",
            double="Number {i}: we double {a} and get {b}.",
            ask_first="What is the first number?",
            ask="What does number {i} make of it?",
            ask_last="What does number {i} make of it in the end?",
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
            *("How many coins will {name} hold after the market, with {start} at first? {moves}.", ". "),
            *("Stall {i} lets {name} gain {n}", "Stall {i} lets {name} lose {n}", "Stall {i} lets {name} double"),
        ),
        story(
            *("Tell us what is left in the purse of {name}: {start} coins, {moves}.", ", "),
            *("visit {i} add {n}", "visit {i} subtract {n}", "visit {i} double it"),
        ),
    ),
    texts=(
        Wording(
            first="At first there are {a} coins.",
            up="Visit {i} brings {n}: {a} + {n} = {b}.",
            down="Visit {i} costs {n}: {a} - {n} = {b}.",
            double="Visit {i} doubles it: {a} * {n} = {b}.",
            ask_first="How many coins are there at first?",
            ask="How many coins are there after visit {i}?",
            ask_last="How many coins are left after the last visit, visit {i}?",
        ),
        Wording(
            first="{a} coins to begin with.",
            up="Change {i}: {a} coins and {n} more make {b} coins.",
            down="Change {i}: {a} coins without {n} leave {b} coins.",
            double="Change {i}: twice {a} coins make {b} coins.",
            ask_first="With how many coins does it begin?",
            ask="How many coins does change {i} leave?",
            ask_last="How many coins does change {i} leave in the end?",
        ),
    ),
)
