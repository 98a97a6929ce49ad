"""The procedural bank: seeded families of small problems that can be drawn, read back and solved step by step.

Students learn from `in` families; questions of `out` families share no clause with theirs. `docs/bank.md` tells more.
"""

from __future__ import annotations

from typing import Any

from toolkit.bank.arithmetic import CHAINED_ARITHMETIC, SHOPPING
from toolkit.bank.comparisons import COMPARISONS
from toolkit.bank.contests import CONTESTS, DUELS, UPSETS
from toolkit.bank.dates import DATES
from toolkit.bank.deliveries import DELIVERIES
from toolkit.bank.family import Family
from toolkit.bank.lookups import LOOKUPS
from toolkit.bank.ordering import ORDERING, QUEUE
from toolkit.bank.shows import SHOWS

_ALL: tuple[Family[Any], ...] = (
    *(CHAINED_ARITHMETIC, ORDERING, DATES, LOOKUPS),
    *(SHOPPING, DELIVERIES, SHOWS, QUEUE, COMPARISONS),
    *(CONTESTS, DUELS, UPSETS),
)
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
