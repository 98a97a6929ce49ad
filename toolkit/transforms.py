"""What is done to a text of a record before a student sees it: shuffled, masked, swapped, cut to key words.

Ground floor: no tokenizer, no recipe. A word is what white space surrounds, its punctuation included (where a script
has no spaces, it ends at Unicode's word boundaries); words move, and the white space between them, line breaks too,
stays where it is. Every draw is a function of the transform's seed
and of the record's id (and of the column, where the text is words): the same in every epoch, beside any other rows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import regex

from toolkit.alignment import spaced_words
from toolkit.answer_removal import without_answer
from toolkit.draws import BITS, numbers, order
from toolkit.errors import UserError
from toolkit.swaps import exchanged
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
from toolkit.views import lookup

Row = Mapping[str, Any]

_EDGES = regex.compile(r"^\W+|\W+$")  # of `regex`: a combining mark at the end of a word is no punctuation


class Unusable(Exception):
    """A record cannot be shown so; whoever shows it drops and counts it.

    Attributes:
        reason: Why, the same words for every record of one cause.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a swap did to the texts of a column.

    Attributes:
        texts: Rows that got the text of another row.
        repeated: Those of them whose text another row had got before: 0 where each text is given once.
        unchanged: Those whose own text reads the same, as `yes` does where it comes from another `yes`.
    """

    texts: int = 0
    repeated: int = 0
    unchanged: int = 0

    def __add__(self, other: Swapped) -> Swapped:
        """Return what two swaps did together."""
        return Swapped(self.texts + other.texts, self.repeated + other.repeated, self.unchanged + other.unchanged)


class Prepared:
    """Transforms of words with all that they need to know of the data: (row, its text) -> the text to show.

    Called for a row that cannot be shown so it raises Unusable; for a row that was not among those it was prepared
    for, which so has no partner to swap with, UserError. What it returns is empty where nothing of a text is left.

    Attributes:
        swapped: What a swap among them did; None where there is none.
    """

    def __init__(self, steps: Sequence[Callable[[Row, str], str]], swapped: Swapped | None) -> None:
        self._steps = steps
        self.swapped = swapped

    def __call__(self, row: Row, text: str) -> str:
        """Apply the transforms, in order, to the text that a row has."""
        for step in self._steps:
            if not text.strip():
                raise Unusable("the text to transform is empty")
            text = step(row, text)
        return text


def prepare(transforms: Sequence[Transform], path: str, rows: Sequence[Row]) -> Prepared:
    """Return what applies the transforms of words, in order, to the text that a row has in a column.

    What needs all the data (partners, vocabulary, document frequencies) is computed here, once. Transforms of tokens
    are left to `rearrange`.

    Args:
        transforms: In the order of application.
        path: Dotted path of the column that the text comes from.
        rows: All rows, with unique columns `id` and a `question` each.

    Raises:
        UserError: The order is impossible, or a column is missing or holds something that fits no transform.
    """
    check_order(transforms)
    steps: list[Callable[[Row, str], str]] = []
    swapped: Swapped | None = None
    for transform in transforms:
        if isinstance(transform, Swap):  # the first of them, if there is one
            partners = _partners(transform, path, rows)
            swapped = _facts(partners, path, rows)
            steps.append(_swap(transform, path, rows, partners))
        elif not by_token(transform):
            steps.append(_step(transform, path, rows))
    return Prepared(steps, swapped)


def rearrange(
    transforms: Sequence[Transform], ids: Sequence[int], symbol_ids: Callable[[str], Sequence[int]], record_id: str
) -> list[int]:
    """Apply the transforms of tokens, in order, to the token ids of a segment; those of words are passed over.

    Args:
        transforms: In the order of application.
        ids: The segment's tokens.
        symbol_ids: Gives the tokens of a mask's symbol, one or several.
        record_id: What the draws are for.

    Raises:
        Unusable: There is no token to transform.
    """
    tokens = list(ids)
    for transform in filter(by_token, transforms):
        if not tokens:
            raise Unusable("the text to transform is empty")
        if isinstance(transform, Shuffle):
            tokens = [tokens[position] for position in order(len(tokens), "shuffle", transform.seed, record_id)]
        elif isinstance(transform, Mask):
            masked = _masked(transform, len(tokens), record_id)
            symbol = [] if transform.symbol is None else symbol_ids(transform.symbol)
            tokens = [shown for place, token in enumerate(tokens) for shown in (symbol if place in masked else [token])]
    return tokens


@dataclass(frozen=True, slots=True)
class _Words:
    """A text's words, and the white space before, between and behind them: one more, the outer two may be empty."""

    words: list[str]
    spaces: list[str]

    @classmethod
    def of(cls, text: str) -> _Words:
        spans = spaced_words(text)
        ends = [0, *(end for _, end in spans)]
        starts = [*(start for start, _ in spans), len(text)]
        return cls(
            [text[start:end] for start, end in spans],
            [text[end:start] for end, start in zip(ends, starts, strict=True)],
        )

    def filled(self, words: Sequence[str]) -> str:
        """Return the text with other words in the places of these."""
        pairs = zip(self.spaces, [*words, ""], strict=True)
        return "".join(piece for pair in pairs for piece in pair)

    def only(self, places: Sequence[int]) -> str:
        """Return the text of the words at these places, which rise; between two of them stays most of the breaks."""
        if not places:
            return ""
        parts = [self.spaces[0], self.words[places[0]]]
        for left, right in pairwise(places):
            parts += [max(self.spaces[left + 1 : right + 1], key=lambda space: space.count("\n")), self.words[right]]
        return "".join([*parts, self.spaces[-1]])


