"""Key steps: what the minimum edit script between two chains of thought touches.

Ground floor: plain sequences in, flags or character spans out. The published definition (EDIT, arXiv
2405.19737, section 3.3; `docs/methods/edit.md` says where the released code departs from it) is unit-cost
Levenshtein on the unpadded sequences, with **one** script read from both of its sides.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from rapidfuzz.distance import Levenshtein

# A word, or one character that is neither part of a word nor space.
_WORDS = re.compile(r"\w+|[^\w\s]")


def key_steps(right: Sequence[Hashable], wrong: Sequence[Hashable]) -> tuple[list[bool], list[bool]]:
    """Flag the tokens that the minimum edit script from `wrong` to `right` touches.

    A right token is key if the script inserts it or writes it over another; a wrong token is key if the script
    deletes it or writes over it. Equal tokens are those for which Python's `==` and `hash` say so. Where
    several scripts are minimal, it is rapidfuzz's: common prefix and suffix are never key, and the rest is
    its deterministic back-trace.

    Args:
        right: Tokens of the right chain, any hashable values (words, token ids), unpadded.
        wrong: Tokens of the wrong chain.

    Returns:
        One flag per token of `right`, one per token of `wrong`.
    """
    # rapidfuzz compares list items by their hash alone, and unequal values may share one (hash(-1) == hash(-2)),
    # so both sides are spelt in a private alphabet first; a string also takes its fast path.
    alphabet: dict[Hashable, str] = {}
    spelt_right, spelt_wrong = (
        "".join([alphabet.setdefault(token, chr(len(alphabet))) for token in tokens]) for tokens in (right, wrong)
    )
    right_flags = [False] * len(right)
    wrong_flags = [False] * len(wrong)
    for operation in Levenshtein.editops(spelt_wrong, spelt_right):
        if operation.tag != "delete":
            right_flags[operation.dest_pos] = True
        if operation.tag != "insert":
            wrong_flags[operation.src_pos] = True
    return right_flags, wrong_flags


def words(text: str) -> list[tuple[int, int]]:
    """Return the character span of every word and every mark of punctuation."""
    return [match.span() for match in _WORDS.finditer(text)]


def merge_spans(spans: Sequence[tuple[int, int]], flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Join neighbouring flagged spans, the space between them included."""
    merged: list[tuple[int, int]] = []
    previous_flag = False
    for (start, end), flag in zip(spans, flags, strict=True):
        if flag and previous_flag:
            merged[-1] = (merged[-1][0], end)
        elif flag:
            merged.append((start, end))
        previous_flag = flag
    return merged


def key_spans(right: str, wrong: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the character spans of the key steps of two texts, aligned word by word.

    Returns:
        Non-overlapping, ordered (start, end) spans in `right`, and in `wrong`.
    """
    right_words, wrong_words = words(right), words(wrong)
    right_flags, wrong_flags = key_steps(
        [right[start:end] for start, end in right_words], [wrong[start:end] for start, end in wrong_words]
    )
    return merge_spans(right_words, right_flags), merge_spans(wrong_words, wrong_flags)
