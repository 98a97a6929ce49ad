"""Days of the week, moved several times in a row."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import Pen
from toolkit.bank.family import COUNTS, NAMES, Family, Template, whole

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Shifts:
    """A day (0 is Monday), by how many days it is moved (negative is back in time), and who it concerns, if anybody."""

    day: int
    shifts: tuple[int, ...]
    name: str
    phrasing: int


@dataclass(frozen=True)
class Calendar:
    """One phrasing: the question around its shifts, and how the i-th shift reads forward and back in time."""

    question: Template
    later: Template
    earlier: Template


@dataclass(frozen=True)
class Wording:
    """How a chain states the first day and each step from day `a` to day `b`, and how it asks for each."""

    first: str
    later: str
    earlier: str
    ask_first: str
    ask: str
    ask_last: str


FRAMES = (
    "A meeting is on {day}. {shifts}. On which day is it now?",
    "Today is {day}. {shifts}. Which day do you reach?",
    "The plan says {day}. {shifts}. Which day does it say at the end?",
    "Which day will it be? {name} begins on {day}. {shifts}.",
    "A visit was for {day}. {shifts}. Tell us the day of the visit.",
    "Find the last day. The first day is {day}. {shifts}.",
    "{name} comes with a card on {day}. {shifts}. Say when {name} comes now.",
    "We start the game on {day}. {shifts}. Where in the week does it end?",
)
STYLES = (
    ("Change {i}: plus {n}", "Change {i}: minus {n}"),
    ("Move {i}: forward {n}", "Move {i}: back {n}"),
    ("Note {i}: add {n}", "Note {i}: subtract {n}"),
    ("Call {i} is {n} days later", "Call {i} is {n} days earlier"),
    ("At stop {i} go forward {n}", "At stop {i} go back {n}"),
    ("Visit {i} brings plus {n}", "Visit {i} brings minus {n}"),
)
CALENDARS = tuple(
    Calendar(Template(frame), Template(later), Template(earlier)) for frame in FRAMES for later, earlier in STYLES
)
TEXTS = (
    Wording(
        first="The first day is {a}.",
        later="Step {i}: add {n}, so {a} + {n} = {b}.",
        earlier="Step {i}: subtract {n}, so {a} - {n} = {b}.",
        ask_first="What is the first day?",
        ask="Which day is it after step {i}?",
        ask_last="Which day is it after the last step, step {i}?",
    ),
    Wording(
        first="We start on {a}.",
        later="Number {i}: add {n} to {a} and get {b}.",
        earlier="Number {i}: subtract {n} from {a} and get {b}.",
        ask_first="On which day do we start?",
        ask="To which day does number {i} lead?",
        ask_last="To which day does number {i} lead in the end?",
    ),
)


class Dates(Family[Shifts]):
    """Which day of the week is it after some shifts of less than a week?

    Attributes:
        calendars: Phrasings of the question.
    """

    name = "dates"
    domain: Literal["in", "out"] = "in"
    kind = "text"
    description = "Find the day of the week after some moves through the calendar."
    steps = (4, 5)
    limits = (2, 5)
    wordings = len(TEXTS)
    calendars: tuple[Calendar, ...] = CALENDARS

    def draw(self, rng: random.Random, steps: int) -> Shifts:
        """Draw a day and `steps` shifts of 2 to 6 days, all of different length."""
        shifts = tuple(n * rng.choice((1, -1)) for n in rng.sample(range(2, 7), steps))
        phrasing = rng.randrange(len(self.calendars))
        named = "{name}" in self.calendars[phrasing].question.text
        return Shifts(rng.randrange(7), shifts, rng.choice(NAMES) if named else "", phrasing)

    def ask(self, facts: Shifts) -> str:
        """State the day and the shifts."""
        calendar = self.calendars[facts.phrasing]
        return calendar.question.fill(day=DAYS[facts.day], shifts=tell(calendar, facts.shifts), name=facts.name)

    def read(self, question: str) -> Shifts | None:
        """Read day and shifts back."""
        for phrasing, calendar in enumerate(self.calendars):
            slots = calendar.question.read(question)
            if slots is None or slots["day"] not in DAYS:
                continue
            shifts = hear(calendar, slots["shifts"])
            if shifts:
                return Shifts(DAYS.index(slots["day"]), shifts, slots.get("name", ""), phrasing)
        return None

    def solve(self, facts: Shifts, pen: Pen) -> str:
        """One sentence per shift, each with its two days."""
        words = TEXTS[pen.wording]
        day = facts.day
        pen.write(words.ask_first, words.first, a=DAYS[day])
        for i, shift in enumerate(facts.shifts):
            taken = pen.choose("logical", shift, [-shift])
            right = (day + taken) % 7
            reached = pen.choose("calculation", right, [(right + miss) % 7 for miss in (1, -1, 2, -2)])
            sentence = words.later if taken > 0 else words.earlier
            ask = words.ask_last if i + 1 == len(facts.shifts) else words.ask
            pen.write(ask, sentence, i=COUNTS[i], n=abs(taken), a=DAYS[day], b=DAYS[reached])
            day = reached
        return DAYS[day]

    def program(self, facts: Shifts, pen: Pen) -> str:
        """One line per shift of a day's number; names only at the beginning and the end."""
        name = ("d", "day")[pen.wording]
        pen.code(f"days = {list(DAYS)}".replace("'", '"'))
        pen.code(f'{name} = days.index("{DAYS[facts.day]}")')
        day = facts.day
        for shift in facts.shifts:
            taken = pen.choose("logical", shift, [-shift])
            pen.code(f"{name} = {name} {'+' if taken > 0 else '-'} {abs(taken)}")
            day += taken
        pen.code(f"ans = days[{name} % 7]")
        return DAYS[day % 7]


def tell(calendar: Calendar, shifts: tuple[int, ...]) -> str:
    """Return the words for all shifts."""
    told = [(calendar.later if n > 0 else calendar.earlier).fill(i=COUNTS[i], n=abs(n)) for i, n in enumerate(shifts)]
    return ". ".join(told)


def hear(calendar: Calendar, text: str) -> tuple[int, ...] | None:
    """Return the shifts that `text` tells, or None."""
    shifts: list[int] = []
    for sentence in text.split(". "):
        later, earlier = calendar.later.read(sentence), calendar.earlier.read(sentence)
        days = whole((later or earlier or {"n": ""})["n"])
        shifts += [days if later else -days] if days else []
    return tuple(shifts) if len(shifts) <= len(COUNTS) and tell(calendar, tuple(shifts)) == text else None


DATES = Dates()