def _step(
    transform: Shuffle | Mask | RandomWords | Keep | RemoveAnswer | Truncate, path: str, rows: Sequence[Row]
) -> Callable[[Row, str], str]:
    """Return what applies one transform of words but a swap to (row, text with at least one word)."""
    match transform:
        case Shuffle():
            return lambda row, text: _shuffled(transform, path, row, _Words.of(text))
        case Mask():
            return lambda row, text: _with_mask(transform, path, row, _Words.of(text))
        case RandomWords():
            return _random_words(transform, path, rows)
        case Keep():
            return _keep(transform, path, rows)
        case RemoveAnswer():
            return lambda row, text: _without_answer(transform, row, text)
        case Truncate():
            return lambda _, text: _truncated(transform, _Words.of(text))


def _shuffled(shuffle: Shuffle, path: str, row: Row, text: _Words) -> str:
    drawn = order(len(text.words), "shuffle", shuffle.seed, _id(row), path)
    return text.filled([text.words[position] for position in drawn])


def _masked(mask: Mask, count: int, *name: str) -> set[int]:
    """Return the masked ones of `count` positions: the first of one drawn order, whatever the share."""
    return set(order(count, "mask", mask.seed, *name)[: round(mask.share * count)])


def _with_mask(mask: Mask, path: str, row: Row, text: _Words) -> str:
    masked = _masked(mask, len(text.words), _id(row), path)
    if mask.symbol is None:
        return text.only([place for place in range(len(text.words)) if place not in masked])
    return text.filled([mask.symbol if place in masked else word for place, word in enumerate(text.words)])


def _swap(swap: Swap, path: str, rows: Sequence[Row], partners: Mapping[str, Row]) -> Callable[[Row, str], str]:
    known = {_id(row) for row in rows}

    def swapped(row: Row, _: str) -> str:
        if _id(row) not in known:
            raise UserError(f"swap: record {_id(row)!r} is not among the {len(rows)} rows that partners come from")
        if _id(row) not in partners:
            raise Unusable(_why_alone(swap, row))
        return _text(partners[_id(row)], path)

    return swapped


def _partners(swap: Swap, path: str, rows: Sequence[Row]) -> dict[str, Row]:
    """Return by id of a row the row whose text it gets; rows without a partner are not in it.

    Raises:
        UserError: Ids are not unique.
    """
    known = {_id(row) for row in rows}
    if len(known) < len(rows):
        raise UserError(f"swap: {len(rows)} rows have {len(known)} different ids; partners are found by unique ids")
    giving = [row for row in rows if _text(row, path).strip()]
    if swap.among == "any":
        return exchanged(giving, [lookup(row, "question") for row in giving], swap.seed)
    giving = [row for row in giving if _label(swap, row)]
    labels = [_label(swap, row) for row in giving]
    if swap.among == "other_label":
        return exchanged(giving, labels, swap.seed)
    by_label: dict[str, list[Row]] = {}
    for label, row in zip(labels, giving, strict=True):
        by_label.setdefault(label, []).append(row)
    partners: dict[str, Row] = {}
    for alike in by_label.values():
        partners |= exchanged(alike, [lookup(row, "question") for row in alike], swap.seed)
    return partners


