"""Which rows of a question a view sees, and which one of them in this epoch.

Ground floor. Rows of one question are those whose column `question` holds the same text. Nothing here depends on the
order of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from toolkit.alignment import spaced_words, spelt
from toolkit.draws import number
from toolkit.errors import UserError
from toolkit.schema import Strict
from toolkit.views import lookup

_NUMBERED = re.compile(r"(.*)#(\d+)", re.DOTALL)


class Select(Strict):
    """Which rows of each question a view sees.

    Attributes:
        draw: `all` of them; the `first` by id; `k` at `random`; the `k` most `diverse`; or `balanced`, one per
            question that is drawn anew in every epoch, so that each question weighs the same.
        k: How many rows of a question random and diverse take; a question with fewer gives all that it has.
        text: Dotted path of the text whose words diverse tells rows apart by.
        where: Dotted path of a column of true and false: only rows that have true there, before anything is drawn.
        seed: Of random and balanced.
    """

    draw: Literal["all", "first", "random", "diverse", "balanced"] = "all"
    k: int | None = Field(default=None, ge=1)
    text: str | None = None
    where: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _has_what_it_draws_by(self) -> Select:
        for key, draws in (("k", ("random", "diverse")), ("text", ("diverse",))):
            needed, found = self.draw in draws, getattr(self, key) is not None
            if needed and not found:
                raise ValueError(f"draw: {self.draw} needs {key!r}")
            if found and not needed:
                raise ValueError(f"{key!r} goes with draw: {' or '.join(draws)} only, not with {self.draw}")
        return self


def selected(select: Select, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Say of every row whether the view sees it.

    For `balanced` these are the rows that `balanced_draw` draws from. `diverse` starts with the row that `first`
    takes and then adds the row that is farthest from the nearest one taken, by 1 - Jaccard of their words (split at
    white space, in any case); of equally far ones the first by id.

    Args:
        select: What to select.
        rows: All rows that there are: a question's draw is among all of its rows.

    Raises:
        UserError: A column is not there, `where` names one that is not true or false, or a text is null.
    """
    seen = [select.where is None or _is_true(row, select.where) for row in rows]
    if select.draw in ("all", "balanced"):
        return seen
    by_question: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        if seen[position]:
            by_question.setdefault(lookup(row, "question"), []).append(position)
    taken = {position for group in by_question.values() for position in _taken(select, rows, group)}
    return [position in taken for position in range(len(rows))]


def balanced_draw(seed: int, epoch: int, question: str, ids: Sequence[str]) -> str:
    """Return the one row of a question that an epoch shows: uniform, and independent from epoch to epoch.

    Args:
        seed: The selector's.
        epoch: From 0.
        question: Text of the question.
        ids: Ids of its rows that are `selected`, at least one, in any order.
    """
    return min(ids, key=lambda row_id: (number("balanced", seed, epoch, question, row_id), row_id))


def _is_true(row: Mapping[str, Any], path: str) -> bool:
    value = lookup(row, path)
    if value is None or isinstance(value, bool):
        return value is True
    raise UserError(f"where: column {path!r} holds {value!r} in record {row.get('id', '?')!r}; allowed true or false")


def _taken(select: Select, rows: Sequence[Mapping[str, Any]], group: list[int]) -> Iterator[int]:
    """Yield the positions that are taken of one question's rows."""
    ids = {position: str(lookup(rows[position], "id")) for position in group}
    if select.draw == "random":
        yield from sorted(group, key=lambda position: (number("random", select.seed, ids[position]), ids[position]))[
            : select.k
        ]
        return
    group = sorted(group, key=lambda position: _natural(ids[position]))
    if select.draw == "first":
        yield group[0]
        return
    assert select.text is not None
    assert select.k is not None
    words = {position: _words(rows[position], select.text) for position in group}
    distances = dict.fromkeys(group, 2.0)  # from the nearest one taken; nothing is farther apart than 1
    while distances and len(group) - len(distances) < select.k:
        newest = max(distances, key=distances.__getitem__)
        del distances[newest]
        yield newest
        for position in distances:
            distances[position] = min(distances[position], _distance(words[newest], words[position]))


def _natural(row_id: str) -> tuple[str, int, str]:
    """Order q7, q7#0, q7#2, q7#10 as people count."""
    match = _NUMBERED.fullmatch(row_id)
    return (match[1], int(match[2]), row_id) if match else (row_id, -1, row_id)


def _words(row: Mapping[str, Any], path: str) -> set[str]:
    text = lookup(row, path)
    if not isinstance(text, str):
        raise UserError(f"text: column {path!r} holds {text!r} in record {row.get('id', '?')!r}; allowed text")
    text = text.casefold()
    return set(spelt(text, spaced_words(text)))


def _distance(left: set[str], right: set[str]) -> float:
    return 1 - len(left & right) / len(left | right) if left or right else 0.0
