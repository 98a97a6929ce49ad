"""Draws are fair, and a function of their key alone."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from toolkit.draws import number, numbers, order, some


def test_a_number_is_the_digest_of_its_key() -> None:
    digest = hashlib.shake_256(b'["mask", 3, "q\\u00e9#1"]').digest(16)
    assert numbers(2, "mask", 3, "qé#1") == [int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")]


def test_one_number_is_the_first_of_several() -> None:
    assert [number("a", n) for n in range(3)] == [numbers(5, "a", n)[0] for n in range(3)]


def test_some_positions_are_drawn_by_the_numbers_of_the_key() -> None:
    """Fisher and Yates: the place to be swapped with is the number's remainder by the places that are left."""
    first, second = numbers(2, "key")
    left = [0, 1, 2, 3]
    drawn = [left.pop(first % 4)]
    if drawn[0] != 0:  # what stood first has taken the place of what was drawn
        left = [0 if each == 0 else each for each in left]
        left.remove(0)
        left.insert(drawn[0] - 1, 0)
    drawn.append(left[second % 3])
    assert some(2, 4, "key") == drawn


def test_an_order_is_that_of_the_numbers_drawn() -> None:
    drawn = numbers(6, "key", 1)
    assert [drawn[place] for place in order(6, "key", 1)] == sorted(drawn)


def test_keys_of_other_parts_are_other_keys() -> None:
    assert len({number("a", "b", 1), number("ab", 1), number("a", "b1"), number("a", "b", "1")}) == 4


@given(st.integers(0, 40), st.text(max_size=5))
def test_more_numbers_of_a_key_begin_with_the_fewer(count: int, name: str) -> None:
    assert numbers(count + 3, name)[:count] == numbers(count, name)


@given(st.integers(0, 200), st.integers())
def test_an_order_holds_every_position_once(count: int, seed: int) -> None:
    assert sorted(order(count, seed)) == list(range(count))


def test_every_order_is_as_likely() -> None:
    seen = Counter(tuple(order(3, "record", record)) for record in range(6000))
    # Chi-square with 5 degrees of freedom: above 20.5 once in 1,000 keys, and these keys are fixed.
    assert len(seen) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in seen.values()) < 20.5


@given(st.integers(0, 30), st.integers(0, 30), st.integers())
def test_some_positions_are_drawn_once_each(wanted: int, count: int, seed: int) -> None:
    drawn = some(wanted, count, seed)
    assert len(drawn) == len(set(drawn)) == min(wanted, count)
    assert set(drawn) <= set(range(count))


def test_every_draw_of_some_is_as_likely() -> None:
    seen = Counter(tuple(some(2, 4, "record", record)) for record in range(6000))
    # Chi-square with 11 degrees of freedom: above 31.3 once in 1,000 keys, and these keys are fixed.
    assert len(seen) == 12
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 31.3
