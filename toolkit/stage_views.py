"""The sequences that a stage's views make of its records: which rows, which items, what is done to their texts.

Everything that is drawn here is a function of (seed, record id); what needs the whole data (a swap's partners, the
words of a corpus) is prepared once for all records. Text only: no tokenizer, no loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.selection import selected
from toolkit.soft_targets import TeacherToken, place
from toolkit.transforms import Prepared, Swapped, Unusable, by_token, prepare, rearrange
from toolkit.views import RenderedView, Segment, ambiguity, columns, fill, items, literals, lookup, parse, role

if TYPE_CHECKING:
    from toolkit.recipe import Stage, View
    from toolkit.recipe_sections import TargetSegment

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a stage makes of one record.

    Attributes:
        sequences: (position of the view in its stage, what it shows), in the order of the views; none where no view
            selects the record.
        reason: Why the record is left out whole, None where it is not.
    """

    sequences: list[tuple[int, RenderedView]]
    reason: str | None = None


class StageViews:
    """A stage's views over its records.

    A view whose coefficient is 0 shows nothing: a mean over tokens would count what it never learns from.

    Args:
        stage: The stage.
        rows: All records that it trains on.

    Raises:
        UserError: A view takes a column that the records lack, or cannot select or transform them as it says.
    """

    def __init__(self, stage: Stage, rows: Sequence[Row]) -> None:
        self.stage = stage
        self.rows = rows
        self._views: list[_ViewOfRows | None] = []
        targets = [piece.text for view in stage.views.values() for piece in view.target]
        written = frozenset(path for text in targets for path in columns(text))
        for name, view in stage.views.items():
            try:
                self._views.append(_ViewOfRows(view, rows, written) if view.coefficient else None)
            except UserError as error:
                raise UserError(f"stages.{stage.name}.views.{name}: {error}") from None

    @property
    def swapped(self) -> dict[str, Swapped]:
        """What swaps did to the texts of each view that has some, by its name."""
        views = zip(self.stage.views, self._views, strict=True)
        return {name: view.swapped for name, view in views if view is not None and view.swapped}

    def show(self, index: int) -> Shown:
        """Return what becomes of the record at a position.

        Raises:
            UserError: A view takes a column that this record lacks.
        """
        sequences: list[tuple[int, RenderedView]] = []
        for position, view in enumerate(self._views):
            if view is None or not view.selects[index]:
                continue
            try:
                sequences += [(position, shown) for shown in view.show(self.rows[index])]
            except Unusable as unusable:
                return Shown([], f"{list(self.stage.views)[position]}: {unusable.reason}")
        return Shown(sequences)


class _ViewOfRows:
    """One view, with whatever its transforms need to know of the whole data, and which columns students write."""

    def __init__(self, view: View, rows: Sequence[Row], written: frozenset[str]) -> None:
        self.view = view
        self._written = written
        self._literals = [literals(template) for template in (view.prompt, *(piece.text for piece in view.target))]
        self._before = literals(view.before) if view.before and "before" in columns(view.prompt) else ""
        self.selects = selected(view.select, rows)
        chosen = [row for row, is_chosen in zip(rows, self.selects, strict=True) if is_chosen]
        self._segments = [_SegmentOfRows(piece, chosen) for piece in view.target]

    @property
    def swapped(self) -> Swapped | None:
        """What swaps did to the texts of all segments; None where there are none."""
        found = [segment.swapped for segment in self._segments if segment.swapped]
        return sum(found, Swapped()) if found else None

    def show(self, row: Row) -> list[RenderedView]:
        """Return the sequences of one record, one for each item where the view has `each`."""
        view = self.view
        shown = items(row, view.each, view.before) if view.each else [row]
        sequences = [self._show(one, earlier) for earlier, one in enumerate(shown)]
        if not sequences:
            raise Unusable(f"{view.each}: the list is empty")
        return sequences

    def _show(self, row: Row, earlier: int) -> RenderedView:
        instead: dict[str, str] = {}
        segments = tuple(segment.show(row, instead) for segment in self._segments)
        fault = ambiguity([piece.text for piece in self.view.target], row, instead)
        if fault := fault or _prompt_fault(self.view.prompt, row, self._written):
            raise Unusable(fault)
        told = [self._before] * earlier
        return RenderedView(
            fill(self.view.prompt, row), segments, self._row_weight(row), "\n".join([*self._literals, *told])
        )

    def _row_weight(self, row: Row) -> float:
        path = self.view.row_weight
        if path is None:
            return 1.0
        weight = lookup(row, path)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise UserError(f"row_weight: found {weight!r} in record {row.get('id', '?')!r}, allowed a finite number")
        return float(weight)


def _prompt_fault(prompt: str, row: Row, written: frozenset[str]) -> str | None:
    """Return why a student's own text would not end in this prompt where the record's does, None where it would.

    CasCoD's second prompt says "Therefore, the answer is" behind the rationale, which a student is stopped at.
    """
    for piece, behind in pairwise(parse(prompt)):
        is_written = piece.is_column and piece.text in written
        if is_written and not behind.is_column and behind.text.strip() and behind.text in str(lookup(row, piece.text)):
            return f"{piece.text} holds the text that ends it in the prompt, {behind.text!r}"
    return None


class _SegmentOfRows:
    """One segment of a target, its transforms prepared."""

    def __init__(self, piece: TargetSegment, rows: Sequence[Row]) -> None:
        self._piece = piece
        self._role = piece.role or role(piece.text)
        self._apply: Prepared | None = None
        self._by_token = [transform for transform in piece.transform if by_token(transform)]
        if piece.transform or piece.soft_targets:
            (self._path,) = columns(piece.text)
        if piece.transform:
            self._apply = prepare(piece.transform, self._path, rows)

    @property
    def swapped(self) -> Swapped | None:
        """What a swap did to the segment's texts; None where there is none."""
        return self._apply.swapped if self._apply else None

    def show(self, row: Row, instead: dict[str, str]) -> Segment:
        """Return the segment as this record has it; a transformed column is noted in `instead`."""
        own: dict[str, str] = {}
        if self._apply is not None:
            text = fill("{" + self._path + "}", row)
            if not text.strip():
                raise Unusable("the text to transform is empty")
            own[self._path] = self._apply(row, text)
            instead.update(own)
        tokens = self._by_token
        change = (lambda ids, of: rearrange(tokens, ids, of, str(row["id"]))) if tokens else None
        text = fill(self._piece.text, row, own)
        return Segment(text, self._role, self._piece.weight, change, self._teacher(row, text))

    def _teacher(self, row: Row, text: str) -> tuple[TeacherToken, ...] | None:
        """Return the teacher's tokens in the segment's text; none where the teacher gave no log-probabilities."""
        path = self._piece.soft_targets
        if path is None:
            return None
        pieces = parse(self._piece.text)
        before = sum(len(piece.text) for piece in pieces[: [piece.is_column for piece in pieces].index(True)])
        tokens = lookup(row, path)
        try:
            return () if tokens is None else place(tokens, fill("{" + self._path + "}", row), text, before)
        except UserError as error:
            raise UserError(f"soft_targets: column {path!r} of record {row.get('id', '?')!r}: {error}") from None
