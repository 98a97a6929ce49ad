"""What a recipe can say about transforms, and which can stand behind which; `toolkit.transforms` applies them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.errors import UserError
from toolkit.schema import Strict

Unit = Literal["word", "token"]


class Shuffle(Strict):
    """Puts the words, or the student's tokens, into a uniformly drawn order.

    Attributes:
        unit: What is moved.
        seed: Of the order.
    """

    kind: Literal["shuffle"] = "shuffle"
    unit: Unit = "word"
    seed: int = 0


class Mask(Strict):
    """Writes a symbol over a share of the words or tokens; what is masked at a share is masked at every larger one.

    Attributes:
        share: Of n units `round(share * n)` are masked.
        symbol: What stands in their place; null drops them.
        unit: What is masked.
        seed: Of the units drawn.
    """

    kind: Literal["mask"] = "mask"
    share: float = Field(ge=0, le=1, allow_inf_nan=False)
    symbol: str | None = Field(default="_", min_length=1)
    unit: Unit = "word"
    seed: int = 0

    @model_validator(mode="after")
    def _symbol_is_a_unit(self) -> Mask:
        if self.unit == "word" and self.symbol is not None and self.symbol.split() != [self.symbol]:
            raise ValueError(f"symbol: {self.symbol!r} is not one word, so it could not stand for one")
        return self


class Swap(Strict):
    """Takes the text of a row of another question, each text once where that is possible (a derangement).

    Where it is not, as with a label that more than half of the rows have, as few texts as can be are given a second
    time, and the student's card says how many. A row for which there is none is unusable. Columns that are swapped with
    one seed come from one row, as long as the same rows have a text in them.

    Attributes:
        among: Rows that the text may come from: any, or those whose label is the same, or another one.
        label: Dotted path of the label; case and outer white space do not count.
        seed: Of the partners.
    """

    kind: Literal["swap"] = "swap"
    among: Literal["any", "same_label", "other_label"] = "any"
    label: str = "answer"
    seed: int = 0


class RandomWords(Strict):
    """As many words, drawn from those that the column holds over all rows.

    Attributes:
        frequency: Every word as likely, or as often as the column has it.
        seed: Of the words drawn.
    """

    kind: Literal["random_words"] = "random_words"
    frequency: Literal["uniform", "unigram"] = "unigram"
    seed: int = 0


class Keep(Strict):
    """Keeps k of the words; a text with fewer is unusable.

    `tfidf` is the word's share of the text times ln((1 + N) / (1 + df)): of N rows df have it, in any case and without
    the punctuation around it. Of equal scores the earlier word counts as the higher.

    Attributes:
        by: Which words: the first, random ones, those of the highest TF-IDF, or of the highest `scores`.
        scores: Dotted path of a list of numbers, one per word of the text.
        k: How many words.
        order: As the words stand in the text, or from the highest score (or first draw) down.
        seed: Of random.
    """

    kind: Literal["keep"] = "keep"
    by: Literal["first", "random", "tfidf", "scores"]
    scores: str | None = None
    k: int = Field(ge=1)
    order: Literal["original", "score"] = "original"
    seed: int = 0

    @model_validator(mode="after")
    def _has_scores(self) -> Keep:
        if (self.by == "scores") != (self.scores is not None):
            raise ValueError("'scores', the column of the words' scores, goes with by: scores and only with it")
        return self


class RemoveAnswer(Strict):
    """Removes every mention of the answer (`toolkit.answer_removal`).

    Attributes:
        answer: Dotted path of the answer.
    """

    kind: Literal["remove_answer"] = "remove_answer"
    answer: str = "answer"


class Truncate(Strict):
    """Cuts a text to its first or last words; a shorter one stays whole.

    Attributes:
        words: Most words.
        keep: The end of the text that stays.
    """

    kind: Literal["truncate"] = "truncate"
    words: int = Field(ge=1)
    keep: Literal["head", "tail"] = "head"


Transform = Annotated[Shuffle | Mask | Swap | RandomWords | Keep | RemoveAnswer | Truncate, Field(discriminator="kind")]


def by_token(transform: Transform) -> bool:
    """Whether a transform acts on the student's tokens and not on the text."""
    return isinstance(transform, Shuffle | Mask) and transform.unit == "token"


def check_order(transforms: Sequence[Transform]) -> None:
    """Check that transforms can be applied one after the other.

    Raises:
        UserError: One of words stands behind one of tokens, or one that needs the row's own text behind any other.
    """
    for before, transform in pairwise(transforms):
        if by_token(before) and not by_token(transform):
            raise UserError(
                f"transform: {transform.kind} acts on words and stands behind {before.kind} by token; "
                "transforms of words come first"
            )
        if isinstance(transform, Swap) or (isinstance(transform, Keep) and transform.by == "scores"):
            needs = "takes another row's text" if isinstance(transform, Swap) else "needs a score for every word"
            raise UserError(
                f"transform: {transform.kind} {needs} as the column holds it and stands behind {before.kind}; "
                "it must come first"
            )
