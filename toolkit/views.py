"""What the student sees of a record: a prompt and an ordered list of target segments, as text.

Templates work both ways: `fill` writes a record's columns into one, `read_back` finds them again in what a student
has written, so that a later prompt can take them. Training and decoding share these strings and no others.

Ground floor: knows templates and records, no tokenizer and no loss. What a template takes from a record is
inserted as it is and never read as a template again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolkit.errors import UserError, nearest
from toolkit.problem_values import is_missing
from toolkit.soft_targets import TeacherToken

_PATH = r"[A-Za-z_]\w*(?:\.\w+)*"
_BARE = re.compile(_PATH)
_EACH = re.compile(r"([A-Za-z_]\w*) in ([A-Za-z_]\w*)")
_PIECES = re.compile(r"\{\{|\}\}|\{(" + _PATH + r")\}|([{}])|([^{}]+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a template: literal text, or the dotted path of a column."""

    text: str
    is_column: bool


@lru_cache(maxsize=512)
def parse(template: str) -> tuple[Piece, ...]:
    """Split a template into literals and column paths.

    `{right.rationale}` is a column, `{{` and `}}` are braces, and a template that is nothing but a path
    (`question`) means that column.

    Raises:
        UserError: A brace without its partner, or braces around something that is no column path.
    """
    if _BARE.fullmatch(template):
        return (Piece(template, True),)
    pieces: list[Piece] = []
    for match in _PIECES.finditer(template):
        column, stray, literal = match.groups()
        if stray:
            around = template[max(0, match.start() - 10) : match.end() + 20]
            raise UserError(
                f"template has a stray {stray!r} near {around!r}; "
                "a column is written {question} or {right.rationale}, a brace is doubled: {{ }}"
            )
        pieces.append(Piece(column, True) if column else Piece(literal or match.group()[0], False))
    return tuple(pieces)


def columns(template: str) -> list[str]:
    """Return the column paths a template takes, in order."""
    return [piece.text for piece in parse(template) if piece.is_column]


def literals(template: str) -> str:
    """Return what a template writes itself, whatever the record: its literal texts, one per line."""
    return "\n".join(piece.text for piece in parse(template) if not piece.is_column)


def role(template: str) -> str:
    """Return a segment's role: the last part of its first column's path, or `marker` where it has none."""
    paths = columns(template)
    return paths[0].rsplit(".", 1)[-1] if paths else "marker"


def lookup(row: Mapping[str, Any], path: str) -> Any:
    """Follow a dotted path through nested mappings; through a list it leads to the list of what each item has there.

    Raises:
        UserError: A part of the path is not there; names it and the nearest one that is.
    """
    value: Any = row
    parts = path.split(".")
    for place, part in enumerate(parts):
        if isinstance(value, list):
            rest = ".".join(parts[place:])
            return [lookup(item, rest) for item in value]
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            raise UserError(f"no column {path!r}: {part!r} is not one of {known}{nearest(part, known)}")
        value = value[part]
    return value


def fill(template: str, row: Mapping[str, Any], instead: Mapping[str, str] | None = None) -> str:
    """Render a template from a record; a column that is null there is an error, not the text `None`.

    A column of several values, such as `{steps.question}`, gives them one per line.

    Args:
        template: The template.
        row: The record.
        instead: Texts that stand in for columns, by path: what a transform made of them.

    Raises:
        UserError: An unknown column, or one without a value in this record.
    """
    parts: list[str] = []
    for piece in parse(template):
        if not piece.is_column:
            parts.append(piece.text)
            continue
        value = instead[piece.text] if instead and piece.text in instead else lookup(row, piece.text)
        values = value if isinstance(value, list) else [value]
        if any(is_missing(one) for one in values):
            raise UserError(f"column {piece.text!r} has no value in record {row.get('id', '?')!r}")
        for found in (one for one in values if isinstance(one, Mapping | list | bytes)):
            inner = f"; name one of its keys: {list(found)}" if isinstance(found, Mapping) else ""
            raise UserError(f"column {piece.text!r} holds a {type(found).__name__}, not a text or number{inner}")
        parts.append("\n".join(map(str, values)))
    return "".join(parts)


