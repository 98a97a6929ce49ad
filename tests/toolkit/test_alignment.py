"""Key steps against a plain dynamic programme, against edit.md's vectors, and as spans of text."""

from __future__ import annotations

import itertools
import re
import time
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.alignment import key_spans, key_steps, merge_spans, spaced_words, words


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


# --- scripts


def said(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("right", "wrong", "key_right", "key_wrong"),
    [
        ("小明有12个苹果，吃了3个，还剩9个。", "小明有12个苹果，吃了3个，还剩8个。", ["9"], ["8"]),
        ("所以答案是十五。", "所以答案是十六。", ["五"], ["六"]),
        ("林檎は12個です。答えは15です。", "林檎は12個です。答えは16です。", ["15"], ["16"]),
        ("価格は１２０円です", "価格は１３０円です", ["１２０"], ["１３０"]),
        ("コーヒーが3杯あります", "コーヒーが4杯あります", ["3"], ["4"]),
        ("มีแอปเปิ้ล 12 ลูก เหลือ9ลูก", "มีแอปเปิ้ล 12 ลูก เหลือ8ลูก", ["9"], ["8"]),
        ("ສິບບວກ5ແມ່ນ15", "ສິບບວກ5ແມ່ນ16", ["15"], ["16"]),
        ("លទ្ធផលគឺ15", "លទ្ធផលគឺ16", ["15"], ["16"]),
        ("राम की किताब में 12 पन्ने हैं", "राम का किताब में 12 पन्ने हैं", ["की"], ["का"]),
        ("सीता के पास १२ आम हैं", "सीता के पास १३ आम हैं", ["१२"], ["१३"]),
        ("বইটির দাম ১২ টাকা", "বইটির দাম ১৩ টাকা", ["১২"], ["১৩"]),
        ("அவளிடம் 12 பழங்கள் உள்ளன", "அவளிடம் 12 பழம் உள்ளன", ["பழங்கள்"], ["பழம்"]),
        ("كَتَبَ محمد ٣ رسائل", "كُتِبَ محمد ٣ رسائل", ["كَتَبَ"], ["كُتِبَ"]),
        ("שָׁלוֹם 12", "שָׁלוֹם 13", ["12"], ["13"]),
        ("Tổng số tiền là 12 đồng", "Tổng số tiến là 12 đồng", ["tiền"], ["tiến"]),
        ("답은 15입니다", "답은 16입니다", ["15입니다"], ["16입니다"]),
        (
            "👩\u200d👩\u200d👧 plus 👍🏽 is 2",
            "👩\u200d👩\u200d👦 plus 👍🏽 is 2",
            ["👩\u200d👩\u200d👧"],
            ["👩\u200d👩\u200d👦"],
        ),
        ("🇩🇪🇫🇷 2", "🇩🇪🇮🇹 2", ["🇫🇷"], ["🇮🇹"]),
        ("x ≠ 3", "x = 3", ["≠"], ["="]),
        ("Он купил 12 яблок", "Он купил 13 яблок", ["12"], ["13"]),
    ],
)
def test_a_small_difference_marks_only_its_word_in_any_script(
    right: str, wrong: str, key_right: list[str], key_wrong: list[str]
) -> None:
    for form in ("NFC", "NFD"):
        one, other = unicodedata.normalize(form, right), unicodedata.normalize(form, wrong)
        spans = key_spans(one, other)
        expected = [[unicodedata.normalize(form, text) for text in texts] for texts in (key_right, key_wrong)]
        assert [said(one, spans[0]), said(other, spans[1])] == expected


@pytest.mark.parametrize("text", ["Việt café", "답은 15입니다", "が 3 ば", "\u212b ≠ 1", "क़लम", "שָׁלוֹם"])
def test_a_text_and_its_decomposed_form_are_the_same(text: str) -> None:
    assert key_spans(unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)) == ([], [])


letters = st.text(
    st.sampled_from(
        "ab 1.'é\u0301ñ\u0303가각ㄱ日本語かカがกำเ्कीि्मم\u064e\u05b8ש👩\u200d👧🏽🇩🇪²½_\n,≠\u0338\u212b\u037e"
    ),
    max_size=30,
)


@given(right=letters, wrong=letters)
def test_composed_and_decomposed_texts_have_the_same_key_words(right: str, wrong: str) -> None:
    found = []
    for form in ("NFC", "NFD"):
        one, other = unicodedata.normalize(form, right), unicodedata.normalize(form, wrong)
        spans = key_spans(one, other)
        found.append(
            [
                [unicodedata.normalize("NFC", text) for text in said(one, spans[0])],
                [unicodedata.normalize("NFC", text) for text in said(other, spans[1])],
            ]
        )
    assert found[0] == found[1]


english = st.text(st.sampled_from("abc ABC 0123.,:;!?'\"()-_+=*/\\$%<>\n\t\x1cé’“”–−×÷²½π€√"), max_size=60)


@given(english)
def test_words_of_english_are_what_they_always_were(text: str) -> None:
    assert said(text, words(text)) == re.findall(r"\w+|[^\w\s]", text)


@given(english | letters)
def test_where_there_are_spaces_they_part_words_with_their_punctuation(text: str) -> None:
    spans = spaced_words(text)
    assert "".join(said(text, spans)) == "".join(text.split())
    assert {character for one in said(text, spans) for character in one if character.isspace()} == set()
    if all(ord(character) < 0x0E00 or ord(character) > 0xD7AF for character in text) or text.isascii():
        assert said(text, spans) == text.split()


def test_words_with_their_punctuation_come_apart_where_a_script_has_no_spaces() -> None:
    assert said("有12个，don't 3.5", spaced_words("有12个，don't 3.5")) == ["有", "12", "个", "，don't", "3.5"]
    assert said("की किताब।", spaced_words("की किताब।")) == ["की", "किताब।"]


@pytest.mark.parametrize("unit", ["日", "e\u0301", "\u0301", " ", "é", "👩\u200d", "'", "²", "ก", "a", "１"])
def test_a_long_text_of_anything_has_its_words_within_a_second(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    words(text)
    spaced_words(text)
    assert time.process_time() - started < 1
