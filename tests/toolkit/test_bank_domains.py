"""What out of domain means in the bank: other sentences, and for three families no word that is new."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

import pytest

from toolkit import bank
from toolkit.bank.dates import DAYS
from toolkit.bank.family import COUNTS, NAMES
from toolkit.bank.lookups import KNOWN
from toolkit.bank.ordering import ORDINALS

# Mask -> what a template leaves open there. Numbers are masked first, as #.
MASKS = {"@": (*NAMES, *DAYS), "one": COUNTS, "first": ORDINALS, "legs": KNOWN, "hens": (r"(?<=# )\w+s",)}


def questions(name: str) -> Iterator[str]:
    """Draw questions of a family at its default difficulty: many for each of its phrasings."""
    family = bank.FAMILIES[name]
    rng = random.Random(0)
    return (family.ask(family.draw(rng, rng.randint(*family.steps))) for _ in range(1000))


def clauses(names: Iterable[str]) -> set[str]:
    """Return what stands between two stops in these families' questions, masked."""
    text = re.sub(r"\d+", "#", "\n".join(question for name in names for question in questions(name)))
    for mask, values in MASKS.items():
        text = re.sub(rf"(?<!\w)(?:{'|'.join(values)})\b", mask, text)
    return set(re.split(r"[.?:,] ?|\n", text)) - {""}


def vocabulary(names: Iterable[str]) -> set[str]:
    return {word for name in names for question in questions(name) for word in re.findall(r"\w+|[^\w\s]", question)}


@pytest.fixture(scope="module")
def trained_clauses() -> set[str]:
    return clauses(bank.IN_DOMAIN)


@pytest.mark.parametrize("name", bank.OUT_OF_DOMAIN)
def test_no_clause_of_an_in_domain_question_occurs_out_of_domain(name: str, trained_clauses: set[str]) -> None:
    assert not clauses([name]) & trained_clauses


def test_a_clause_is_masked_where_its_template_is_open() -> None:
    counted = {clause for clause in clauses(["chained_arithmetic"]) if clause.startswith("Step")}
    assert counted == {"Step one"}


# Names and steps of a question may be new, its words may not: a student from scratch reads no other.
@pytest.mark.parametrize("name", ["shopping", "deliveries", "shows"])
def test_every_word_of_a_near_family_occurs_in_domain(name: str) -> None:
    assert vocabulary([name]) <= vocabulary(["chained_arithmetic", "dates", "lookups"])
