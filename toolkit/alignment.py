"""Key steps: what the minimum edit script between two chains of thought touches.

Ground floor: plain sequences in, flags or character spans out. The published definition (EDIT, arXiv
2405.19737, section 3.3; `docs/methods/edit.md` says where the released code departs from it) is unit-cost
Levenshtein on the unpadded sequences, with **one** script read from both of its sides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence

import regex
from rapidfuzz.distance import Levenshtein

# A word, or one character that is neither part of a word nor space: all there is to words in ASCII, and fast.
_ASCII_WORDS = re.compile(r"\w+|[^\w\s]")
# The same where a text is not all ASCII, or from a word with another character on to the next space.
_STRETCHES = re.compile(r"(?:[A-Za-z0-9_]++|[!-/:-@\[-^`{-~])(?![^\x00-\x7f])|(\S+)")
# Elsewhere words end at Unicode's default word boundaries (UAX 29: `\b` and `\B` under `regex`'s flag `w`). So scripts
# without spaces come apart, a letter keeps its combining marks, and joined emoji stay together. As in ASCII, and unlike
# UAX 29, a mark of punctuation within a word is a word of its own (3.5, don't); a superscript stays with its word (m²).
_SPACE = r"\s\x1c-\x1f"  # as `str.isspace` has it
_MARKS = r"\p{WB=MidLetter}\p{WB=MidNum}\p{WB=MidNumLet}\p{WB=Single_Quote}\p{WB=Double_Quote}"
_LETTERS = r"\p{WB=ALetter}\p{WB=Numeric}\p{WB=ExtendNumLet}"
_WORDS = regex.compile(
    rf"""(?wx)
    [{_MARKS}] [\p{{WB=Extend}}\p{{WB=Format}}\p{{WB=ZWJ}}]*
  | [^{_SPACE}{_MARKS}] (?: \B[^{_SPACE}{_MARKS}] | (?<=[{_LETTERS}\p{{No}}])\p{{No}} | (?<=\p{{No}})[{_LETTERS}] )*
    """
)
# Scripts that are written without spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}"
_UNSPACED_LETTER = regex.compile(rf"[{_UNSPACED}]")
_SPACED_WORDS = regex.compile(rf"(?w)[^{_SPACE}](?:(?!(?<=[{_UNSPACED}]\p{{M}}*)\b|\b(?=[{_UNSPACED}]))[^{_SPACE}])*")


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
    right, wrong = list(right), list(wrong)
    right_flags, wrong_flags = [True] * len(right), [True] * len(wrong)
    for in_wrong, in_right, size in _kept(right, wrong):
        wrong_flags[in_wrong : in_wrong + size] = [False] * size
        right_flags[in_right : in_right + size] = [False] * size
    return right_flags, wrong_flags


def _kept(right: list[Hashable], wrong: list[Hashable]) -> list[tuple[int, int, int]]:
    """Return what a minimum edit script from `wrong` to `right` keeps: (start in wrong, start in right, length).

    rapidfuzz compares the items of a list by a hash, and unequal ones may share it: "a" and 97, if not much else.
    Among words, or among numbers, equal ones always have equal hashes, so a script that keeps no unequal tokens is
    minimal for the tokens as well. Only where it does, or where kinds of tokens mix, each distinct token becomes a
    letter first, which takes three times as long.
    """
    kinds = {*map(type, right), *map(type, wrong)}
    if kinds <= {int} or kinds <= {str}:
        blocks = [(a, b, n) for a, b, n in Levenshtein.editops(wrong, right).as_matching_blocks()]
        if all(wrong[a : a + n] == right[b : b + n] for a, b, n in blocks):
            return blocks
    alphabet: dict[Hashable, str] = {}
    spelt_right, spelt_wrong = (
        "".join([alphabet.setdefault(token, chr(len(alphabet))) for token in tokens]) for tokens in (right, wrong)
    )
    return [(a, b, n) for a, b, n in Levenshtein.editops(spelt_wrong, spelt_right).as_matching_blocks()]


def words(text: str) -> list[tuple[int, int]]:
    """Return the character span of every word and every mark of punctuation."""
    if text.isascii():
        return [match.span() for match in _ASCII_WORDS.finditer(text)]
    spans: list[tuple[int, int]] = []
    for match in _STRETCHES.finditer(text):
        if match.lastindex is None:
            spans.append(match.span())
        else:
            spans += [word.span() for word in _WORDS.finditer(text, *match.span())]
    return spans


def spelt(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the texts of spans as they are compared: in Unicode's composed form (NFC), however they are stored."""
    pieces = [text[start:end] for start, end in spans]
    return pieces if unicodedata.is_normalized("NFC", text) else [unicodedata.normalize("NFC", one) for one in pieces]


def spaced_words(text: str) -> list[tuple[int, int]]:
    """Return the character span of every word with its punctuation: what white space surrounds.

    Where a script has no spaces between its words, they end at Unicode's word boundaries.
    """
    if text.isascii() or not _UNSPACED_LETTER.search(text):
        return [match.span() for match in re.finditer(r"\S+", text)]
    return [match.span() for match in _SPACED_WORDS.finditer(text)]


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

    Texts in composed and decomposed form (NFC, NFD) have the same key steps, each at its own offsets.

    Returns:
        Non-overlapping, ordered (start, end) spans in `right`, and in `wrong`.
    """
    right_words, wrong_words = words(right), words(wrong)
    right_flags, wrong_flags = key_steps(spelt(right, right_words), spelt(wrong, wrong_words))
    return merge_spans(right_words, right_flags), merge_spans(wrong_words, wrong_flags)