def read_back(templates: Sequence[str], text: str) -> dict[str, str]:
    """Find the columns of some templates, written one after the other, in a text: the inverse of `fill`.

    A column ends where the literal text behind it first occurs, the last one with the text; a literal that closes the
    templates is cut off. In a text that keeps to the templates as far as it goes, the columns it does not reach are
    left out.

    Args:
        templates: Templates of a target's segments, in order.
        text: What was written in their form.
    """
    pieces = joined(templates)
    values: dict[str, str] = {}
    position = 0
    if pieces and not pieces[0].is_column:
        opening = pieces.pop(0).text
        # SentencePiece decodes a text without the space before it; and who leaves the marker out has still written
        # what follows.
        forms = (opening, opening.lstrip(" "))
        given = next((form for form in forms if form and text.startswith(form)), "")
        position = len(given) or len(text) - len(text.lstrip())
    for place, piece in enumerate(pieces):
        if not piece.is_column:
            continue
        behind = pieces[place + 1].text if place + 1 < len(pieces) and not pieces[place + 1].is_column else ""
        is_last = place + 1 + bool(behind) >= len(pieces)
        end = -1 if is_last or not behind else text.find(behind, position)
        if end >= 0:
            values.setdefault(piece.text, text[position:end])
            position = end + len(behind)
            continue
        values.setdefault(piece.text, text[position:].removesuffix(behind))
        break
    return values


def ambiguity(templates: Sequence[str], row: Mapping[str, Any], instead: Mapping[str, str] | None = None) -> str | None:
    """Return why a record's columns could not be read back from what these templates make of it, None if they can.

    A rationale that holds the answer phrase is split at the wrong one; a sub-question of two lines is two.
    Columns between which nothing stands, or a space alone, are the recipe's own choice and pass.

    Args:
        templates: Of a target's segments, in order.
        row: The record.
        instead: As in `fill`.
    """
    pieces = joined(templates)
    for piece, behind in zip(pieces, [*pieces[1:], Piece("", False)], strict=True):
        if not piece.is_column:
            continue
        value = instead[piece.text] if instead and piece.text in instead else lookup(row, piece.text)
        values = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if isinstance(value, list) and any("\n" in one for one in values):
            return f"{piece.text} holds a line break, which parts its values"
        is_last = behind is pieces[-1] or not behind.text
        parts = not behind.is_column and (behind.text.strip() or "\n" in behind.text)
        if parts and not is_last and any(behind.text in one for one in values):
            return f"{piece.text} holds the text that ends it, {behind.text!r}"
    return None


def joined(templates: Sequence[str]) -> list[Piece]:
    """Return the pieces of some templates as those of one, neighbouring literals joined."""
    pieces: list[Piece] = []
    for piece in (piece for template in templates for piece in parse(template)):
        if pieces and not piece.is_column and not pieces[-1].is_column:
            pieces[-1] = Piece(pieces[-1].text + piece.text, False)
        else:
            pieces.append(piece)
    return pieces


def parse_each(each: str) -> tuple[str, str]:
    """Return the item's name and the list's name of an `each` like `step in steps`.

    Raises:
        UserError: It is not of this form.
    """
    found = _EACH.fullmatch(each)
    if not found:
        raise UserError(f"found {each!r}, allowed 'ITEM in COLUMN', e.g. 'step in steps'")
    return found[1], found[2]


def items(row: Mapping[str, Any], each: str, before: str | None) -> Iterator[dict[str, Any]]:
    """Give the row once for each item of a list column, the item under its own name.

    Args:
        row: The record.
        each: `step in steps`.
        before: Template of an earlier item; all of them, one after the other, are the column `before`.
    """
    name, path = parse_each(each)
    told = ""
    shown: dict[str, Any] | None = None
    for item in lookup(row, path) or ():
        # An item is told of when the next one is shown, not sooner: one that is being written has no answer yet.
        told += fill(before, shown) if before and shown else ""
        shown = {**row, name: item, "before": told}
        yield shown


@dataclass(frozen=True, slots=True)
class Segment:
    """A rendered piece of a target.

    Attributes:
        text: As the student reads or writes it.
        role: What the piece is.
        weight: Factor of its tokens' weights; 0 is context that is never scored.
        rearrange: What is done to its token ids, for transforms whose unit is the student's token: (ids, function from
            a text to its ids) to ids.
        teacher: What a teacher thought likely at its tokens, in characters of the text; None where every token is to be
            just what the text says.
    """

    text: str
    role: str
    weight: float = 1.0
    rearrange: Callable[[Sequence[int], Callable[[str], Sequence[int]]], list[int]] | None = None
    teacher: tuple[TeacherToken, ...] | None = None


@dataclass(frozen=True, slots=True)
class RenderedView:
    """A record as one view shows it.

    Attributes:
        prompt: What is given.
        target: What is to be written, in order.
        row_weight: Factor of its tokens' weights.
        literals: What of all this its templates wrote, as of `literals`; the rest is the record's.
    """

    prompt: str
    target: tuple[Segment, ...]
    row_weight: float = 1.0
    literals: str = ""
