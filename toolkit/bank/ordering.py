"""Who comes where, from clues in any sequence. `ordering` is in domain, `queue` out of domain."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import OffScale, Pen
from toolkit.bank.family import NAMES, Family, Template

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


@dataclass(frozen=True)
class Order:
    """People from first to last, and how they are asked about.

    Attributes:
        people: Names in their true order.
        clues: Sequence in which the clues are given; clue 0 tells who is first, clue i that person i-1 comes before
            person i.
        rank: Index in `people` of the person asked for.
        relation: Index of the relation (taller, older, ...).
        phrasing: Index of the question template.
    """

    people: tuple[str, ...]
    clues: tuple[int, ...]
    rank: int
    relation: int
    phrasing: int


@dataclass(frozen=True)
class Relation:
    """How the clues read (`a` is first; `a` comes right before `b`) and what the first place is called."""

    head: Template
    link: Template
    top: str


@dataclass(frozen=True)
class Wording:
    """How a chain states the clue about the first person and each following one, and how it asks for a place."""

    head: str
    link: str
    ask: str
    ask_last: str


class Ordering(Family[Order]):
    """A family of orders, told by its relations and phrasings."""

    kind = "text"
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
        """Draw an order of `steps + 1` people; who is asked for is at least two links from the first."""
        return Order(
            people=tuple(rng.sample(NAMES, steps + 1)),
            clues=tuple(rng.sample(range(steps + 1), steps + 1)),
            rank=rng.randint(2, steps),
            relation=rng.randrange(len(self._relations)),
            phrasing=rng.randrange(len(self._phrasings)),
        )

    def ask(self, facts: Order) -> str:
        """Give the clues and ask for one rank."""
        relation = self._relations[facts.relation]
        clues = " ".join(clue(relation, facts.people[max(i - 1, 0)], facts.people[i], i) for i in facts.clues)
        return self._phrasings[facts.phrasing].fill(clues=clues, ordinal=ORDINALS[facts.rank], top=relation.top)

    def read(self, question: str) -> Order | None:
        """Read clues and rank back."""
        for phrasing, template in enumerate(self._phrasings):
            slots = template.read(question)
            if slots is None or slots["ordinal"] not in ORDINALS:
                continue
            clues = [f"{text}." for text in slots["clues"].removesuffix(".").split(". ")]
            rank = ORDINALS.index(slots["ordinal"])
            for index, relation in enumerate(self._relations):
                people = in_order(relation, clues)
                if people and rank < len(people) and slots.get("top", relation.top) == relation.top:
                    told = [clue(relation, people[max(i - 1, 0)], person, i) for i, person in enumerate(people)]
                    return Order(people, tuple(told.index(text) for text in clues), rank, index, phrasing)
        return None

    def solve(self, facts: Order, pen: Pen) -> str:
        """Follow the clues from the first person to the rank asked for."""
        words = self._texts[pen.wording]
        relation = self._relations[facts.relation]
        everyone = range(len(facts.people))
        place = pen.choose("logical", 0, everyone[1:])
        pen.write(words.ask, words.head, clue=clue(relation, "", facts.people[place], 0), ordinal=ORDINALS[0])
        for rank in range(1, facts.rank + 1):
            before = place
            place = pen.choose("logical", before + 1, [i for i in everyone if i not in (before, before + 1)])
            if place not in everyone:
                raise OffScale(place)
            names = facts.people[before], facts.people[place]
            ask = words.ask_last if rank == facts.rank else words.ask
            pen.write(ask, words.link, clue=clue(relation, *names, 1), b=names[1], ordinal=ORDINALS[rank])
        return facts.people[place]

    def program(self, facts: Order, pen: Pen) -> str:
        """Put down who comes after whom, in the order of the clues, and go from one to the next."""
        name = ("who", "person")[pen.wording]
        links = [f'"{facts.people[i - 1]}": "{facts.people[i]}"' for i in facts.clues if i]
        pen.code(f"after = {{{', '.join(links)}}}")
        place = pen.choose("logical", 0, range(1, len(facts.people)))
        pen.code(f'{name} = "{facts.people[place]}"')
        steps = pen.choose("logical", facts.rank, [facts.rank - 1, facts.rank + 1])
        if place + steps >= len(facts.people):
            raise OffScale(place)
        for _ in range(steps):
            pen.code(f"{name} = after[{name}]")
        pen.code(f"ans = {name}")
        return facts.people[place + steps]


def clue(relation: Relation, a: str, b: str, i: int) -> str:
    """Return clue i of an order: that `b` is first, or that `a` comes right before `b`."""
    return relation.link.fill(a=a, b=b) if i else relation.head.fill(a=b)


def in_order(relation: Relation, clues: list[str]) -> tuple[str, ...] | None:
    """Chain clues into one order, or return None where they don't form exactly one."""
    heads = [slots["a"] for slots in map(relation.head.read, clues) if slots]
    links = [slots for slots in map(relation.link.read, clues) if slots]
    after = {link["a"]: link["b"] for link in links}
    people = heads[:1]
    while people and people[-1] in after:
        people.append(after.pop(people[-1]))
    return tuple(people) if len(people) == len(set(people)) == len(clues) == len(links) + 1 else None


ORDERING = Ordering(
    name="ordering",
    domain="in",
    description="Put people in order from the clues and name the one asked for.",
    steps=(4, 4),
    relations=(
        # A link of three words is learned far sooner than "is taller than", where the names stand further apart.
        Relation(Template("{a} is the best."), Template("{a} beats {b}."), "best"),
        Relation(Template("{a} is the fastest."), Template("{a} outruns {b}."), "fastest"),
        Relation(Template("{a} is the highest."), Template("{a} outranks {b}."), "highest"),
    ),
    phrasings=(
        Template("{clues} Who is the {ordinal} {top}?"),
        Template("Some friends compare. {clues} Which one is the {ordinal} {top}?"),
        Template("We know this. {clues} Name the {ordinal} {top} of them."),
        Template("Find the {ordinal} {top}. {clues}"),
        Template("Who is the {ordinal} {top} here? {clues}"),
        Template("Here is a game of friends. {clues} Tell us who is the {ordinal} {top}."),
    ),
    texts=(
        Wording(
            *("First: {clue}", "{clue} So {b} is {ordinal}."),
            *("Who is {ordinal}?", "Who is {ordinal}, the one asked for?"),
        ),
        Wording(
            *("The clues say: {clue}", "Then {clue} This puts {b} {ordinal}."),
            *("Whom do the clues put {ordinal}?", "Whom do the clues put {ordinal}, as asked?"),
        ),
    ),
)

QUEUE = Ordering(
    name="queue",
    domain="out",
    description="Find out who stands at a place in a queue.",
    steps=(3, 4),
    relations=(
        Relation(Template("{a} stands in front."), Template("{a} precedes {b}."), "front"),
        Relation(Template("{a} came early."), Template("{a} blocks {b}."), "door"),
    ),
    phrasings=(
        Template("Who is {ordinal} in this queue? {clues}"),
        Template("People queue at the {top}. {clues} Tell us who is {ordinal} there."),
    ),
    texts=(
        Wording(
            *("We begin here: {clue}", "{clue} That makes {b} {ordinal}."),
            *("Who is {ordinal}?", "Who is {ordinal}, the place asked for?"),
        ),
        Wording(
            *("Place {ordinal}: {clue}", "Place {ordinal}: {clue}"),
            *("Who stands at the {ordinal} place?", "Who stands at the {ordinal} place, the one asked for?"),
        ),
    ),
)
