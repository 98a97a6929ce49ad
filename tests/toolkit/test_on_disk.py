from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.on_disk import DiskCounter, DiskList
from toolkit.problem import Problem

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.lists(values, max_size=8))
@settings(max_examples=50, deadline=None)
def test_a_list_on_disk_is_that_list(items: list[Any]) -> None:
    listed = DiskList(items)

    assert list(listed) == items
    assert len(listed) == len(items)
    assert bool(listed) == bool(items)
    assert listed[1:-1] == items[1:-1]
    assert [listed[-1 - place] for place in range(len(items))] == items[::-1]


def test_a_list_may_be_appended_to_and_read_in_turns_and_by_several_at_once() -> None:
    listed = DiskList[Problem]()
    for number in range(3):
        listed.append(Problem(str(number), "task", "?", "!", choices=("a", "b")))
        assert listed[number].id == str(number)

    assert [(one.id, other.id) for one, other in zip(listed, listed, strict=True)] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "2"),
    ]
    assert listed[0] == Problem("0", "task", "?", "!", choices=("a", "b"))


def test_a_place_that_is_none_is_an_error() -> None:
    with pytest.raises(IndexError):
        DiskList("ab")[2]


def test_changing_what_was_read_changes_nothing() -> None:
    listed = DiskList([{"a": 1}])
    listed[0]["a"] = 2

    assert listed[0] == {"a": 1}


@given(st.lists(st.tuples(st.text(max_size=1), st.none() | st.text(max_size=1)), max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_counter_on_disk_counts(told: list[tuple[str, str | None]]) -> None:
    counter, plain = DiskCounter(), Counter[Any]()

    counts = []
    for what in told:
        plain[what] += 1
        counts.append(plain[what])
    assert [counter.count(*what) for what in told] == counts


def test_a_counter_remembers_the_first_note() -> None:
    counter = DiskCounter()

    assert [counter.note(note, "x") for note in ("first", "second")] == [(1, "first"), (2, "first")]
    assert counter.note("third", "\ud800") == (1, "third")
