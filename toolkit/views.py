"""What the student sees of a record: a prompt and an ordered list of target segments, as text.

Ground floor: knows templates and records, no tokenizer and no loss. What a template takes from a record is
inserted as it is and never read as a template again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolkit.errors import UserError, nearest

_PATH = r"[A-Za-z_]\w*(?:\.\w+)*"
_BARE = re.compile(_PATH)
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


def role(template: str) -> str:
    """Return a segment's role: the last part of its first column's path, or `marker` where it has none."""
    paths = columns(template)
    return paths[0].rsplit(".", 1)[-1] if paths else "marker"


def lookup(row: Mapping[str, Any], path: str) -> Any:
    """Follow a dotted path through nested mappings.

    Raises:
        UserError: A part of the path is not there; names it and the nearest one that is.
    """
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            raise UserError(f"no column {path!r}: {part!r} is not one of {known}{nearest(part, known)}")
        value = value[part]
    return value


def fill(template: str, row: Mapping[str, Any]) -> str:
    """Render a template from a record; a column that is null there is an error, not the text `None`.

    Raises:
        UserError: An unknown column, or one without a value in this record.
    """
    parts: list[str] = []
    for piece in parse(template):
        if not piece.is_column:
            parts.append(piece.text)
            continue
        value = lookup(row, piece.text)
        if value is None:
            raise UserError(f"column {piece.text!r} has no value in record {row.get('id', '?')!r}")
        parts.append(value if isinstance(value, str) else str(value))
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """A rendered piece of a target: its text, its role and its weight (0 = context that is never scored)."""

    text: str
    role: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RenderedView:
    """A record as one view shows it: the prompt and the target's segments in order."""

    prompt: str
    target: tuple[Segment, ...]


def render(prompt: str, target: Sequence[tuple[str, str | None, float]], row: Mapping[str, Any]) -> RenderedView:
    """Render a view of a record.

    Args:
        prompt: Template of the prompt.
        target: (template, role or None to infer it, weight) per segment.
        row: The record.
    """
    segments = tuple(Segment(fill(text, row), name or role(text), weight) for text, name, weight in target)
    return RenderedView(fill(prompt, row), segments)
