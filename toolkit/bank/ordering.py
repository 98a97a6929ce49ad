"""Who comes where: an order is put together from clues in any sequence. `ordering` trains, `queue` is out of domain."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import OffScale, Pen
from toolkit.bank.family import NAMES, Family, Template

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
LETTERS = "ABCDEFG"
OPTIONS = "\nOptions:\n"


@dataclass(frozen=True)
class Order:
    """People from first to last, and how they are asked about.

    Attributes:
        people: Names in their true order.
        clues: Sequence in which the links are stated; link i says that person i comes before person i+1.
        rank: Index in `people` of the person asked for, at least 1.
        options: Names in the sequence of the answer options.
        relation: Index of the relation (taller, older, ...).
        phrasing: Index of the question template.
    """

    people: tuple[str, ...]
    clues: tuple[int, ...]
    rank: int
    options: tuple[str, ...]
    relation: int
    phrasing: int


@dataclass(frozen=True)
class Relation:
    """How a clue reads (`a` comes before `b`) and how a rank of this relation is named (`top`)."""

    clue: Template
    top: str


@dataclass(frozen=True)
class Wording:
    """How a chain names the first person, each link, and the person and option found."""

    first: str
    link: str
    found: str


class Ordering(Family[Order]):
    """A family of orders, told by its relations and phrasings."""

    kind = "choice"
    limits = (3, 6)

    def __init__(
        self,
        name: str,
        domain: Literal["in", "out"],
        description: str,
        steps: tuple[int, int],
        relations: tuple[Relation, ...],
        phrasings: tuple[Template, ...],
        texts: tuple[Wording, ...],
    ) -> None:
        self.name = name
        self.domain = domain
        self.description = description
        self.steps = steps
        self.wordings = len(texts)
        self._relations = relations
        self._phrasings = phrasings
        self._texts = texts

    def draw(self, rng: random.Random, steps: int) -> Order:
        """Draw `steps` clues over `steps + 1` people."""
        people = tuple(rng.sample(NAMES, steps + 1))
        return Order(
            people=people,
            clues=tuple(rng.sample(range(steps), steps)),
            rank=rng.randint(1, steps),
            options=tuple(rng.sample(people, len(people))),
            relation=rng.randrange(len(self._relations)),
            phrasing=rng.randrange(len(self._phrasings)),
        )

    def ask(self, facts: Order) -> str:
        """State the clues, ask for one rank, list the options."""
        relation = self._relations[facts.relation]
        clues = " ".join(relation.clue.fill(a=facts.people[i], b=facts.people[i + 1]) for i in facts.clues)
        asked = self._phrasings[facts.phrasing].fill(clues=clues, ordinal=ORDINALS[facts.rank], top=relation.top)
        options = [f"({letter}) {person}" for letter, person in zip(LETTERS, facts.options, strict=False)]
        return asked + OPTIONS + "\n".join(options)

    def choices(self, facts: Order) -> tuple[str, ...]:
        """The names in the sequence of the options."""
        return facts.options

    def read(self, question: str) -> Order | None:
        """Read clues, rank and options back."""
        asked, _, listed = question.partition(OPTIONS)
        options = tuple(line[4:] for line in listed.split("\n"))
        for phrasing, template in enumerate(self._phrasings):
            slots = template.read(asked)
            if slots is None or slots["ordinal"] not in ORDINALS:
                continue
            for index, relation in enumerate(self._relations):
                links = [relation.clue.read(clue + ".") for clue in slots["clues"].removesuffix(".").split(". ")]
                pairs = [(link["a"], link["b"]) for link in links if link is not None]
                people = in_order(pairs)
                rank = ORDINALS.index(slots["ordinal"])
                if len(pairs) < len(links) or slots.get("top", relation.top) != relation.top or people is None:
                    continue
                if rank < len(people) and sorted(options) == sorted(people):
                    clues = tuple(people.index(a) for a, _ in pairs)
                    return Order(people, clues, rank, options, index, phrasing)
        return None

    def solve(self, facts: Order, pen: Pen) -> str:
        """Follow the clues from the first person to the rank asked for, then look up the option."""
        words = self._texts[pen.wording]
        relation = self._relations[facts.relation]
        place = pen.choose("logical", 0, range(1, len(facts.people)))
        named = [place]
        pen.write(words.first, a=facts.people[place], top=relation.top)
        for rank in range(1, facts.rank + 1):
            before, place = place, pen.choose("logical", place + 1, range(place + 2, len(facts.people)))
            if place >= len(facts.people):
                raise OffScale(place)
            names = {"a": facts.people[before], "b": facts.people[place]}
            clue = relation.clue.fill(**names).removesuffix(".")
            pen.write(words.link, clue=clue, ordinal=ORDINALS[rank], **names)
            named.append(place)
        found = facts.people[pen.choose("logical", place, [other for other in named if other != place])]
        letter = LETTERS[facts.options.index(found)]
        pen.write(words.found, b=found, ordinal=ORDINALS[facts.rank], top=relation.top, letter=letter)
        return f"({letter})"


def in_order(pairs: list[tuple[str, str]]) -> tuple[str, ...] | None:
    """Chain (before, after) pairs into one order, or return None where they form no single one."""
    after = dict(pairs)
    heads = set(after) - set(after.values())
    if len(after) < len(pairs) or len(heads) != 1:
        return None
    people = [heads.pop()]
    while people[-1] in after:
        people.append(after[people[-1]])
    return tuple(people) if len(people) == len(pairs) + 1 else None


ORDERING = Ordering(
    name="ordering",
    domain="in",
    description="Put people in order from the clues and pick the one asked for.",
    steps=(4, 4),
    relations=(
        Relation(Template("{a} is taller than {b}."), "tallest"),
        Relation(Template("{a} is older than {b}."), "oldest"),
        Relation(Template("{a} is faster than {b}."), "fastest"),
    ),
    phrasings=(
        Template("{clues} Who is the {ordinal} {top}?"),
        Template("Some friends compare. {clues} Which one is the {ordinal} {top}?"),
        Template("We know this. {clues} Name the {ordinal} {top} of them."),
    ),
    texts=(
        Wording(
            first="The {top} is {a}.",
            link="{clue}, so {b} is {ordinal}.",
            found="The {ordinal} {top} is {b}, option ({letter}).",
        ),
        Wording(
            first="We begin with {a}, the {top}.",
            link="After {a} comes {b}, the {ordinal}.",
            found="So we pick {b}, option ({letter}).",
        ),
    ),
)

QUEUE = Ordering(
    name="queue",
    domain="out",
    description="Find out who stands at a place in a queue.",
    steps=(3, 4),
    relations=(
        Relation(Template("{a} stands before {b}."), "front"),
        Relation(Template("{a} waits before {b}."), "head"),
    ),
    phrasings=(
        Template("People are in a queue. {clues} Who is {ordinal} from the {top}?"),
        Template("A line forms at a door. {clues} Counting from the {top}, who is {ordinal}?"),
    ),
    texts=(
        Wording(
            first="At the {top} of the queue is {a}.",
            link="{clue}, which puts {b} {ordinal}.",
            found="{b} is {ordinal}: option ({letter}).",
        ),
        Wording(
            first="{a} is at the {top}.",
            link="Behind {a} there is {b}, at place {ordinal}.",
            found="At the place asked for is {b}, option ({letter}).",
        ),
    ),
)
