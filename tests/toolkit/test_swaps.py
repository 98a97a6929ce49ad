"""Whose text a row gets, against a plain search for the best assignment there is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.swaps import Row, exchanged

PLACES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=9)


def rows_of(places: list[tuple[str, int]]) -> list[Row]:
    return [{"id": f"r{place}", "question": f"Q{question}"} for place, (_, question) in enumerate(places)]


def may(places: list[tuple[str, int]], taker: int, giver: int) -> bool:
    return places[taker][0] != places[giver][0] and places[taker][1] != places[giver][1]


def most_served(places: list[tuple[str, int]]) -> int:
    """Return how many rows can have a text of their own: Kuhn's algorithm, a row at a time."""
    taker_of: dict[int, int] = {}

    def serve(taker: int, seen: set[int]) -> bool:
        for giver in range(len(places)):
            if may(places, taker, giver) and giver not in seen:
                seen.add(giver)
                if giver not in taker_of or serve(taker_of[giver], seen):
                    taker_of[giver] = taker
                    return True
        return False

    return sum(serve(taker, set()) for taker in range(len(places)))


@given(PLACES, st.integers(0, 3))
def test_as_many_texts_are_given_as_can_be_and_everybody_who_can_have_one_has(
    places: list[tuple[str, int]], seed: int
) -> None:
    rows = rows_of(places)
    partners = exchanged(rows, [kind for kind, _ in places], seed)
    found = {int(taker[1:]): int(giver["id"][1:]) for taker, giver in partners.items()}
    assert all(may(places, taker, giver) for taker, giver in found.items())
    size = range(len(places))
    assert set(found) == {taker for taker in size if any(may(places, taker, giver) for giver in size)}
    assert len(set(found.values())) == most_served(places)


@pytest.mark.parametrize("seed", range(6))
def test_a_text_is_traded_along_a_chain_where_nobody_would_be_served_otherwise(seed: int) -> None:
    """r0 can have r3's text alone, and r1 either r2's or r3's: whoever comes first, both are served."""
    places = [("a", 0), ("a", 1), ("b", 0), ("b", 2)]
    partners = exchanged(rows_of(places), [kind for kind, _ in places], seed)
    assert {taker: giver["id"] for taker, giver in partners.items() if taker < "r2"} == {"r0": "r3", "r1": "r2"}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_given_again_is_given_as_often_as_anything_else(seed: int) -> None:
    places = [("a", place) for place in range(7)] + [("b", place) for place in range(7, 10)]
    partners = exchanged(rows_of(places), [kind for kind, _ in places], seed)
    given_to = Counter(giver["id"] for giver in partners.values())
    assert sorted(given_to[f"r{place}"] for place in range(7, 10)) == [2, 2, 3]
    assert sum(given_to[f"r{place}"] for place in range(7)) == 3


def test_without_rows_or_without_another_kind_nobody_has_a_partner() -> None:
    assert exchanged([], [], 0) == {}
    assert exchanged(rows_of([("a", 0), ("a", 1)]), ["a", "a"], 0) == {}
