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


# What the wordings of a program call the number that changes.
NUMBERS = ("n", "total")
SIGNS: dict[Operation, str] = {"up": "+", "down": "-", "double": "*"}


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

    def program(self, facts: Moves, pen: Pen) -> str:
        """One line per move."""
        name = NUMBERS[pen.wording]
        value = code_moves(facts.start, facts.moves, name, pen)
        pen.code(f"ans = {name}")
        return str(value)


def code_moves(start: int, moves: tuple[Move, ...], name: str, pen: Pen) -> int:
    """Write the lines that change the variable `name` by moves, and return its last value."""
    pen.code(f"{name} = {start}")
    value = start
    for move in moves:
        taken = pen.choose("logical", move, [misread(move)])
        pen.code(f"{name} = {name} {SIGNS[taken[0]]} {taken[1]}")
        value = apply(taken, value)
    return value


# A student that saw three phrasings reads these three; one that saw many frames with many styles reads others, too.
FRAMES = (
    "Start with {start}. {moves}. What is the result?",
    "A counter shows {start}. {moves}. What does it show at the end?",
    "{name} has {start} points. {moves}. How many points does {name} have now?",
    "There are {start} coins in the box of {name}. {moves}. How many coins are left?",
    "The score is {start} at first. {moves}. Tell us the score.",
    "How many cards will {name} hold? {name} has {start} cards. {moves}.",
    "Find the last number. The first number is {start}. {moves}.",
    "We begin with {start} stamps. {moves}. Which number of stamps do we reach?",
    "A game at the market goes from {start}. {moves}. Where does it end?",
    "{name} walks with {start} apples. {moves}. Say what is in the basket of {name}.",
)
STYLES = (
    ("Step {i}: add {n}", "Step {i}: subtract {n}", "Step {i}: double it"),
    ("Key {i}: up {n}", "Key {i}: down {n}", "Key {i}: double"),
    ("Card {i}: gain {n}", "Card {i}: lose {n}", "Card {i}: double them"),
    ("Round {i}: plus {n}", "Round {i}: minus {n}", "Round {i}: double"),
    ("At stop {i} add {n}", "At stop {i} subtract {n}", "At stop {i} double it"),
    ("Turn {i} is {n} up", "Turn {i} is {n} down", "Turn {i} is double"),
    ("Visit {i} brings {n} more", "Visit {i} brings {n} less", "Visit {i} brings double"),
    ("Door {i} lets us gain {n}", "Door {i} lets us lose {n}", "Door {i} lets us double"),
)

CHAINED_ARITHMETIC = Arithmetic(
    name="chained_arithmetic",
    domain="in",
    description="Work out a number that is changed several times in a row.",
    steps=(4, 5),
    stories=tuple(story(frame, ". ", *style) for frame in FRAMES for style in STYLES),
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
            *("{name} goes to the market with {start} coins. {moves}. Say how many coins are left.", ". "),
            *("Round {i} lets {name} gain {n}", "Round {i} lets {name} lose {n}", "Round {i} lets {name} double"),
        ),
        story(
            *("How many coins are in the box at the end? The box of {name} has {start} coins. {moves}.", ". "),
            *("At stop {i} {name} has {n} more", "At stop {i} {name} has {n} less", "At stop {i} {name} has double"),
        ),
        story(
            *("What is left of {start} coins? {moves}.", ". "),
            *("Visit {i} is plus {n}", "Visit {i} is minus {n}", "Visit {i} is double"),
        ),
        story(
            *("Tell us what {name} will hold with {start} coins at first and {moves}.", " and "),
            *("{n} up at stop {i}", "{n} down at stop {i}", "double at stop {i}"),
        ),
        story(
            *("{name} has {start} coins and {moves}. What is in the basket?", " and "),
            *("visit {i} lets us add {n}", "visit {i} lets us subtract {n}", "visit {i} lets us double it"),
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
