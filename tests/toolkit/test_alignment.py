"""Key steps against a plain dynamic programme, against edit.md's vectors, and as spans of text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.alignment import key_spans, key_steps, merge_spans, words


def distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Unit-cost Levenshtein distance by the textbook recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@pytest.mark.parametrize(
    ("right", "wrong", "key_right", "key_wrong"),
    [
        ("abcd", "axcd", "0100", "0100"),
        ("acd", "abcd", "000", "0100"),
        ("abcde", "xbxdx", "10101", "10101"),
        ("kitten", "sitting", "100010", "1000101"),
    ],
)
def test_published_vectors_with_one_optimum_come_out_exactly(
    right: str, wrong: str, key_right: str, key_wrong: str
) -> None:
    expected = ([bit == "1" for bit in key_right], [bit == "1" for bit in key_wrong])
    assert key_steps(right, wrong) == expected


def test_where_two_scripts_are_minimal_both_sides_come_from_the_same_one() -> None:
    # ab / ba: either b is moved to the front or a to the back; never one on each side (edit.md, section 4).
    assert key_steps("ab", "ba") in [([True, False], [False, True]), ([False, True], [True, False])]


sequences = st.lists(st.integers(-3, 3), max_size=14)


@given(right=sequences, wrong=sequences)
@example(right=[-1, 2], wrong=[-2, 2])  # hash(-1) == hash(-2)
def test_the_script_is_minimal_and_its_two_sides_agree(right: list[int], wrong: list[int]) -> None:
    key_right, key_wrong = key_steps(right, wrong)
    assert [t for t, key in zip(right, key_right, strict=True) if not key] == [
        t for t, key in zip(wrong, key_wrong, strict=True) if not key
    ]
    # With a common part untouched, a script with r flagged right and w flagged wrong tokens needs at least max(r, w)
    # operations, and exactly that many in each gap between kept tokens.
    gaps = zip(_gaps(key_right), _gaps(key_wrong), strict=True)
    assert sum(max(r, w) for r, w in gaps) == distance(right, wrong)


def _gaps(flags: list[bool]) -> list[int]:
    gaps = [0]
    for flag in flags:
        if flag:
            gaps[-1] += 1
        else:
            gaps.append(0)
    return gaps


@given(tokens=sequences)
def test_equal_chains_have_no_key_steps(tokens: list[int]) -> None:
    assert key_steps(tokens, list(tokens)) == ([False] * len(tokens), [False] * len(tokens))


@given(right=sequences)
def test_against_nothing_everything_is_key(right: list[int]) -> None:
    assert key_steps(right, []) == ([True] * len(right), [])


def test_tokens_of_unlike_types_may_be_mixed() -> None:
    assert key_steps(["a", 1, (2, 3)], ["a", "1", (2, 3)]) == ([False, True, False], [False, True, False])
    assert key_steps(["a"], [97]) == ([True], [True])  # rapidfuzz alone calls them equal
    assert key_steps([1, 2], [1.0, 3]) == ([False, True], [False, True])
    assert key_steps([2**61 - 1, 5], [0, 5]) == ([True, False], [True, False])  # of one type, and of one hash


class Word:
    """Equal to a text, though rapidfuzz, which takes letters by their code, does not see it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        return other == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def test_tokens_are_equal_where_python_says_so() -> None:
    assert key_steps([Word("a"), "b"], ["a", "c"]) == ([False, True], [False, True])
    assert key_steps([Word("a"), 1, "b"], ["a", "b"]) == ([False, True, False], [False, False])
    assert key_steps(["a", "b"], [Word("a"), 1, "b"]) == ([False, False], [False, True, False])


def test_only_neighbours_are_joined() -> None:
    spans = [(0, 2), (3, 5), (6, 8), (9, 11)]
    assert merge_spans(spans, [True, True, False, True]) == [(0, 5), (9, 11)]
    assert merge_spans(spans, [False, True, False, True]) == [(3, 5), (9, 11)]
    assert merge_spans(spans, [True, False, True, True]) == [(0, 2), (6, 11)]


def test_spans_cover_the_changed_words_and_the_space_between_them() -> None:
    right = "Start at 5. Add 3: 5 + 3 = 8."
    wrong = "Start at 5. Add 3: 5 + 3 = 9."
    spans = key_spans(right, wrong)
    assert [right[s:e] for s, e in spans[0]] == ["8"]
    assert [wrong[s:e] for s, e in spans[1]] == ["9"]
    spans = key_spans("go to the red house now", "go to now")
    assert spans == ([(6, 19)], [])


@given(st.text(max_size=80))
def test_words_are_ordered_and_leave_out_space_alone(text: str) -> None:
    spans = words(text)
    covered = "".join(text[s:e] for s, e in spans)
    assert covered == "".join(character for character in text if not character.isspace())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
