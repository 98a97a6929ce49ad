"""The day on which a card comes, moved several times in a row: the skill of `dates`, out of domain."""

from __future__ import annotations

from toolkit.bank.dates import Calendar, Dates
from toolkit.bank.family import Template

CALENDARS = (
    Calendar(
        Template("{name} has a card for {day}. {shifts}. Say the day of the card."),
        *(Template("The card is {n} days later at stop {i}"), Template("The card is {n} days earlier at stop {i}")),
    ),
    Calendar(
        Template("On which day will it be? The card of {name} goes on {day}. {shifts}."),
        *(Template("At stop {i} it is {n} days later"), Template("At stop {i} it is {n} days earlier")),
    ),
    Calendar(
        Template("Tell us on which day the card comes. {day} is the plan at first. {shifts}."),
        *(Template("Turn {i} is to go forward {n}"), Template("Turn {i} is to go back {n}")),
    ),
    Calendar(
        Template("Which is the day of the card? {shifts}. The plan was for {day} at first."),
        *(Template("Door {i} lets it add {n}"), Template("Door {i} lets it subtract {n}")),
    ),
)


class Deliveries(Dates):
    """On which day does a card come after some changes of the plan?"""

    name = "deliveries"
    domain = "out"
    description = "Find the day on which a card comes after some changes of the plan."
    steps = (3, 4)
    calendars = CALENDARS


DELIVERIES = Deliveries()
