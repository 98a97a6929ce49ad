"""Whose text a record gets when texts are swapped: always that of a row of another question.

Ground floor. Partners are a function of the seed and of the set of rows; the order of the rows does not matter.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from toolkit.draws import number
from toolkit.views import lookup

Row = Mapping[str, Any]


def exchanged(rows: Sequence[Row], kinds: Sequence[str], seed: int) -> dict[str, Row]:
    """Give every row the text of a row of another kind and another question, each text once where that is possible.

    Rows of one kind stand together in an order drawn by the seed, and texts move on by the size of the largest kind:
    that is past its end for every kind, as long as none has more than half of the rows. Where the row found so is of
    the same question, texts are traded along the shortest chain of rows that ends at a free one (an augmenting path),
    so that as many rows have a text of their own as any assignment gives. What is left gets a text a second time.

    Args:
        rows: Rows with columns `id` (unique) and `question`.
        kinds: Kind of each row, by which a row and its partner differ: its question, or its label.
        seed: Of the order.

    Returns:
        By id of a row the row that its text comes from; a row for which there is none is not in it.
    """
    places = sorted(
        range(len(rows)),
        key=lambda place: (
            number("swap", seed, kinds[place]),
            kinds[place],
            number("swap", seed, rows[place]["id"]),
            rows[place]["id"],
        ),
    )
    largest, size = Counter(kinds).most_common(1)[0] if rows else ("", 0)
    others = len(rows) - size
    is_majority = size > others
    if is_majority:  # it comes first; what there is of the others goes round among its rows
        places.sort(key=lambda place: kinds[place] != largest)
    here = _Places([rows[place] for place in places], [kinds[place] for place in places])
    givers: dict[int, int] = {}
    if others:
        for taker in range(len(rows)):
            here.wish(taker, size + taker % others if is_majority and taker < size else (taker + size) % len(rows))
        givers = here.settled()
    return {here.rows[taker]["id"]: here.rows[giver] for taker, giver in givers.items()}


class _Places:
    """Rows by their places, with what each of them would take and who has it."""

    def __init__(self, rows: Sequence[Row], kinds: Sequence[str]) -> None:
        self.rows, self.kinds = rows, kinds
        self._questions = [lookup(row, "question") for row in rows]
        self._of_kind, self._of_question = Counter(kinds), Counter(self._questions)
        self._of_both = Counter(zip(kinds, self._questions, strict=True))
        self._wishes: list[int] = []
        self._taker: dict[int, int] = {}  # by the place of a text
        self._left: list[int] = []

    def wish(self, taker: int, giver: int) -> None:
        """Note whose text a row would take, and take it where it may and nobody has."""
        self._wishes.append(giver)
        if self._may(taker, giver) and giver not in self._taker:
            self._taker[giver] = taker
        elif self._choices(taker):
            self._left.append(taker)

    def _choices(self, taker: int) -> int:
        """Return how many texts a row may take."""
        kind, question = self.kinds[taker], self._questions[taker]
        alike = self._of_kind[kind] + self._of_question[question] - self._of_both[kind, question]
        return len(self.rows) - alike

    def settled(self) -> dict[int, int]:
        """Return for every row that can have one the place of its text."""
        pools: dict[str, list[int]] | None = None
        repeating = []
        for taker in self._not_served():
            pools = self._all() if pools is None else pools
            if self._trade(taker, pools):
                pools = None
            else:  # what this search has been through leads to no free text in any later one either
                repeating.append(taker)
        givers = {taker: giver for giver, taker in self._taker.items()}
        return givers | {taker: self._again(taker) for taker in repeating}

    def _not_served(self) -> list[int]:
        """Give the rows that are left a free text where there is one for them; return the others."""
        free: dict[str, dict[str, list[int]]] = {}
        for place, kind in enumerate(self.kinds):
            if place not in self._taker:
                free.setdefault(kind, {}).setdefault(self._questions[place], []).append(place)
        left = []
        for taker in self._left:
            kinds = (kind for kind in free if kind != self.kinds[taker])
            found = ((kind, asked) for kind in kinds for asked in free[kind] if asked != self._questions[taker])
            first = next(found, None)
            if first is None:
                left.append(taker)
                continue
            kind, asked = first
            self._taker[free[kind][asked].pop()] = taker
            if not free[kind][asked]:
                del free[kind][asked]
            if not free[kind]:
                del free[kind]
        return left

    def _may(self, taker: int, giver: int) -> bool:
        return self.kinds[taker] != self.kinds[giver] and self._questions[taker] != self._questions[giver]

    def _all(self) -> dict[str, list[int]]:
        """Return the places of all texts by kind."""
        pools: dict[str, list[int]] = {}
        for place, kind in enumerate(self.kinds):
            pools.setdefault(kind, []).append(place)
        return pools

    def _trade(self, taker: int, pools: dict[str, list[int]]) -> bool:
        """Give a row a text by trading on along a shortest chain of takers; False where none ends at a free text.

        Args:
            taker: The row without a text.
            pools: Places of texts not yet looked at, by kind; loses those that are.
        """
        came: dict[int, int] = {}
        waiting = deque([taker])
        while waiting:
            asking = waiting.popleft()
            for kind in [kind for kind in pools if kind != self.kinds[asking]]:
                found = [place for place in pools[kind] if self._may(asking, place)]
                pools[kind] = [place for place in pools[kind] if not self._may(asking, place)]
                if not pools[kind]:
                    del pools[kind]
                for giver in found:
                    came[giver] = asking
                    if giver not in self._taker:
                        self._hand_on(giver, came, taker)
                        return True
                    waiting.append(self._taker[giver])
        return False

    def _hand_on(self, giver: int, came: Mapping[int, int], first: int) -> None:
        """Let every row of a chain take the text it asked for; the last one asked for the free one."""
        held = {taker: place for place, taker in self._taker.items()}
        while True:
            taker = came[giver]
            before = held.get(taker)
            self._taker[giver] = taker
            if taker == first:
                return
            assert before is not None
            giver = before

    def _again(self, taker: int) -> int:
        """Return the place of a text that another row has too, the first one from the row's wish on."""
        behind = (place % len(self.rows) for place in count(self._wishes[taker]))
        return next(giver for giver in behind if self._may(taker, giver))
