"""Soft targets: a teacher's probabilities of the next token, laid on the student's own tokens of the same text.

Fu et al. (arXiv 2301.12726) match a student's distribution to a teacher's most likely tokens at every position.
Teacher and student may cut a text into different tokens, so the two are matched by characters: a token of the student
that covers just the characters of one token of the teacher gets what the teacher thought likely there. What stays of
the teacher's probability is not renormalised.

Ground floor: knows texts, tokens and probabilities, no loss and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.thinking import answer_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class TeacherToken:
    """What a teacher thought likely in the place of one of its tokens.

    Attributes:
        start: First character of its token in a text.
        end: End of it.
        top: The most likely tokens there: (text, probability).
    """

    start: int
    end: int
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class SoftTarget:
    """What one token of the student is to be: ids with their probabilities, which need not add up to 1.

    Attributes:
        ids: Token ids, each once.
        probs: Their probabilities.
        unmapped: Probability of what the teacher thought likely and is not one token of the student.
    """

    ids: tuple[int, ...]
    probs: tuple[float, ...]
    unmapped: float = 0.0


def place(tokens: Sequence[Mapping[str, Any]], column: str, text: str, start: int) -> tuple[TeacherToken, ...]:
    """Find the teacher's tokens in a text that holds a part of what it wrote.

    Tokens around the column are there as well as far as the text reads as the teacher wrote: mostly the space before
    the first word.

    Args:
        tokens: All tokens of the teacher's completion in order, each with `token` and its `top`: list of `token` and
            `logprob`.
        column: The part, as a column of the record holds it.
        text: The text that the student learns to write, which holds the column.
        start: Where in it the column begins.

    Returns:
        The tokens in order; none where the part is not in the completion, as with characters that the teacher wrote in
        several tokens.

    Raises:
        UserError: The tokens are not of this form.
    """
    try:
        written = [
            (str(token["token"]), [(one["token"], float(one["logprob"])) for one in token["top"]]) for token in tokens
        ]
    except (TypeError, KeyError, ValueError):
        raise UserError(
            "found no list of tokens, each with `token` and `top`: a list of `token` and `logprob`"
        ) from None
    whole = "".join(token for token, _ in written)
    # What a reasoning model thought may say the same as its answer.
    spans = answer_spans(whole) if column else []
    found = next((at for span in spans if (at := whole.find(column, *span)) >= 0), -1)
    if found < 0:
        return ()
    placed: list[TeacherToken] = []
    begin = start - found
    for token, top in filter(lambda one: one[0], written):
        end = begin + len(token)
        if begin >= 0 and text[begin:end] == token:
            likely = tuple((other, math.exp(min(logprob, 0.0))) for other, logprob in top)
            placed.append(TeacherToken(begin, end, likely))
        elif begin < start:
            placed.clear()  # nothing before this one stands where it stood for the teacher
        else:
            break
        begin = end
    return tuple(placed)


def align(
    spans: Sequence[tuple[int, int]],
    ids: Sequence[int],
    teacher: Sequence[TeacherToken],
    text: str,
    known: Mapping[str, int],
) -> list[SoftTarget | None]:
    """Give every token of the student what the teacher thought likely there, None where it has no token of its own.

    A token is the teacher's own too where it covers the same characters. Of what the teacher thought likely, texts that
    are one token of the student keep their probability; several of one text add up.

    Args:
        spans: Characters (start, end) of each token of the student in the text, in order; the space before a word may
            be missing, as some tokenizers leave it out.
        ids: Its id.
        teacher: The teacher's tokens in the text.
        text: The text.
        known: Id of each text that is one token of the student (`single_tokens`).
    """
    by_span = {(token.start, token.end): token for token in teacher}
    targets: list[SoftTarget | None] = []
    last = 0
    for (start, end), own in zip(spans, ids, strict=True):
        if last < start and text[last:start].isspace():
            start = last
        last = max(last, end)
        token = by_span.get((start, end))
        # The id as well: a tokenizer that leaves spaces out may have put them into a token without characters.
        is_own = token is not None and known.get(text[start:end]) == own
        targets.append(_target(token, known) if token is not None and is_own else None)
    return targets


def _target(token: TeacherToken, known: Mapping[str, int]) -> SoftTarget | None:
    """Return a teacher's token in the student's vocabulary, None where nothing of it is there."""
    kept: dict[int, float] = {}
    unmapped = 0.0
    for text, probability in token.top:
        if text in known and probability > 0:
            kept[known[text]] = kept.get(known[text], 0.0) + probability
        else:
            unmapped += probability
    return SoftTarget(tuple(kept), tuple(kept.values()), unmapped) if kept else None


@lru_cache(maxsize=1)
def single_tokens(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, int]:
    """Return the id of every text that is one token within a text, special tokens left out.

    Decoded behind a letter: at the beginning of a text some tokenizers leave out the space of a token.
    """
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    ids = [token for token in range(len(tokenizer)) if token not in special]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    shown = str(tokenizer.decode(before, **options))
    texts = tokenizer.batch_decode([[*before, token] for token in ids], **options)
    # Of several tokens of one text the last: SentencePiece lists the bytes that it falls back on first.
    return {
        text[len(shown) :]: token
        for text, token in zip(texts, ids, strict=True)
        if text.startswith(shown) and len(text) > len(shown) and _UNREADABLE not in text
    }
