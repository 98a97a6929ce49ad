"""Whose text a record gets when texts are swapped: always that of a row of another question.

Ground floor. Partners are a function of the seed and of the set of rows; the order of the rows does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.draws import BITS, number
from toolkit.views import lookup

Row = Mapping[str, Any]


def exchanged(rows: Sequence[Row], seed: int) -> dict[str, Row]:
    """Pair rows one to one, so that every row that gets a text also gives its own, and none stays within a question.

    Each question's rows stand together in an order drawn by the seed, and everything moves on by the size of the
    largest question: that is past its end for every question, as long as none has more than half of the rows. Of one
    that has more, as many rows as there are others take part.

    Args:
        rows: Rows with columns `id` (unique) and `question`.
        seed: Of the order.

    Returns:
        By id of a row the row that its text comes from; a row without a partner is not in it.
    """
    by_question: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (number("swap", seed, row["id"]), row["id"])):
        by_question.setdefault(lookup(row, "question"), []).append(row)
    if not by_question:
        return {}
    largest = max(by_question.values(), key=len)
    del largest[len(rows) - len(largest) :]
    pool = [
        row
        for question in sorted(by_question, key=lambda question: (number("swap", seed, question), question))
        for row in by_question[question]
    ]
    return {row["id"]: pool[(position + len(largest)) % len(pool)] for position, row in enumerate(pool)}


def of_another_label(rows: Sequence[Row], labels: Sequence[str], seed: int) -> dict[str, Row]:
    """Draw for every row a row of another question with another label; a text may be drawn more than once.

    Args:
        rows: Rows with columns `id` (unique) and `question`.
        labels: The label of each row.
        seed: Of the draws.

    Returns:
        By id of a row the row that its text comes from; a row without a partner is not in it.
    """
    pool = sorted(
        zip(labels, rows, strict=True), key=lambda item: (item[0], number("swap", seed, item[1]["id"]), item[1]["id"])
    )
    first: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for position, (label, _) in enumerate(pool):
        first.setdefault(label, position)
        sizes[label] = sizes.get(label, 0) + 1
    partners: dict[str, Row] = {}
    for label, row in pool:
        others = len(pool) - sizes[label]
        start = number("swap from", seed, row["id"]) * others >> BITS
        for step in range(others):
            # Rows of one label stand together in the pool, and the draw leaves them out.
            position = (start + step) % others
            partner = pool[position if position < first[label] else position + sizes[label]][1]
            if lookup(partner, "question") != lookup(row, "question"):
                partners[row["id"]] = partner
                break
    return partners
