"""Single values of rows as text: a number as its source wrote it, and nothing made of what is missing."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from toolkit.errors import UserError


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or not a number, which is how tables of numbers keep null."""
    if isinstance(value, Decimal):
        return value.is_nan()  # a signalling one cannot be compared
    return value is None or (isinstance(value, numbers.Number) and bool(value != value))


def clean(text: str, column: str) -> str:
    """Return text that can be kept and sent.

    Raises:
        UserError: It holds a NUL byte or half a character.
    """
    if "\0" in text:
        raise UserError(f"column {column!r} holds a NUL byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"column {column!r} is not valid Unicode (a lone surrogate)") from None
    return text


def written(value: Any, column: str) -> str:
    """Return a value as text: true is yes, 51.0 is 51, a float of 32 bits has the digits that it was written with.

    Raises:
        UserError: It is no text, number or truth value, or an infinite one.
    """
    value = plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | Decimal):
        number = Decimal(repr(value)) if isinstance(value, float) else value
        if not number.is_finite():
            raise UserError(f"column {column!r} holds {value}, which is no answer")
        # A float has no writing of its own, so 51.0 is 51; a decimal has, and 3.30 stays 3.30.
        is_whole = isinstance(value, float) and number == number.to_integral_value()
        return f"{number.to_integral_value() if is_whole else number:f}".removeprefix("-" if not number else "")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"column {column!r} holds a {type(value).__name__}, not a text or number")
    return clean(value, column).strip()


def plain(value: Any) -> Any:
    """Return a number of numpy as one of Python, with the digits that numpy shows; anything else as it is."""
    if not hasattr(value, "dtype") or value.ndim:
        return value
    return float(str(value)) if isinstance(value.item(), float) else value.item()


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, as a hook of `json.loads`.

    Raises:
        ValueError: A key is there twice, of which Python would keep the last without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found
