"""Which rows of a question a view sees: a function of the rows, never of their order."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolkit.draws import number
from toolkit.errors import UserError
from toolkit.selection import Select, balanced_draw, selected

SELECTS = [
    Select(),
    Select(draw="first"),
    Select(draw="random", k=2),
    Select(draw="diverse", k=2, text="chain.text"),
    Select(draw="balanced", where="chain.right"),
]
CHAINS = st.lists(st.tuples(st.integers(0, 3), st.text(alphabet="abcd ", max_size=9), st.booleans()), max_size=12)


def rows_of(chains: list[tuple[int, str, bool]]) -> list[dict[str, Any]]:
    return [
        {"id": f"q{question}#{place}", "question": f"Q{question}", "chain": {"text": text, "right": right}}
        for place, (question, text, right) in enumerate(chains)
    ]


def ids(select: Select, rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row, seen in zip(rows, selected(select, rows), strict=True) if seen]


def named(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "question": "Q"} for name in names]


@pytest.mark.parametrize("select", SELECTS, ids=lambda select: select.draw)
@given(chains=CHAINS, rng=st.randoms(use_true_random=False))
def test_what_is_selected_does_not_depend_on_the_order(select: Select, chains: Any, rng: Any) -> None:
    rows = rows_of(chains)
    assert sorted(ids(select, rng.sample(rows, len(rows)))) == sorted(ids(select, rows))


@pytest.mark.parametrize("select", SELECTS, ids=lambda select: select.draw)
@given(chains=CHAINS)
def test_a_question_keeps_what_it_has_up_to_what_is_drawn(select: Select, chains: Any) -> None:
    rows = rows_of(chains)
    limit = {"first": 1, "random": 2, "diverse": 2}.get(select.draw, len(rows))
    there = Counter(row["question"] for row in rows if not select.where or row["chain"]["right"])
    taken = Counter(row["question"] for row, seen in zip(rows, selected(select, rows), strict=True) if seen)
    assert taken == Counter({question: min(count, limit) for question, count in there.items()})


@given(CHAINS)
def test_a_condition_holds_before_anything_is_drawn(chains: Any) -> None:
    rows = rows_of(chains)
    right = [row for row in rows if row["chain"]["right"]]
    for draw in ({"draw": "first"}, {"draw": "random", "k": 1}, {"draw": "diverse", "k": 3, "text": "chain.text"}):
        assert ids(Select(where="chain.right", **draw), rows) == ids(Select(**draw), right)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("q7#10", "q7#2"), "q7#2"),
        (("q7#0", "q7"), "q7"),
        (("b", "a#x", "a#1"), "a#1"),
        (("q#02", "q#2"), "q#02"),
    ],
)
def test_the_first_is_the_one_that_people_would_count_first(names: tuple[str, ...], first: str) -> None:
    assert ids(Select(draw="first"), named(*names)) == [first]


def test_random_takes_every_pair_as_often_and_another_with_another_seed() -> None:
    rows = named("a", "b", "c", "d")
    seen = Counter(tuple(ids(Select(draw="random", k=2, seed=seed), rows)) for seed in range(1200))
    assert set(seen) == set(combinations("abcd", 2))
    # Chi-square with 5 degrees of freedom: above 20.5 once in 1,000 runs of seeds, and these are fixed.
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 20.5


@given(st.integers(1, 4))
def test_fewer_random_rows_are_among_the_more(k: int) -> None:
    rows = named(*"abcdef")
    assert set(ids(Select(draw="random", k=k), rows)) < set(ids(Select(draw="random", k=k + 1), rows))


def test_diverse_by_hand() -> None:
    texts = {"q#0": "a b c d", "q#1": "A B c e", "q#2": "x y", "q#3": "x y z", "q#10": "a b x"}
    rows = [{"id": name, "question": "Q", "text": text} for name, text in reversed(texts.items())]
    # From q#0: 1 - 3/5, 1, 1, 1 - 2/5. q#2 and q#3 are equally far, and q#2 is the first by id. Then the distance
    # from the nearest taken: q#1 2/5, q#3 1 - 2/3, q#10 min(3/5, 1 - 1/4) = 3/5.
    for k, taken in (
        (1, ["q#0"]),
        (2, ["q#0", "q#2"]),
        (3, ["q#0", "q#2", "q#10"]),
        (4, ["q#0", "q#1", "q#2", "q#10"]),
    ):
        assert sorted(ids(Select(draw="diverse", k=k, text="text"), rows)) == sorted(taken)


def test_diverse_texts_of_a_script_without_spaces_differ_by_their_words() -> None:
    texts = {"q#0": "共有十二个苹果", "q#1": "共有十三个苹果", "q#2": "答案是九", "q#3": "की किताब"}
    rows = [{"id": name, "question": "Q", "text": text} for name, text in texts.items()]
    # From q#0: q#1 shares 6 of 8 words, the others none; of the whole texts as words, all would be equally far.
    assert sorted(ids(Select(draw="diverse", k=3, text="text"), rows)) == ["q#0", "q#2", "q#3"]


def test_random_rows_are_those_of_the_smallest_numbers_drawn_for_their_ids() -> None:
    names = [*"abcdef"]
    smallest = sorted(names, key=lambda name: number("random", 7, name))[:3]
    assert ids(Select(draw="random", k=3, seed=7), named(*names)) == sorted(smallest)


def test_the_row_of_an_epoch_is_that_of_the_smallest_number_drawn_for_it() -> None:
    names = ["q#0", "q#1", "q#2", "q#3"]
    drawn = [balanced_draw(3, epoch, "Q", names) for epoch in range(20)]
    assert drawn == [min(names, key=lambda name: number("balanced", 3, epoch, "Q", name)) for epoch in range(20)]


def test_words_are_told_apart_in_no_case_and_by_how_many_are_shared_of_all() -> None:
    texts = {"a": "one two", "b": "ONE Two", "c": "one two three", "d": "one"}
    rows = [{"id": name, "question": "Q", "text": text} for name, text in texts.items()]
    # From a: b 0, c 1 - 2/3, d 1 - 1/2. From d: c 1 - 1/3, but it is nearer to a.
    assert [ids(Select(draw="diverse", k=k, text="text"), rows) for k in (1, 2, 3, 4, 5)] == [
        ["a"],
        ["a", "d"],
        ["a", "c", "d"],
        ["a", "b", "c", "d"],
        ["a", "b", "c", "d"],
    ]


def test_ids_that_are_numbers_are_compared_as_text() -> None:
    rows = [{"id": number_, "question": "Q"} for number_ in (10, 9)]
    assert [row["id"] for row, seen in zip(rows, selected(Select(draw="first"), rows), strict=True) if seen] == [10]


def test_texts_without_words_are_alike() -> None:
    rows = [{"id": name, "question": "Q", "text": text} for name, text in (("a", ""), ("b", " "), ("c", "x"))]
    assert ids(Select(draw="diverse", k=2, text="text"), rows) == ["a", "c"]
    rows = [{"id": name, "question": "Q", "text": text} for name, text in (("a", "x"), ("b", "x"), ("c", ""))]
    assert ids(Select(draw="diverse", k=2, text="text"), rows) == ["a", "c"], "and unlike those with words"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"draw": "random"}, "random needs 'k'"),
        ({"draw": "diverse", "k": 2}, "diverse needs 'text'"),
        ({"draw": "first", "k": 2}, "'k' goes with draw: random or diverse only"),
        ({"draw": "random", "k": 2, "text": "t"}, "'text' goes with draw: diverse only"),
        ({"draw": "random", "k": 0}, "greater than or equal to 1"),
        ({"draw": "last"}, "Input should be"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Select(**fields)


def test_settings_within_others_are_read_as_they_stand() -> None:
    read = TypeAdapter(list[Select]).validate_python([{"draw": "random", "k": 2, "seed": 3}])
    assert read == [Select(draw="random", k=2, seed=3)]


def test_a_condition_that_is_null_is_not_true() -> None:
    rows = [{"id": "a", "question": "Q", "right": None}, {"id": "b", "question": "Q", "right": True}]
    assert ids(Select(where="right"), rows) == ["b"]


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (Select(where="rihgt"), "no column 'rihgt'.*did you mean 'right'"),
        (Select(where="right"), "column 'right' holds 1 in record 'a'; allowed true or false"),
        (Select(draw="diverse", k=1, text="text"), "column 'text' holds None in record 'a'; allowed text"),
    ],
)
def test_a_column_that_cannot_be_selected_by_is_a_mistake(select: Select, message: str) -> None:
    with pytest.raises(UserError, match=message):
        selected(select, [{"id": "a", "question": "Q", "right": 1, "text": None}])


@given(st.permutations(["q#0", "q#1", "q#2"]), st.integers(0, 5), st.integers(0, 5))
def test_the_row_of_an_epoch_does_not_depend_on_the_order(names: list[str], seed: int, epoch: int) -> None:
    assert balanced_draw(seed, epoch, "Q", names) == balanced_draw(seed, epoch, "Q", ["q#0", "q#1", "q#2"])


@pytest.mark.parametrize("varied", ["seed", "epoch", "question"])
def test_every_row_of_a_question_is_shown_as_often(varied: str) -> None:
    names = ["q#0", "q#1", "q#2", "q#3"]
    key: dict[str, Any] = {"seed": 0, "epoch": 0, "question": "Q"}
    seen = Counter(
        balanced_draw(**{**key, varied: f"Q{i}" if varied == "question" else i}, ids=names) for i in range(2000)
    )
    # Chi-square with 3 degrees of freedom: above 16.3 once in 1,000 runs, and this one is fixed.
    assert sum((seen[name] - 500) ** 2 / 500 for name in names) < 16.3


def test_two_epochs_in_a_row_are_independent() -> None:
    names = ["q#0", "q#1", "q#2"]
    drawn = [balanced_draw(0, epoch, "Q", names) for epoch in range(1801)]
    pairs = Counter(pairwise(drawn))
    # Chi-square with 8 degrees of freedom: above 26.1 once in 1,000 runs, and this one is fixed.
    assert len(pairs) == 9
    assert sum((count - 200) ** 2 / 200 for count in pairs.values()) < 26.1


def test_a_question_weighs_as_many_rows_as_it_has_or_one() -> None:
    sizes = {"Q0": 1, "Q1": 2, "Q2": 5}
    rows = [{"id": f"{q}#{sample}", "question": q} for q, size in sizes.items() for sample in range(size)]
    epochs = 500
    flattened = Counter(row["question"] for row, seen in zip(rows, selected(Select(), rows), strict=True) if seen)
    assert flattened == Counter(sizes)
    groups: dict[str, list[str]] = {}
    for row, seen in zip(rows, selected(Select(draw="balanced"), rows), strict=True):
        groups.setdefault(row["question"], []).extend([row["id"]] * seen)
    shown = Counter(balanced_draw(0, epoch, q, names) for epoch in range(epochs) for q, names in groups.items())
    for question, size in sizes.items():
        counts = [shown[name] for name in groups[question]]
        assert len(counts) == size
        assert sum(counts) == epochs
        # Four standard deviations of a count; the seed is fixed.
        assert all(abs(count - epochs / size) <= 4 * (epochs / size) ** 0.5 for count in counts)
