"""What a transform keeps and what it changes, for any text and any rows."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolkit.draws import numbers, order
from toolkit.errors import UserError
from toolkit.transform_settings import (
    Keep,
    Mask,
    RandomWords,
    RemoveAnswer,
    Shuffle,
    Swap,
    Transform,
    Truncate,
    by_token,
    check_order,
)
from toolkit.transforms import Swapped, Unusable, prepare, rearrange

TEXTS = st.text(alphabet="ab.é\n\t  ", min_size=1, max_size=60).filter(str.strip)
IDS = st.text(alphabet="q01#", min_size=1, max_size=4)


def transformed(text: str, *transforms: Transform, record: str = "q1", **columns: Any) -> str:
    """Return a text after transforms that need no other row."""
    row = {"id": record, "question": "Q", "text": text, **columns}
    return prepare(transforms, "text", [row])(row, text)


def layout(text: str) -> list[str]:
    return re.split(r"\S+", text)


def read(settings_: dict[str, Any]) -> Transform:
    transform: Transform = TypeAdapter(Transform).validate_python(settings_, strict=True)
    return transform


# Settings


@pytest.mark.parametrize(
    ("kind", "settings_"),
    [
        (Shuffle, {"kind": "shuffle"}),
        (Mask, {"kind": "mask", "share": 0.4, "symbol": None}),
        (Mask, {"kind": "mask", "share": 1, "symbol": " a mask", "unit": "token"}),
        (Swap, {"kind": "swap", "among": "same_label", "label": "chain.answer"}),
        (RandomWords, {"kind": "random_words", "frequency": "uniform"}),
        (Keep, {"kind": "keep", "by": "scores", "scores": "key_scores", "k": 15}),
        (RemoveAnswer, {"kind": "remove_answer"}),
        (Truncate, {"kind": "truncate", "words": 3, "keep": "tail"}),
    ],
)
def test_the_kind_says_which_settings_there_are(kind: type, settings_: dict[str, Any]) -> None:
    assert isinstance(read(settings_), kind)


@pytest.mark.parametrize(
    "settings_",
    [
        {"kind": "shufle"},
        {"kind": "shuffle", "unit": "letter"},
        {"kind": "mask"},
        {"kind": "mask", "share": 1.1},
        {"kind": "mask", "share": math.nan},
        {"kind": "mask", "share": 0.5, "symbol": "two words"},
        {"kind": "mask", "share": 0.5, "symbol": ""},
        {"kind": "keep", "by": "first"},
        {"kind": "keep", "by": "first", "k": 0},
        {"kind": "keep", "by": "scores", "k": 2},
        {"kind": "keep", "by": "tfidf", "k": 2, "scores": "key_scores"},
        {"kind": "truncate", "words": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read(settings_)


# Shuffle


@given(TEXTS, IDS, st.integers(0, 3))
def test_a_shuffle_keeps_the_words_their_number_and_the_white_space(text: str, record: str, seed: int) -> None:
    shown = transformed(text, Shuffle(seed=seed), record=record)
    assert Counter(shown.split()) == Counter(text.split())
    assert layout(shown) == layout(text)


def test_every_order_of_the_words_is_as_likely_and_depends_on_the_record() -> None:
    seen = Counter(transformed("a b c", Shuffle(), record=f"q{i}") for i in range(3000))
    assert set(seen) == {" ".join(order) for order in permutations("abc")}
    # Chi-square with 5 degrees of freedom: above 20.5 for one seed in 1,000, and this seed is fixed.
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 20.5


LONG = " ".join(map(str, range(40)))


@pytest.mark.parametrize(
    "other", [{"transform": Shuffle(seed=1)}, {"record": "q2"}, {"path": "other"}], ids=["seed", "record", "column"]
)
def test_another_seed_record_or_column_is_another_order(other: dict[str, Any]) -> None:
    def shown(transform: Transform = Shuffle(), record: str = "q1", path: str = "text") -> str:  # noqa: B008
        row = {"id": record, "question": "Q", path: LONG}
        return prepare([transform], path, [row])(row, LONG)

    assert shown(**other) != shown() == shown()


# Mask


@given(TEXTS, st.floats(0, 1), st.floats(0, 1), st.integers(0, 3))
def test_a_mask_covers_its_share_and_what_a_smaller_share_covers(text: str, one: float, two: float, seed: int) -> None:
    low, high = sorted((one, two))
    masked = []
    for share in (low, high):
        shown = transformed(text, Mask(share=share, symbol="_", seed=seed))
        assert layout(shown) == layout(text)
        pairs = list(zip(shown.split(), text.split(), strict=True))
        assert all(new in ("_", old) for new, old in pairs)
        masked.append({place for place, (new, _) in enumerate(pairs) if new == "_"})
        assert len(masked[-1]) == round(share * len(pairs))
    assert masked[0] <= masked[1]


@given(TEXTS)
def test_a_share_of_nothing_changes_nothing_and_a_whole_one_leaves_no_word(text: str) -> None:
    for symbol in ("_", None):
        assert transformed(text, Mask(share=0, symbol=symbol)) == text
    assert set(transformed(text, Mask(share=1)).split()) == {"_"}
    assert transformed(text, Mask(share=1, symbol=None)) == ""


@given(TEXTS, st.floats(0, 1))
def test_a_mask_without_symbol_drops_the_words_that_one_with_symbol_covers(text: str, share: float) -> None:
    covered = transformed(text, Mask(share=share, symbol="_")).split()
    assert transformed(text, Mask(share=share, symbol=None)).split() == [word for word in covered if word != "_"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("我有三个苹果。", "我有三"),
        ("答えは九です", "答えは"),
        ("คำตอบคือ 9", "คำต"),
        ("राम की किताब में", "राम की किताब"),
        ("e\u0301a b c d", "e\u0301a b c"),
        ("don't go 3.5 km", "don't go 3.5"),
    ],
)
def test_words_are_those_of_the_script(text: str, kept: str) -> None:
    assert transformed(text, Truncate(words=3)) == kept
    assert sorted(transformed(text, Shuffle())) == sorted(text)
    assert transformed(text, Mask(share=0)) == text


def test_words_of_different_lines_stay_on_different_lines() -> None:
    assert transformed(" a\nb  c\n\nd\te ", Keep(by="scores", scores="s", k=3), s=[3, 0, 1, 0, 2]) == " a\nc\n\ne "


# Swap

GROUPS = st.lists(st.integers(1, 4), min_size=1, max_size=7)


def swap_rows(sizes: Sequence[int], labels: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{question}#{sample}",
            "question": f"Q{question}",
            "answer": f" {'ABC'[question % labels]}" if sample % 2 else f"{'abc'[question % labels]}",
            "text": f"text of q{question}#{sample}",
            "second": f"second of q{question}#{sample}",
        }
        for question, size in enumerate(sizes)
        for sample in range(size)
    ]


def swaps(swap: Swap, rows: Sequence[dict[str, Any]], path: str = "text") -> dict[str, str]:
    """Return by id of a row the id of its partner, without rows that have none."""
    apply = prepare([swap], path, rows)
    partners = {}
    for row in rows:
        try:
            partners[row["id"]] = apply(row, row[path]).rpartition(" ")[2]
        except Unusable:
            continue
    return partners


@given(GROUPS, st.sampled_from(["any", "same_label", "other_label"]), st.integers(0, 5))
def test_a_text_comes_from_another_question_and_from_the_right_label(sizes: list[int], among: Any, seed: int) -> None:
    rows = {row["id"]: row for row in swap_rows(sizes)}
    partners = swaps(Swap(among=among, seed=seed), list(rows.values()))
    # There is something to take wherever a row of another question has the label that is asked for.
    fits = {"any": lambda one, other: True, "same_label": operator.eq, "other_label": operator.ne}[among]
    labels = {name: row["answer"].strip().lower() for name, row in rows.items()}
    assert bool(partners) == any(
        rows[one]["question"] != rows[other]["question"] and fits(labels[one], labels[other])
        for one in rows
        for other in rows
    )
    for taker, giver in partners.items():
        assert rows[taker]["question"] != rows[giver]["question"]
        same = rows[taker]["answer"].strip().lower() == rows[giver]["answer"].strip().lower()
        assert among == "any" or same == (among == "same_label")


PLACED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6)


def may_give(rows: Sequence[dict[str, Any]], among: str) -> dict[str, set[str]]:
    """Return by id of a row the ids of all whose text it may get."""

    def fits(taker: dict[str, Any], giver: dict[str, Any]) -> bool:
        same = taker["answer"] == giver["answer"]
        return taker["question"] != giver["question"] and (among == "any" or same == (among == "same_label"))

    return {taker["id"]: {giver["id"] for giver in rows if fits(taker, giver)} for taker in rows}


def most_used_once(possible: dict[str, set[str]]) -> int:
    """Return how many rows can have a text of their own at most, by trying every assignment."""
    takers = list(possible)
    return max(
        sum(giver in possible[taker] for taker, giver in zip(takers, givers, strict=True))
        for givers in permutations(takers)
    )


@given(PLACED, st.sampled_from(["any", "same_label", "other_label"]), st.integers(0, 5))
def test_each_text_is_given_once_wherever_any_assignment_does_so(
    placed: list[tuple[int, int]], among: Any, seed: int
) -> None:
    rows = [
        {"id": f"r{place}", "question": f"Q{question}", "answer": f"{label}", "text": f"text of r{place}"}
        for place, (question, label) in enumerate(placed)
    ]
    possible = may_give(rows, among)
    partners = swaps(Swap(among=among, seed=seed), rows)
    assert partners.keys() == {taker for taker, givers in possible.items() if givers}
    assert all(giver in possible[taker] for taker, giver in partners.items())
    assert len(set(partners.values())) == most_used_once(possible)


@given(GROUPS, st.integers(0, 5))
def test_a_question_with_more_than_half_of_the_rows_gets_the_texts_of_the_others_equally_often(
    sizes: list[int], seed: int
) -> None:
    partners = swaps(Swap(seed=seed), swap_rows(sizes))
    assert len(partners) == (sum(sizes) if len(sizes) > 1 else 0)
    given_to = Counter(partners.values())
    excess = 2 * max(sizes) - sum(sizes)
    if excess <= 0:
        assert given_to == Counter(partners.keys())
    elif partners:
        others = sum(sizes) - max(sizes)
        majority = sizes.index(max(sizes))
        times = [given_to[f"q{q}#{i}"] for q, size in enumerate(sizes) if q != majority for i in range(size)]
        assert sum(times) == max(sizes)
        assert max(times) - min(times) <= 1
        assert sum(count == 1 for giver, count in given_to.items() if giver.startswith(f"q{majority}#")) == others


def test_of_two_labels_the_commoner_one_repeats_what_the_other_has_and_the_facts_say_so() -> None:
    rows = [
        {"id": f"r{place}", "question": f"Q{place}", "answer": "yes" if place < 7 else "no", "text": f"t{place}"}
        for place in range(10)
    ]
    prepared = prepare([Swap(among="other_label")], "text", rows)
    assert prepared.swapped == Swapped(texts=10, repeated=4, unchanged=0)  # 7 rows share 3 texts
    flipped = prepare([Swap(among="other_label")], "answer", rows)
    assert [flipped(row, row["answer"]) for row in rows] == ["no"] * 7 + ["yes"] * 3


def test_answers_swapped_without_regard_to_the_label_often_read_as_before() -> None:
    rows = [{"id": f"r{place}", "question": f"Q{place}", "answer": "yes" if place < 9 else "no"} for place in range(10)]
    prepared = prepare([Swap()], "answer", rows)
    # One `no` goes to a `yes` and gets one: the eight others are exchanged among themselves.
    assert prepared.swapped == Swapped(texts=10, repeated=0, unchanged=8)
    assert prepare([Truncate(words=1)], "answer", rows).swapped is None


def test_ten_thousand_rows_in_which_hardly_any_text_may_be_given_are_paired_in_a_moment() -> None:
    """One question, or one label: a search through all rows for each row would take minutes."""
    alike = [{"id": f"r{i}", "question": "Q", "answer": f"{i % 7}", "text": "t"} for i in range(10_000)]
    assert prepare([Swap(among="other_label")], "text", alike).swapped == Swapped()
    mostly = [{"id": f"r{i}", "question": f"Q{i}", "answer": f"{i > 9}", "text": "t"} for i in range(10_000)]
    swapped = prepare([Swap(among="other_label")], "text", mostly).swapped
    assert swapped == Swapped(texts=10_000, repeated=9_980, unchanged=10_000)


@given(GROUPS, st.randoms(use_true_random=False), st.sampled_from(["any", "same_label", "other_label"]))
def test_partners_do_not_depend_on_the_order_of_the_rows(sizes: list[int], rng: Any, among: Any) -> None:
    rows = swap_rows(sizes, labels=3)
    shuffled = rng.sample(rows, len(rows))
    assert swaps(Swap(among=among), shuffled) == swaps(Swap(among=among), rows)


@pytest.mark.parametrize("among", ["any", "other_label"])
def test_partners_are_spread_over_all_rows(among: Any) -> None:
    rows = swap_rows([1] * 6, labels=2)
    seen = Counter(swaps(Swap(among=among, seed=seed), rows)["q0#0"] for seed in range(1000))
    expected = 5 if among == "any" else 3
    assert len(seen) == expected
    # Chi-square with 4 (or 2) degrees of freedom: above 18.5 once in 1,000 runs of seeds, and these are fixed.
    assert sum((count - 1000 / expected) ** 2 / (1000 / expected) for count in seen.values()) < 18.5


def test_two_columns_that_are_swapped_with_one_seed_come_from_one_row() -> None:
    rows = swap_rows([1, 2, 3, 1])
    assert swaps(Swap(seed=4), rows, "text") == swaps(Swap(seed=4), rows, "second")


def test_rows_without_text_give_none_and_rows_without_label_get_none() -> None:
    rows = swap_rows([1, 1, 1, 1], labels=1)
    rows[1]["text"] = None
    rows[2]["answer"] = None
    assert swaps(Swap(among="same_label"), rows[::2] + rows[3:]) == {"q0#0": "q3#0", "q3#0": "q0#0"}
    apply = prepare([Swap(among="same_label")], "text", rows)
    with pytest.raises(Unusable, match="no label in column 'answer'"):
        apply(rows[2], rows[2]["text"])


def test_a_row_without_partner_is_unusable_for_a_reason_that_names_the_label() -> None:
    rows = swap_rows([1, 1, 1], labels=2)
    with pytest.raises(Unusable) as unusable:
        prepare([Swap(among="same_label")], "text", rows)(rows[1], rows[1]["text"])
    assert unusable.value.reason == "swap: there is no row of another question with the label 'b'"


def test_a_row_that_nobody_knew_of_has_no_partner_and_that_is_a_mistake() -> None:
    apply = prepare([Swap()], "text", swap_rows([1, 1]))
    with pytest.raises(UserError, match=r"'q9' is not among the 2 rows"):
        apply({"id": "q9", "question": "Q9", "text": "new"}, "new")


def test_ids_that_are_not_unique_find_no_partners() -> None:
    with pytest.raises(UserError, match="2 rows have 1 different ids"):
        prepare([Swap()], "text", [{"id": "q", "question": q, "text": "t"} for q in "ab"])


def test_what_follows_a_swap_acts_on_the_swapped_text() -> None:
    rows = swap_rows([1, 1])
    assert prepare([Swap(), Truncate(words=1, keep="tail")], "text", rows)(rows[0], rows[0]["text"]) == "q1#0"


# Random words


@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(["uniform", "unigram"]))
def test_random_words_are_as_many_and_of_the_column(texts: list[str], frequency: Any) -> None:
    rows = [{"id": f"q{place}", "question": "Q", "text": text} for place, text in enumerate(texts)]
    apply = prepare([RandomWords(frequency=frequency)], "text", rows)
    assert prepare([RandomWords(frequency=frequency)], "text", rows[::-1])(rows[0], texts[0]) == apply(
        rows[0], texts[0]
    )
    for row, text in zip(rows, texts, strict=True):
        shown = apply(row, text)
        assert layout(shown) == layout(text)
        assert set(shown.split()) <= set(" ".join(texts).split())


@pytest.mark.parametrize(("frequency", "share"), [("uniform", 1 / 2), ("unigram", 3 / 4)])
def test_words_are_drawn_alike_or_as_often_as_the_column_has_them(frequency: Any, share: float) -> None:
    rows = [{"id": "1", "question": "Q", "text": "often often"}, {"id": "2", "question": "Q", "text": "often rare"}]
    long = {"id": "3", "question": "Q", "text": "x " * 4000}
    shown = prepare([RandomWords(frequency=frequency)], "text", rows)(long, long["text"]).split()
    # Four standard deviations; the seed is fixed.
    assert abs(shown.count("often") / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)


# Keep


@given(TEXTS, st.integers(0, 30), st.sampled_from(["first", "random", "tfidf"]), st.integers(0, 3))
def test_the_kept_words_are_k_in_their_order(text: str, number: int, by: Any, seed: int) -> None:
    words = text.split()
    k = 1 + number % len(words)
    kept = transformed(text, Keep(by=by, k=k, seed=seed)).split()
    rest = iter(words)
    assert len(kept) == k
    assert all(word in rest for word in kept)


@given(TEXTS, st.sampled_from(["first", "random", "tfidf"]))
def test_a_text_of_k_words_is_kept_whole_and_one_of_fewer_is_unusable(text: str, by: Any) -> None:
    count = len(text.split())
    assert transformed(text, Keep(by=by, k=count)) == text
    with pytest.raises(Unusable) as unusable:
        transformed(text, Keep(by=by, k=count + 6))
    assert unusable.value.reason == f"keep: {count} words, k = {count + 6}"


@pytest.mark.parametrize(
    ("keep", "shown"),
    [
        (Keep(by="first", k=2), "a b"),
        (Keep(by="first", k=2, order="score"), "a b"),
        (Keep(by="scores", scores="s", k=3), "b d e"),
        (Keep(by="scores", scores="s", k=3, order="score"), "d b e"),
        (Keep(by="scores", scores="s", k=2), "b d"),
    ],
)
def test_the_highest_scores_are_kept_and_of_equal_ones_the_earlier(keep: Keep, shown: str) -> None:
    assert transformed("a b c d e", keep, s=[-1, 0.5, -9.0, 2, 0.5]) == shown


def test_random_words_that_are_kept_are_any_of_them() -> None:
    seen = Counter(transformed("a b c d", Keep(by="random", k=1), record=f"q{i}") for i in range(2000))
    assert len(seen) == 4
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 16.3  # chi-square, 3 degrees of freedom


def test_tf_idf_by_hand() -> None:
    texts = ["the cat cat sat.", "The dog sat", "the end the"]
    rows = [{"id": f"q{place}", "question": "Q", "text": text} for place, text in enumerate(texts)]
    # Of three rows, one has cat, two have sat, all have the: cat 2/4 ln(4/2), sat 1/4 ln(4/3), the 0.
    one, three = (prepare([Keep(by="tfidf", k=k, order="score")], "text", rows)(rows[0], texts[0]) for k in (1, 4))
    assert (one, three) == ("cat", "cat cat sat. the")
    # "new" is in no row: 1/3 ln 4 is more than 1/3 ln 2 of "dog" and 1/3 ln(4/3) of "SAT,".
    new = {"id": "q9", "question": "Q"}
    assert prepare([Keep(by="tfidf", k=3, order="score")], "text", rows[::-1])(new, "SAT, dog new") == "new dog SAT,"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "1 scores for 2 words"),
        ([1.0, math.nan], "no list of finite"),
        ("ab", "no list"),
        (["1", "2"], "no list"),
    ],
)
def test_scores_that_fit_no_text_are_a_mistake(scores: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        transformed("a b", Keep(by="scores", scores="s", k=1), s=scores)


def test_a_record_without_scores_is_unusable() -> None:
    with pytest.raises(Unusable, match="no scores in column 's'"):
        transformed("a b", Keep(by="scores", scores="s", k=1), s=None)


# Remove the answer, truncate


def test_the_answer_goes_as_letter_and_as_text_of_the_option() -> None:
    shown = transformed(
        "So (b) a park.", RemoveAnswer(answer="gold.letter"), gold={"letter": "B"}, choices=["x", "a park"]
    )
    assert shown == "So."


@pytest.mark.parametrize("answer", [None, " "])
def test_a_record_without_answer_is_unusable(answer: str | None) -> None:
    with pytest.raises(Unusable, match="no answer in column 'answer'"):
        transformed("a", RemoveAnswer(), answer=answer)


@given(TEXTS, st.integers(1, 12))
def test_a_text_is_cut_to_its_first_or_last_words(text: str, words: int) -> None:
    assert transformed(text, Truncate(words=words)).split() == text.split()[:words]
    assert transformed(text, Truncate(words=words, keep="tail")).split() == text.split()[-words:]
    assert transformed(text, Truncate(words=len(text.split()))) == text


# By the draws themselves


def test_words_and_tokens_are_moved_and_masked_by_the_orders_drawn_for_them() -> None:
    words, drawn = ["a", "b", "c", "d", "e"], order(5, "shuffle", 3, "q7", "text")
    assert transformed("a b c d e", Shuffle(seed=3), record="q7").split() == [words[place] for place in drawn]
    masked = set(order(5, "mask", 3, "q7", "text")[:2])  # 0.5 of five rounds to the even number
    shown = ["_" if place in masked else word for place, word in enumerate(words)]
    assert transformed("a b c d e", Mask(share=0.5, seed=3), record="q7").split() == shown
    kept = [word for place, word in enumerate(words) if place not in masked]
    assert transformed("a b c d e", Mask(share=0.5, seed=3, symbol=None), record="q7").split() == kept
    assert rearrange([Shuffle(unit="token", seed=3)], range(5), lambda _: [], "q7") == order(5, "shuffle", 3, "q7")
    hidden = set(order(5, "mask", 3, "q7")[:2])
    tokens = rearrange([Mask(share=0.5, seed=3, unit="token")], range(5), lambda _: [9, 8], "q7")
    assert tokens == [each for place in range(5) for each in ([9, 8] if place in hidden else [place])]


def test_kept_words_and_words_of_the_column_are_those_of_the_numbers_drawn_for_them() -> None:
    drawn = numbers(5, "keep", 2, "q7", "text")
    smallest = sorted(range(5), key=drawn.__getitem__)[:2]
    row = {"id": "q7", "question": "Q", "text": "a b c d e"}
    keep = Keep(by="random", k=2, seed=2, order="score")
    assert transformed(row["text"], keep, record="q7").split() == ["abcde"[place] for place in smallest]
    others = [{"id": "x", "question": "Q", "text": "often rare often often"}, row]
    pool = sorted(["often", "rare", "often", "often", "a", "b", "c", "d", "e"])
    lots = numbers(5, "random_words", 2, "q7", "text")
    expected = [pool[lot * len(pool) // 2**64] for lot in lots]
    assert prepare([RandomWords(seed=2)], "text", others)(row, row["text"]).split() == expected
    once = sorted(set(pool))
    expected = [once[lot * len(once) // 2**64] for lot in lots]
    uniform = RandomWords(seed=2, frequency="uniform")
    assert prepare([uniform], "text", others)(row, row["text"]).split() == expected


@pytest.mark.parametrize(
    ("text", "k", "shown"),
    [
        ("  a\n\nb c\nd ", [9, 0, 0, 9], "  a\n\nd "),  # of what stood between, most of the breaks
        ("  a\n\nb c\nd ", [0, 9, 9, 0], "  b c "),
        ("a b\nc", [9, 0, 9], "a\nc"),
        ("a  b\tc", [9, 0, 9], "a  c"),  # of as many, the first
    ],
)
def test_white_space_around_what_is_kept_stays(text: str, k: list[int], shown: str) -> None:
    assert transformed(text, Keep(by="scores", scores="s", k=k.count(9)), s=k) == shown


@pytest.mark.parametrize(
    ("among", "reason"),
    [
        ("any", "swap: there is no row of another question"),
        ("same_label", "swap: there is no row of another question with the label 'a b'"),
        ("other_label", "swap: there is no row of another question with another label than 'a b'"),
    ],
)
def test_why_a_row_has_no_partner(among: Any, reason: str) -> None:
    rows = [{"id": f"q#{i}", "question": "Q", "gold": {"label": " A b\n"}, "text": "t"} for i in range(2)]
    apply = prepare([Swap(among=among, label="gold.label")], "text", rows)
    with pytest.raises(Unusable) as unusable:
        apply(rows[0], "t")
    assert (unusable.value.reason, str(unusable.value)) == (reason, reason)
    assert apply.swapped == Swapped(0, 0, 0)


def test_what_two_swaps_did_adds_up() -> None:
    assert Swapped(5, 2, 1) + Swapped(7, 4, 3) == Swapped(12, 6, 4)


def test_a_column_without_any_word_gives_no_random_ones() -> None:
    rows = [{"id": "a", "question": "Q", "text": " "}, {"id": "b", "question": "Q", "text": None}]
    with pytest.raises(UserError, match=r"^random_words: column 'text' holds no word in any row$"):
        prepare([RandomWords()], "text", rows)


def test_numbers_and_truths_are_scores_and_a_mixture_with_anything_else_is_none() -> None:
    assert transformed("a b c", Keep(by="scores", scores="s", k=1), s=(0, 2, 1.5)) == "b"
    for scores, said in ((3, "no list of finite numbers"), ([1, None], "no list"), ([1.0, math.inf], "no list")):
        with pytest.raises(UserError, match=rf"keep: column 's' of record 'q1' holds {said}"):
            transformed("a b", Keep(by="scores", scores="s", k=1), s=scores)


def test_options_are_where_the_answer_is_removed_by_them() -> None:
    assert transformed("So (a) or cat.", RemoveAnswer(), answer="(A)", choices=None) == "So or cat."
    assert transformed("So (a) or cat.", RemoveAnswer(), answer="(A)", choices=["cat"]) == "So or."
    assert transformed("It is 7.", RemoveAnswer(), answer=7) == "It is."


# In a row


@pytest.mark.parametrize(
    "transform",
    [
        Shuffle(),
        Mask(share=0.5),
        Swap(),
        RandomWords(),
        Keep(by="first", k=1),
        RemoveAnswer(),
        Truncate(words=1),
    ],
    ids=lambda transform: transform.kind,
)
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_unusable(transform: Transform, text: str) -> None:
    rows = [{"id": place, "question": place, "answer": "x", "text": "words"} for place in "ab"]
    with pytest.raises(Unusable, match="the text to transform is empty"):
        prepare([transform], "text", rows)(rows[0], text)


def test_transforms_act_one_after_the_other() -> None:
    assert transformed("a b c d", Truncate(words=3), Truncate(words=2, keep="tail")) == "b c"
    with pytest.raises(Unusable, match="empty"):
        transformed("a b", Mask(share=1, symbol=None), Shuffle())


@given(TEXTS)
def test_without_transforms_a_text_stays(text: str) -> None:
    assert transformed(text) == transformed(text, Shuffle(unit="token"), Mask(share=1, unit="token")) == text


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([Shuffle(unit="token"), Truncate(words=1)], "truncate acts on words and stands behind shuffle by token"),
        ([Shuffle(), Mask(share=1, unit="token"), Shuffle()], "shuffle acts on words and stands behind mask by token"),
        ([Shuffle(), Swap()], "swap takes another row's text as the column holds it and stands behind shuffle"),
        ([Swap(), Keep(by="scores", scores="s", k=1)], "keep needs a score for every word .* stands behind swap"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(transforms: list[Transform], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(transforms, "text", [])


def test_words_come_before_tokens() -> None:
    words = [Swap(), Keep(by="tfidf", k=1), Shuffle()]
    tokens = [Shuffle(unit="token"), Mask(share=0.5, unit="token")]
    assert refused([*words, *tokens]) is None
    assert "words come first" in str(refused([*tokens, *words]))


def refused(transforms: list[Transform]) -> UserError | None:
    try:
        check_order(transforms)
    except UserError as error:
        return error
    return None


def test_a_column_that_holds_no_text_is_a_mistake() -> None:
    rows = [{"id": "q1", "question": "Q", "steps": ["a"]}]
    with pytest.raises(UserError, match=r"'steps' holds list in record 'q1'; only text is transformed"):
        prepare([RandomWords()], "steps", rows)


# Tokens

TOKENS = st.lists(st.integers(0, 9), min_size=1, max_size=30)


@given(TOKENS, IDS, st.integers(0, 3))
def test_a_shuffle_of_tokens_keeps_them_all(ids: list[int], record: str, seed: int) -> None:
    shown = rearrange([Shuffle(), Shuffle(unit="token", seed=seed)], ids, lambda _: [], record)
    assert Counter(shown) == Counter(ids)


def test_tokens_come_in_every_order_as_often() -> None:
    seen = Counter(tuple(rearrange([Shuffle(unit="token")], [1, 2, 3], lambda _: [], f"q{i}")) for i in range(3000))
    assert len(seen) == 6
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 20.5  # chi-square, 5 degrees of freedom


@given(TOKENS, st.floats(0, 1), st.sampled_from([[77], [77, 78], []]))
@settings(max_examples=60)
def test_a_mask_of_tokens_writes_the_symbols_tokens_or_none(ids: list[int], share: float, symbol: list[int]) -> None:
    mask = Mask(share=share, symbol="<mask>" if symbol else None, unit="token")
    shown = rearrange([mask], ids, {"<mask>": symbol}.__getitem__, "q1")
    count = round(share * len(ids))
    assert shown.count(77) == (count if symbol else 0)
    assert len(shown) == len(ids) - count + count * len(symbol)
    rest = iter(ids)
    assert all(token in rest for token in shown if token < 77)


def test_what_is_masked_of_tokens_is_masked_at_every_larger_share() -> None:
    for low, high in ((0.2, 0.4), (0.4, 1.0)):
        less, more = (
            rearrange([Mask(share=share, unit="token")], range(20), lambda _: [99], "q1") for share in (low, high)
        )
        assert {place for place, token in enumerate(less) if token == 99} < {
            place for place, token in enumerate(more) if token == 99
        }


def test_no_token_is_unusable_and_no_transform_of_tokens_changes_none() -> None:
    assert rearrange([Shuffle()], [], lambda _: [], "q1") == []
    with pytest.raises(Unusable, match="empty"):
        rearrange([Shuffle(unit="token")], [], lambda _: [], "q1")


def test_only_shuffles_and_masks_act_on_tokens() -> None:
    assert [by_token(t) for t in (Shuffle(), Shuffle(unit="token"), Mask(share=1, unit="token"), Swap())] == [
        False,
        True,
        True,
        False,
    ]