def _facts(partners: Mapping[str, Row], path: str, rows: Sequence[Row]) -> Swapped:
    own = {_id(row): _text(row, path) for row in rows}
    return Swapped(
        texts=len(partners),
        repeated=len(partners) - len({_id(giver) for giver in partners.values()}),
        unchanged=sum(own[taker] == _text(giver, path) for taker, giver in partners.items()),
    )


def _why_alone(swap: Swap, row: Row) -> str:
    if swap.among == "any":
        return "swap: there is no row of another question"
    label = _label(swap, row)
    if not label:
        return f"swap: no label in column {swap.label!r}"
    which = "the label" if swap.among == "same_label" else "another label than"
    return f"swap: there is no row of another question with {which} {label!r}"


def _label(swap: Swap, row: Row) -> str:
    """Return a label as labels are compared; empty where there is none."""
    value = lookup(row, swap.label)
    return "" if value is None else str(value).strip().casefold()


def _random_words(transform: RandomWords, path: str, rows: Sequence[Row]) -> Callable[[Row, str], str]:
    counts = Counter(word for row in rows for word in _Words.of(_text(row, path)).words)
    words = sorted(counts)
    if not words:
        raise UserError(f"random_words: column {path!r} holds no word in any row")
    ends = list(accumulate(counts[word] if transform.frequency == "unigram" else 1 for word in words))

    def drawn(row: Row, text: str) -> str:
        here = _Words.of(text)
        draws = numbers(len(here.words), "random_words", transform.seed, _id(row), path)
        return here.filled([words[bisect_right(ends, draw * ends[-1] >> BITS)] for draw in draws])

    return drawn


def _keep(keep: Keep, path: str, rows: Sequence[Row]) -> Callable[[Row, str], str]:
    frequency: Counter[str] = Counter()
    if keep.by == "tfidf":
        for row in rows:
            frequency.update({_term(word) for word in _Words.of(_text(row, path)).words})

    def scores(row: Row, words: list[str]) -> list[float]:
        """Return a score for each word, the highest of which are kept."""
        match keep.by:
            case "first":
                return [-float(place) for place in range(len(words))]
            case "random":
                return [-float(draw) for draw in numbers(len(words), "keep", keep.seed, _id(row), path)]
            case "tfidf":
                terms = [_term(word) for word in words]
                here = Counter(terms)
                return [here[term] / len(terms) * math.log((1 + len(rows)) / (1 + frequency[term])) for term in terms]
            case "scores":
                return _scores(keep, row, len(words))

    def kept(row: Row, text: str) -> str:
        here = _Words.of(text)
        if len(here.words) < keep.k:
            raise Unusable(f"keep: {len(here.words)} words, k = {keep.k}")
        score = scores(row, here.words)
        best = sorted(range(len(score)), key=lambda place: (-score[place], place))[: keep.k]
        if keep.order == "score":
            return " ".join(here.words[place] for place in best)
        return here.only(sorted(best))

    return kept


def _term(word: str) -> str:
    """Return a word as documents are counted by: in any case, without the punctuation around it."""
    return (_EDGES.sub("", word) or word).casefold()


def _scores(keep: Keep, row: Row, count: int) -> list[float]:
    assert keep.scores is not None
    values = lookup(row, keep.scores)
    if values is None:
        raise Unusable(f"keep: no scores in column {keep.scores!r}")
    numeric = isinstance(values, Sequence) and all(isinstance(value, int | float) for value in values)
    if not numeric or not all(map(math.isfinite, values)):
        raise UserError(f"keep: column {keep.scores!r} of record {_id(row)!r} holds no list of finite numbers")
    if len(values) != count:
        raise UserError(
            f"keep: column {keep.scores!r} of record {_id(row)!r} holds {len(values)} scores for {count} words"
        )
    return list(values)


def _without_answer(remove: RemoveAnswer, row: Row, text: str) -> str:
    answer = lookup(row, remove.answer)
    if answer is None or not str(answer).strip():
        raise Unusable(f"remove_answer: no answer in column {remove.answer!r}")
    return without_answer(text, str(answer), row.get("choices") or ())


def _truncated(truncate: Truncate, text: _Words) -> str:
    places = range(len(text.words))
    return text.only(places[: truncate.words] if truncate.keep == "head" else places[-truncate.words :])


def _id(row: Row) -> str:
    identity: str = lookup(row, "id")
    return identity


def _text(row: Row, path: str) -> str:
    """Return what a row holds in the column that is transformed, empty where it is null."""
    value = lookup(row, path)
    if value is None or isinstance(value, str):
        return value or ""
    raise UserError(f"column {path!r} holds {type(value).__name__} in record {_id(row)!r}; only text is transformed")
