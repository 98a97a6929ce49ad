"""What a family of the procedural bank is: it draws facts, asks about them, reads them back and solves them."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from toolkit.bank.chain import Pen

NAMES = (
    *("Anna", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo"),
    *("Ines", "Jon", "Kira", "Leo", "Mia", "Noah", "Olga", "Paul"),
)
# Steps are numbered by words in questions and chains alike, so that a step is found by its number and no digit of a
# number word is taken for an operand.
COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


class Template:
    """A sentence with `{slots}` that is filled, and read back from its filled form.

    Attributes:
        text: The sentence; a slot that occurs twice has the same value twice.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        seen: set[str] = set()
        pattern = ""
        for literal, slot in re.findall(r"([^{]*)(?:\{(\w+)\})?", text):
            pattern += re.escape(literal)
            if slot:
                pattern += f"(?P={slot})" if slot in seen else f"(?P<{slot}>.+?)"
                seen.add(slot)
        self._pattern = re.compile(pattern)

    def fill(self, **values: object) -> str:
        """Return the sentence; values without a slot are left out."""
        return self.text.format(**values)

    def read(self, text: str) -> dict[str, str] | None:
        """Return the value of each slot, or None where `text` is not this sentence."""
        found = self._pattern.fullmatch(text)
        return found.groupdict() if found else None


def whole(text: str) -> int | None:
    """Return the value of a number in the bank's own spelling (`0`, `17`), or None."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,3}", text) else None


class HasPhrasing(Protocol):
    """Facts of any family: a frozen dataclass that says, among other things, in which phrasing they are asked."""

    @property
    def phrasing(self) -> int:
        """Index of the question template."""
        ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


Facts = TypeVar("Facts", bound=HasPhrasing)


class Family(ABC, Generic[Facts]):
    """One family of problems. `read` inverts `ask`; `solve` writes the steps and returns the answer.

    Attributes:
        name: Task name.
        domain: `in` for the families a student is trained on by default, `out` for those that share no template
            with them.
        kind: Kind of the answers (`toolkit.answers`).
        description: One sentence that says what the task asks for.
        steps: Default range of the number of steps, both ends included.
        limits: Smallest and largest number of steps the family can draw.
        wordings: Number of wordings its chains come in.
    """

    name: str
    domain: Literal["in", "out"]
    kind: Literal["number", "choice", "boolean", "text"]
    description: str
    steps: tuple[int, int]
    limits: tuple[int, int]
    wordings: int

    @abstractmethod
    def draw(self, rng: random.Random, steps: int) -> Facts:
        """Draw the facts of one problem with `steps` steps."""

    @abstractmethod
    def ask(self, facts: Facts) -> str:
        """Return the question, answer options included."""

    @abstractmethod
    def read(self, question: str) -> Facts | None:
        """Return the facts that `question` states, or None where it is not of this family."""

    @abstractmethod
    def solve(self, facts: Facts, pen: Pen) -> str:
        """Write the steps with `pen` and return the answer they lead to."""

    @abstractmethod
    def program(self, facts: Facts, pen: Pen) -> str:
        """Write a Python program that leaves the answer in `ans`, a line at a time, and return that answer.

        The machine calculates, so the places where it can go wrong are those of logic and knowledge. A boolean answer
        is True or False there.
        """

    def edits(self, facts: Facts) -> Iterator[Facts]:
        """Give the same problem with one number changed, whatever its answer is; none where a family has no such."""
        return iter(())

    def choices(self, facts: Facts) -> tuple[str, ...]:
        """Return the answer options in order, none unless the answer is a choice."""
        return ()

    def generate(self, rng: random.Random, steps: int | None = None) -> tuple[str, str]:
        """Draw a problem and return its question and right answer."""
        facts = self.draw(rng, rng.randint(*self.steps) if steps is None else steps)
        return self.ask(facts), self.solve(facts, Pen(rng.randrange(self.wordings)))
