"""Days of the week, moved several times in a row."""

from __future__ import annotations

import random
from dataclasses import dataclass

from toolkit.bank.chain import Pen
from toolkit.bank.family import Family, Template, whole

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Shifts:
    """A day (0 is Monday) and by how many days it is moved; negative is back in time."""

    day: int
    shifts: tuple[int, ...]
    phrasing: int


@dataclass(frozen=True)
class Calendar:
    """One phrasing: the question around its shifts, and how a shift reads forward and back in time."""

    question: Template
    later: Template
    earlier: Template


@dataclass(frozen=True)
class Wording:
    """How a chain states the first day and each step from day `a` to day `b`."""

    first: str
    later: str
    earlier: str


CALENDARS = (
    Calendar(
        Template("A meeting on {day} is moved {shifts}. On which day is it now?"),
        *(Template("{n} days later"), Template("{n} days earlier")),
    ),
    Calendar(
        Template("Today is {day}. Count {shifts}. Which day do you reach?"),
        *(Template("{n} days forward"), Template("{n} days back")),
    ),
    Calendar(
        Template("The plan said {day}, but it changed: {shifts}. Which day does it say at the end?"),
        *(Template("{n} days after that"), Template("{n} days before that")),
    ),
)
TEXTS = (
    Wording("The first day is {a}.", "{n} days after {a} is {b}.", "{n} days before {a} is {b}."),
    Wording("We start on {a}.", "{a} plus {n} days is {b}.", "{a} minus {n} days is {b}."),
    Wording(
        "We have {a}.",
        "Step {i}: {n} days later, so {a} + {n} = {b}.",
        "Step {i}: {n} days earlier, so {a} - {n} = {b}.",
    ),
)


class Dates(Family[Shifts]):
    """Which day of the week is it after some shifts of less than a week?"""

    name = "dates"
    domain = "in"
    kind = "text"
    description = "Find the day of the week after some moves through the calendar."
    steps = (4, 5)
    limits = (2, 5)
    wordings = len(TEXTS)

    def draw(self, rng: random.Random, steps: int) -> Shifts:
        """Draw a day and `steps` shifts of 2 to 6 days, all of different length."""
        shifts = tuple(n * rng.choice((1, -1)) for n in rng.sample(range(2, 7), steps))
        return Shifts(rng.randrange(7), shifts, rng.randrange(len(CALENDARS)))

    def ask(self, facts: Shifts) -> str:
        """State the day and the shifts."""
        calendar = CALENDARS[facts.phrasing]
        shifts = [(calendar.later if n > 0 else calendar.earlier).fill(n=abs(n)) for n in facts.shifts]
        return calendar.question.fill(day=DAYS[facts.day], shifts=", ".join(shifts))

    def read(self, question: str) -> Shifts | None:
        """Read day and shifts back."""
        for phrasing, calendar in enumerate(CALENDARS):
            slots = calendar.question.read(question)
            if slots is None or slots["day"] not in DAYS:
                continue
            shifts = [read_shift(calendar, text) for text in slots["shifts"].split(", ")]
            if all(shifts):
                return Shifts(DAYS.index(slots["day"]), tuple(n for n in shifts if n), phrasing)
        return None

    def solve(self, facts: Shifts, pen: Pen) -> str:
        """One sentence per shift, each with its two days."""
        words = TEXTS[pen.wording]
        day = facts.day
        pen.write(words.first, a=DAYS[day])
        for i, shift in enumerate(facts.shifts, 1):
            taken = pen.choose("logical", shift, [-shift])
            right = (day + taken) % 7
            reached = pen.choose("calculation", right, [(right + miss) % 7 for miss in (1, -1, 2, -2)])
            sentence = words.later if taken > 0 else words.earlier
            pen.write(sentence, i=i, n=abs(taken), a=DAYS[day], b=DAYS[reached])
            day = reached
        return DAYS[day]


def read_shift(calendar: Calendar, text: str) -> int | None:
    """Return the signed number of days that `text` states, or None."""
    for sign, template in ((1, calendar.later), (-1, calendar.earlier)):
        slots = template.read(text)
        n = whole(slots["n"]) if slots else None
        if n:
            return sign * n
    return None


DATES = Dates()
