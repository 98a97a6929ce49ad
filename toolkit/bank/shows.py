"""What a show has on its stage: the skill of `lookups`, out of domain."""

from __future__ import annotations

from toolkit.bank.family import Template
from toolkit.bank.lookups import Lookups

PHRASINGS = (
    Template("The game of {name} begins with {items}. Say the number of {part}."),
    Template("Tell us how many {part} are with {name} and {items}."),
    Template("We have {items}. How many {part} do we find in all?"),
    Template("At first {name} has {items} there. Count all of the {part}."),
)


class Shows(Lookups):
    """How many legs, wheels or sides are there in a show?"""

    name = "shows"
    domain = "out"
    description = "Count the parts of all that takes part in a show."
    phrasings = PHRASINGS


SHOWS = Shows()
