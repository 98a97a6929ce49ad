"""Taking every mention of the answer out of a text: the control for rationales that only help by naming the label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from toolkit import answer_readings as readings

# A mention is no part of a longer word or number: 3.5 is not in 13.5, 3.52 or -3.5, nor 234 in 1,234.
_BEFORE = r"(?<!\w)(?!(?:(?<=\d\.)|(?<=\d,)(?=\d{3}(?!\d))|(?<=-)(?<!\w-))\d)"
_AFTER = r"(?!\w)(?!(?<=\d)(?:\.\d|,\d{3}(?!\d)))"
_LETTER = re.compile(r"\(([A-Za-z])\)\s*(.*)|([A-Za-z])", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=\d)(?=(?:\d{3})+(?!\d))")


def without_answer(text: str, answer: str, choices: Sequence[str] = ()) -> str:
    """Remove the answer wherever the text mentions it, in any case and with any white space between its words.

    Numbers are found with and without thousands separators. An answer that is an option (a letter, or with `choices`
    the text of one) goes as letter and as text: "(b)", "B)" and the option's text; where the answer is a letter, the
    capital by itself as well, but no small one, which "a" would be in most sentences. Other forms of a word are no
    mentions: where the answer is "ocean", "oceans" stay. No double blank is left in a mention's place; a text that has
    no word left is empty.

    Args:
        text: Any text.
        answer: The answer, not blank.
        choices: Options in order, without their letters.
    """
    mention = _mention(answer.strip(), tuple(choices))
    found = 1
    while found:  # what is left can come together as another mention
        text, found = mention.subn(_between, text)
    return text if text.strip() else ""


def _between(mention: re.Match[str]) -> str:
    """Return what stays in a mention's place: the blank behind it, where its line has something before it."""
    start_of_line = mention.start() == 0 or mention.string[mention.start() - 1] == "\n"
    return " " if mention.group()[-1] in " \t" and not start_of_line else ""


@lru_cache(maxsize=256)
def _mention(answer: str, choices: tuple[str, ...]) -> re.Pattern[str]:
    one = "|".join(_forms(answer, choices))
    return re.compile(rf"(?<![ \t])[ \t]*(?:(?:{one})[ \t]*)+", re.IGNORECASE)


def _forms(answer: str, choices: tuple[str, ...]) -> Iterator[str]:
    """Yield patterns of what mentions the answer, longer texts first: one may begin with another."""
    named = _LETTER.fullmatch(answer)
    if named:
        letters = {(named[1] or named[3]).upper()}
        texts = {named[2] or "", *(text for letter, text in _lettered(choices) if letter in letters)}
    else:
        letters = {letter for letter, text in _lettered(choices) if readings.words(text) == readings.words(answer)}
        texts = {answer}
    for text in sorted(texts, key=lambda text: (-len(text), text)):
        if text.strip():
            yield _BEFORE + r"\s+".join(map(_spelt, text.split())) + _AFTER
    if letters:
        one_of = f"[{''.join(sorted(letters))}]"
        yield rf"[(\[]\s?{one_of}\s?[)\]]|(?<!\w){one_of}\)"
    if named:
        yield f"(?-i:(?<!\\w)[{''.join(sorted({*letters, named[3] or ''}))}](?!\\w))"


def _lettered(choices: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(chr(ord("A") + position), text) for position, text in enumerate(choices[:26])]


def _spelt(word: str) -> str:
    if re.fullmatch(r"[-+]?[\d,]*\d(?:\.\d+)?", word):
        return _THOUSANDS.sub(",?", re.escape(word.replace(",", "")))
    return re.escape(word)
