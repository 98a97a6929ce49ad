"""Small knowledge: how many legs, wheels or sides things have, and how many some of them have together."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.bank.chain import Pen
from toolkit.bank.family import NAMES, Family, Template, whole

# What is counted -> thing -> how many of it one thing has. Nouns here take a plain -s in the plural.
KNOWN: dict[str, dict[str, int]] = {
    "legs": {"hen": 2, "duck": 2, "cow": 4, "dog": 4, "cat": 4, "ant": 6, "bee": 6, "beetle": 6, "spider": 8},
    "wheels": {"bicycle": 2, "scooter": 2, "tricycle": 3, "car": 4, "van": 4, "truck": 6},
    "sides": {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6, "octagon": 8},
}
TOP = 50


@dataclass(frozen=True)
class Things:
    """What is counted, of which things there are how many, and whose they are, if anybody's."""

    part: str
    items: tuple[tuple[str, int], ...]
    name: str
    phrasing: int


@dataclass(frozen=True)
class Wording:
    """How a chain states a fact with its product (`wrong_product` where it adds instead) and a running sum.

    The sub-questions ask for the parts of one kind of things, of all so far, and of all together.
    """

    product: str
    wrong_product: str
    total: str
    ask_product: str
    ask_total: str
    ask_last: str


PHRASINGS = (
    Template("How many {part} do {items} have together?"),
    Template("A picture shows {items}. Count all the {part}. How many are there?"),
    Template("Take {items}. What is their number of {part} in all?"),
    Template("{name} has {items}. How many {part} are there?"),
    Template("There are {items} in the box. Tell us the number of {part}."),
    Template("How many {part} will {name} find? The game has {items}."),
    Template("Find the number of {part}. We start with {items}."),
    Template("{name} takes {items} to the market. Say how many {part} go there."),
)
TEXTS = (
    Wording(
        product="One {thing} has {k} {part}, so {n} * {k} = {p}.",
        wrong_product="One {thing} has {k} {part}, so {n} + {k} = {p}.",
        total="Together {t} + {p} = {u}.",
        ask_product="How many {part} do the {n} {thing}s have?",
        ask_total="How many {part} is that so far?",
        ask_last="How many {part} is that together?",
    ),
    Wording(
        product="Each {thing} has {k} {part} and {n} times {k} is {p}.",
        wrong_product="Each {thing} has {k} {part} and {n} plus {k} is {p}.",
        total="We add {p} to {t} and get {u}.",
        ask_product="What is the number of {part} of {n} {thing}s?",
        ask_total="What is the number of {part} up to here?",
        ask_last="What is the number of {part} in all?",
    ),
)


class Lookups(Family[Things]):
    """How many legs, wheels or sides do some things have together? The facts are not in the question.

    Attributes:
        phrasings: Templates of the question.
    """

    name = "lookups"
    domain: Literal["in", "out"] = "in"
    kind = "number"
    description = "Count the parts that some things have together."
    steps = (2, 3)
    limits = (2, 4)
    wordings = len(TEXTS)
    phrasings: tuple[Template, ...] = PHRASINGS

    def draw(self, rng: random.Random, steps: int) -> Things:
        """Draw `steps` different things, two to four of each, with at most `TOP` parts in all."""
        while True:
            part = rng.choice(sorted(KNOWN))
            things = rng.sample(sorted(KNOWN[part]), steps)
            items = tuple((thing, rng.randint(2, 4)) for thing in things)
            if sum(KNOWN[part][thing] * n for thing, n in items) <= TOP:
                phrasing = rng.randrange(len(self.phrasings))
                named = "{name}" in self.phrasings[phrasing].text
                return Things(part, items, rng.choice(NAMES) if named else "", phrasing)

    def ask(self, facts: Things) -> str:
        """Name the things."""
        items = " and ".join(f"{n} {thing}s" for thing, n in facts.items)
        return self.phrasings[facts.phrasing].fill(part=facts.part, items=items, name=facts.name)

    def read(self, question: str) -> Things | None:
        """Read the things back."""
        for phrasing, template in enumerate(self.phrasings):
            slots = template.read(question)
            if slots is None or slots["part"] not in KNOWN:
                continue
            pairs = [item.partition(" ") for item in slots["items"].split(" and ")]
            items = tuple((thing.removesuffix("s"), whole(n) or 0) for n, _, thing in pairs)
            if all(n and thing in KNOWN[slots["part"]] for thing, n in items):
                return Things(slots["part"], items, slots.get("name", ""), phrasing)
        return None

    def solve(self, facts: Things, pen: Pen) -> str:
        """Per thing: recall the fact, multiply, add to the sum so far."""
        words = TEXTS[pen.wording]
        total: int | None = None
        for i, (thing, n) in enumerate(facts.items):
            known = KNOWN[facts.part][thing]
            k = pen.choose("knowledge", known, [k for k in (2, 3, 4, 6, 8) if k != known])
            multiplied = pen.choose("logical", True, [False])
            product = pen.number(n * k if multiplied else n + k)
            sentence = words.product if multiplied else words.wrong_product
            pen.write(words.ask_product, sentence, thing=thing, part=facts.part, n=n, k=k, p=product)
            before, total = total, product
            if before is not None:
                total = pen.number(before + product)
                ask = words.ask_last if i + 1 == len(facts.items) else words.ask_total
                pen.write(ask, words.total, part=facts.part, t=before, p=product, u=total)
        return str(total)

    def program(self, facts: Things, pen: Pen) -> str:
        """One product per thing, then their sum."""
        total = 0
        terms = []
        for thing, n in facts.items:
            known = KNOWN[facts.part][thing]
            k = pen.choose("knowledge", known, [k for k in (2, 3, 4, 6, 8) if k != known])
            sign = pen.choose("logical", "*", ["+"])
            terms.append(f"{thing}s" if pen.wording else thing)
            pen.code(f"{terms[-1]} = {n} {sign} {k}")
            total += n * k if sign == "*" else n + k
        pen.code(f"ans = {' + '.join(terms)}")
        return str(total)


LOOKUPS = Lookups()
