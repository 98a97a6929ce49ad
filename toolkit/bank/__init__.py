"""The procedural bank: seeded families of small problems that can be drawn, read back and solved step by step.

A family's students learn from `in` families; `out` families need the same skills and share no template with them.
"""

from __future__ import annotations

from typing import Any

from toolkit.bank.arithmetic import CHAINED_ARITHMETIC, SHOPPING
from toolkit.bank.comparisons import COMPARISONS
from toolkit.bank.dates import DATES
from toolkit.bank.family import Family
from toolkit.bank.lookups import LOOKUPS
from toolkit.bank.ordering import ORDERING, QUEUE

_ALL: tuple[Family[Any], ...] = (CHAINED_ARITHMETIC, ORDERING, DATES, LOOKUPS, SHOPPING, QUEUE, COMPARISONS)
FAMILIES: dict[str, Family[Any]] = {family.name: family for family in _ALL}
IN_DOMAIN = tuple(family.name for family in _ALL if family.domain == "in")
OUT_OF_DOMAIN = tuple(family.name for family in _ALL if family.domain == "out")


def read(question: str) -> tuple[Family[Any], Any] | None:
    """Return the family of a question and the facts it states, or None where no family can read it."""
    for family in FAMILIES.values():
        facts = family.read(question)
        if facts is not None:
            return family, facts
    return None
