"""Random draws that are a function of what they are for: a seed and names, never of an order or of Python's hash.

Ground floor. Every selector and transform draws from here, so that a record's draw is the same in any epoch, on any
process and beside any other records.
"""

from __future__ import annotations

import hashlib
import json

BITS = 64
"""Bits of a drawn number."""


def numbers(count: int, *key: str | int) -> list[int]:
    """Return `count` independent numbers, uniform from 0 to 2**64 - 1; more numbers of a key begin with the fewer."""
    stream = hashlib.shake_256(json.dumps(key).encode()).digest(count * BITS // 8)
    return [int.from_bytes(stream[start : start + BITS // 8], "big") for start in range(0, len(stream), BITS // 8)]


def number(*key: str | int) -> int:
    """Return one such number: the smallest of several names' is a fair draw of a name."""
    return numbers(1, *key)[0]


def some(wanted: int, count: int, *key: str | int) -> list[int]:
    """Return `wanted` of the positions 0 to `count` - 1, or all where there are fewer, in a uniformly drawn order."""
    moved: dict[int, int] = {}
    drawn = []
    for first, number_ in enumerate(numbers(min(wanted, count), *key)):
        taken = first + number_ % (count - first)
        drawn.append(moved.get(taken, taken))
        moved[taken] = moved.get(first, first)
    return drawn


def order(count: int, *key: str | int) -> list[int]:
    """Return a uniformly drawn order of the positions 0 to `count` - 1."""
    drawn = numbers(count, *key)
    return sorted(range(count), key=drawn.__getitem__)
